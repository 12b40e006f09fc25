"""The objects of a launched machine, and what is said of a virtual machine that is somebody else's: pure rendering."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from lifeboat.engines.ceph.compute import Disk, Order
from lifeboat.engines.ceph.compute.kubevirt import names
from lifeboat.engines.ceph.compute.kubevirt.cluster import CLAIM, POLICY, VIRTUAL_MACHINE, VOLUME, Body, Kind
from lifeboat.engines.ceph.options import KubeVirt, KubeVirtNetwork

Manifest = dict[str, Any]

HALTED = "Halted"
MANUAL = "Manual"
"""Whoever wants it to run says so each time."""
STRATEGY = "RerunOnFailure"
"""A guest that switches itself off stays off, as on a host of its own; one whose node was lost is started elsewhere."""
_NIC = "network"
_RUNS_LONG = 120
# What the clones have that a machine's disks are; with anything else of it a kernel could not map them.
_FEATURES = "layering,exclusive-lock,object-map,fast-diff,deep-flatten"
_SMALLEST = 1 << 20


def labels(zone: str, server_id: str) -> dict[str, str]:
    """The labels of all that is made for a server in a zone."""
    return {**names.MANAGED_BY, names.SERVER: server_id, names.ZONE: zone}


def disks(options: KubeVirt, zone: str, namespace: str, server_id: str, found: tuple[Disk, ...]) -> Iterator[Manifest]:
    """The PersistentVolume of each disk and the claim that has it, each bound to the other and to nothing else."""
    mine = labels(zone, server_id)
    for disk in found:
        name = names.disk(namespace, disk.pool, disk.image)
        size = str(max(disk.size_bytes, _SMALLEST))
        common = {"accessModes": ["ReadWriteOnce"], "volumeMode": "Block", "storageClassName": ""}
        yield _object(
            VOLUME,
            {"name": name, "labels": mine},
            {
                **common,
                "capacity": {"storage": size},
                # The image is the engine's: it goes when the engine says so, not with an object.
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {
                    "apiVersion": CLAIM.api_version,
                    "kind": CLAIM.name,
                    "namespace": namespace,
                    "name": name,
                },
                "csi": {
                    "driver": options.driver,
                    "volumeHandle": disk.image,
                    "volumeAttributes": {
                        "clusterID": options.cluster_id,
                        "pool": disk.pool,
                        "staticVolume": "true",
                        "imageFeatures": _FEATURES,
                        **({} if options.mounter == "rbd" else {"mounter": options.mounter}),
                    },
                    "nodeStageSecretRef": {
                        "name": options.csi_secret_ref.name,
                        "namespace": options.csi_secret_ref.namespace,
                    },
                },
            },
        )
        yield _object(
            CLAIM,
            {"name": name, "namespace": namespace, "labels": mine},
            {**common, "volumeName": name, "resources": {"requests": {"storage": size}}},
        )


def machine(network: KubeVirtNetwork, zone: str, namespace: str, order: Order) -> Manifest:
    """The virtual machine of an order, which runs."""
    name = names.machine(zone, order.server_id, order.name)
    shape = order.shape
    mine = {**labels(zone, order.server_id), names.MACHINE: names.label(order.name)}
    notes = {
        names.MACHINE: order.name,
        names.DISKS: json.dumps(
            [{"name": d.name, "pool": d.pool, "image": d.image, "size": d.size_bytes} for d in order.disks]
        ),
        names.PORTS: ",".join(str(port) for port in order.ports),
        **({names.ISOLATED: "true"} if shape.isolated else {}),
    }
    interface, joined = _joined(network, isolated=shape.isolated)
    return _object(
        VIRTUAL_MACHINE,
        {"name": name, "namespace": namespace, "labels": mine, "annotations": notes},
        {
            "runStrategy": STRATEGY,
            "template": {
                "metadata": {"labels": {**mine, names.OBJECT: name}},
                "spec": {
                    "hostname": names.hostname(shape.name or order.server_id),
                    # A drill's server has nothing to lose; a recovered one is switched off as its owner would.
                    "terminationGracePeriodSeconds": 0 if shape.isolated else _RUNS_LONG,
                    "domain": {
                        "cpu": {"sockets": shape.cpu, "cores": 1, "threads": 1},
                        "memory": {"guest": str(shape.memory_bytes)},
                        "devices": {
                            "disks": [
                                {
                                    "name": f"disk-{index}",
                                    "bootOrder": index + 1,
                                    "serial": disk.name[:20],
                                    "disk": {"bus": "virtio"},
                                }
                                for index, disk in enumerate(order.disks)
                            ],
                            "interfaces": [{"name": _NIC, "model": "virtio", **interface}],
                            "rng": {},
                        },
                    },
                    "networks": [{"name": _NIC, **joined}],
                    "volumes": [
                        {
                            "name": f"disk-{index}",
                            "persistentVolumeClaim": {"claimName": names.disk(namespace, disk.pool, disk.image)},
                        }
                        for index, disk in enumerate(order.disks)
                    ],
                },
            },
        },
    )


def isolation(zone: str, namespace: str, order: Order) -> Manifest:
    """What cuts a machine on the network of pods off: it may answer who speaks to it, and speak to nobody itself.

    Who checks a drill's server comes from outside, from an address that is not known here.
    """
    name = names.machine(zone, order.server_id, order.name)
    return _object(
        POLICY,
        {"name": name, "namespace": namespace, "labels": labels(zone, order.server_id)},
        {"podSelector": {"matchLabels": {names.OBJECT: name}}, "policyTypes": ["Egress"], "egress": []},
    )


def power(found: Body, strategy: str, marks: Mapping[str, str], notes: Mapping[str, str]) -> Manifest:
    """That a virtual machine which is there runs or does not, and what is noted with that."""
    spec = found["spec"]
    # Who still says `running` may not say `runStrategy` as well.
    says = {"running": strategy != HALTED} if spec.get("running") is not None else {"runStrategy": strategy}
    return _object(VIRTUAL_MACHINE, _same(found, marks, notes), says)


def note(found: Body, notes: Mapping[str, str], marks: Mapping[str, str] | None = None) -> Manifest:
    """What is noted on a virtual machine that is there; what was noted before and is not given goes."""
    return _object(VIRTUAL_MACHINE, _same(found, marks or {}, notes), None)


def _same(found: Body, marks: Mapping[str, str], notes: Mapping[str, str]) -> Manifest:
    metadata = found["metadata"]
    # With its uid: one that was deleted meanwhile is not made again, as half of one.
    same = {each: metadata[each] for each in ("name", "namespace", "uid")}
    return {**same, "labels": dict(marks), "annotations": dict(notes)}


def _joined(network: KubeVirtNetwork, *, isolated: bool) -> tuple[Manifest, Manifest]:
    """A machine's interface, and the network that it leads to."""
    if network.multus is None:
        return {"masquerade": {}}, {"pod": {}}
    name = network.isolated if isolated and network.isolated is not None else network.multus
    return {"bridge": {}}, {"multus": {"networkName": name}}


def _object(kind: Kind, metadata: Manifest, spec: Manifest | None) -> Manifest:
    made = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
    return made if spec is None else {**made, "spec": spec}
