"""Servers on KubeVirt: the objects that are made of an order, and what is read from objects that are there."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from lifeboat.engines.ceph import options
from lifeboat.engines.ceph.compute import Disk, Order
from lifeboat.engines.ceph.compute.kubevirt import manifests, names, reading
from lifeboat.engines.ceph.compute.kubevirt.reading import Found
from lifeboat.engines.contract import Pair, Refused
from lifeboat.engines.facts import MachineState
from lifeboat.engines.verbs import Shape

DNS = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
GIVEN: dict[str, Any] = {
    "clusterID": "b",
    "csiSecretRef": {"name": "csi-rbd-node", "namespace": "ceph-csi"},
    "networks": [{"name": "recovery", "pod": {}}, {"name": "vlan", "multus": "a/vlan", "isolated": "a/nowhere"}],
}
KUBEVIRT = options.KubeVirt.model_validate(GIVEN)
DISKS = (Disk("system", "rbd", "lifeboat+web-1+m+system", 1 << 30), Disk("data", "fast", "x", 5))


def order(server_id: str = "web-1", name: str = "failover-1-1", **shape: Any) -> Order:
    return Order(server_id, name, Shape(**{"cpu": 4, "memory_bytes": 1 << 30, "network": "recovery", **shape}), DISKS)


def vm(**spec: Any) -> Found:
    metadata = {"name": "web", "namespace": "servers", "uid": "1", "labels": {names.SERVER: "web-1"}}
    return Found({"metadata": metadata, "spec": {"template": {"spec": {"domain": {}}}, **spec}}, None)


def with_instance(found: Found, phase: str, **status: Any) -> Found:
    instance = {"metadata": {"name": found.name}, "spec": {"domain": {}}, "status": {"phase": phase, **status}}
    return Found(found.vm, instance)


@pytest.mark.parametrize("server_id", ["web-1", "Web_1", "a.b", "x" * 63, "_"])
@pytest.mark.parametrize("machine", ["failover-1-1", f"drill-{'very.long.' * 24}end"])
def test_names_are_names_and_labels_are_labels_whatever_the_ids(server_id: str, machine: str) -> None:
    assert DNS.fullmatch(names.machine("zone-b", server_id, machine))
    assert DNS.fullmatch(names.disk("servers", "rbd", f"lifeboat+{server_id}+{machine}+system"))
    assert DNS.fullmatch(names.hostname(server_id))
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", names.label(machine))


def test_what_differs_has_another_name() -> None:
    machines = {names.machine(*each) for each in (("a", "w-1", "m"), ("b", "w-1", "m"), ("a", "w", "1-m"))}
    assert len(machines) == 3
    assert names.machine("a", "Web", "m") != names.machine("a", "web", "m")
    assert names.disk("a", "rbd", "x+y") != names.disk("a", "rbd", "x-y")


def test_a_disk_is_a_volume_and_a_claim_that_have_only_each_other() -> None:
    volume, claim, second, _ = manifests.disks(KUBEVIRT, "zone-b", "servers", "web-1", DISKS)
    assert volume["spec"]["claimRef"]["name"] == claim["metadata"]["name"] == claim["spec"]["volumeName"]
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert volume["spec"]["csi"] == {
        "driver": "rbd.csi.ceph.com",
        "volumeHandle": "lifeboat+web-1+m+system",
        "volumeAttributes": {
            "clusterID": "b",
            "pool": "rbd",
            "staticVolume": "true",
            "imageFeatures": "layering,exclusive-lock,object-map,fast-diff,deep-flatten",
        },
        "nodeStageSecretRef": {"name": "csi-rbd-node", "namespace": "ceph-csi"},
    }
    assert volume["spec"]["capacity"]["storage"] == claim["spec"]["resources"]["requests"]["storage"] == str(1 << 30)
    assert second["spec"]["csi"]["volumeAttributes"]["pool"] == "fast"
    nbd = KUBEVIRT.model_copy(update={"mounter": "rbd-nbd"})
    volume = next(manifests.disks(nbd, "zone-b", "servers", "web-1", DISKS))
    assert volume["spec"]["csi"]["volumeAttributes"]["mounter"] == "rbd-nbd"


def test_a_machine_has_what_was_asked_for() -> None:
    made = manifests.machine(KUBEVIRT.networks[0], "zone-b", "servers", order(name="failover-1-1"))
    spec = made["spec"]["template"]["spec"]
    assert made["spec"]["runStrategy"] == "RerunOnFailure"
    assert spec["domain"]["cpu"] == {"sockets": 4, "cores": 1, "threads": 1}
    assert spec["domain"]["memory"] == {"guest": str(1 << 30)}
    assert [disk["bootOrder"] for disk in spec["domain"]["devices"]["disks"]] == [1, 2]
    assert spec["networks"] == [{"name": "network", "pod": {}}]
    assert reading.disks(Found(made, None)) == DISKS
    assert [disk.size_bytes for disk in reading.disks(Found(made, None))] == [1 << 30, 5]
    claimed = [each["metadata"]["name"] for each in manifests.disks(KUBEVIRT, "zone-b", "servers", "web-1", DISKS)]
    assert list(reading.claims(made)) == claimed[::2]


@pytest.mark.parametrize(("isolated", "joined"), [(False, "a/vlan"), (True, "a/nowhere")])
def test_an_isolated_machine_joins_a_network_that_leads_nowhere(isolated: bool, joined: str) -> None:
    made = manifests.machine(KUBEVIRT.networks[1], "zone-b", "servers", order(isolated=isolated))
    spec = made["spec"]["template"]["spec"]
    assert spec["networks"] == [{"name": "network", "multus": {"networkName": joined}}]
    assert "bridge" in spec["domain"]["devices"]["interfaces"][0]


def test_a_machine_of_another_zone_in_the_namespace_is_not_seen() -> None:
    mine = manifests.machine(KUBEVIRT.networks[0], "zone-b", "servers", order())
    other = manifests.machine(KUBEVIRT.networks[0], "zone-a", "servers", order())
    seen = reading.look("zone-b", [mine, other, vm().vm], [], [])
    assert list(seen.machines["web-1"]) == ["failover-1-1"]
    assert list(seen.servers) == ["web-1"]


@pytest.mark.parametrize(
    ("strategy", "phase", "status", "state", "said"),
    [
        ("RerunOnFailure", None, {}, MachineState.RUNNING, "being started"),
        ("RerunOnFailure", "Scheduling", {}, MachineState.RUNNING, "being started"),
        ("RerunOnFailure", "Running", {}, MachineState.RUNNING, ""),
        ("Halted", "Running", {}, MachineState.RUNNING, "being stopped"),
        ("Halted", None, {}, MachineState.HALTED, ""),
        ("Halted", "Succeeded", {}, MachineState.HALTED, ""),
        ("RerunOnFailure", "Succeeded", {}, MachineState.FAILED, "switched itself off"),
        ("RerunOnFailure", "Failed", {}, MachineState.FAILED, "does not run"),
        ("RerunOnFailure", "Failed", {"reason": "NodeUnresponsive"}, MachineState.RUNNING, ""),
    ],
)
def test_what_a_machine_does(
    strategy: str, phase: str | None, status: dict[str, Any], state: MachineState, said: str
) -> None:
    found = vm(runStrategy=strategy)
    if phase is not None:
        found = with_instance(found, phase, **status)
    machine = reading.machine("m", found)
    assert machine.state is state
    assert said in machine.reason


def test_why_a_machine_is_not_started_is_told() -> None:
    found = vm(runStrategy="RerunOnFailure")
    body = copy.deepcopy(dict(found.vm))
    condition = {"type": "Ready", "status": "False", "message": "0/3 nodes are available"}
    body["status"] = {"printableStatus": "ErrorUnschedulable", "conditions": [condition]}
    assert reading.machine("m", Found(body, None)).reason == (
        "it is being started (ErrorUnschedulable): 0/3 nodes are available"
    )


def test_one_that_cannot_write_is_out_of_space() -> None:
    paused = {"type": "Paused", "status": "True", "reason": "PausedIOError"}
    machine = reading.machine("m", with_instance(vm(runStrategy="Always"), "Running", conditions=[paused]))
    assert machine.out_of_space
    paused["reason"] = "PausedByUser"
    machine = reading.machine("m", with_instance(vm(runStrategy="Always"), "Running", conditions=[paused]))
    assert not machine.out_of_space
    assert "virtctl unpause" in machine.reason


def test_a_node_that_went_silent_may_run_its_server_on() -> None:
    silent = with_instance(vm(runStrategy="Always"), "Failed", reason="NodeUnresponsive")
    assert reading.source(silent).running
    assert not reading.source(with_instance(vm(runStrategy="Halted"), "Failed")).running


@pytest.mark.parametrize(
    ("spec", "phase", "running"),
    [
        ({"runStrategy": "Always"}, None, True),
        ({"runStrategy": "Always"}, "Succeeded", True),
        ({"running": True}, None, True),
        ({"running": False}, None, False),
        ({"runStrategy": "RerunOnFailure"}, None, True),
        ({"runStrategy": "RerunOnFailure"}, "Failed", True),
        ({"runStrategy": "RerunOnFailure"}, "Succeeded", False),
        ({"runStrategy": "Manual"}, None, False),
        ({"runStrategy": "Manual"}, "Running", True),
        ({"runStrategy": "Halted"}, "Running", True),
        ({}, None, False),
    ],
)
def test_a_server_that_is_about_to_run_counts_as_running(
    spec: dict[str, Any], phase: str | None, running: bool
) -> None:
    found = vm(**spec)
    assert reading.source(found if phase is None else with_instance(found, phase)).running is running


def test_of_an_instance_type_nothing_is_known_while_it_does_not_run() -> None:
    found = vm(instancetype={"name": "u1.large"})
    assert not reading.made(found).known
    running = with_instance(found, "Running")
    domain = {"cpu": {"sockets": 2, "cores": 2}, "memory": {"guest": "8Gi"}}
    running = Found(found.vm, {**(running.instance or {}), "spec": {"domain": domain}})
    made = reading.made(running)
    assert (made.known, made.cpu, made.memory_bytes) == (True, 4, 8 << 30)


def chosen(**compute: Any) -> options.SiteOptions:
    pair = Pair("zone-a", "zone-b", {"primary": {"secretRef": {"name": "a"}}, "recovery": _recovery(compute)}, "demo")
    return options.read(pair.options).site(pair, "zone-b")


def _recovery(compute: dict[str, Any]) -> dict[str, Any]:
    return {"secretRef": {"name": "b"}, **({"compute": compute} if compute else {})}


def test_a_site_says_where_its_servers_run() -> None:
    assert chosen().compute.kubevirt is None
    assert chosen(host={}).compute.kubevirt is None
    assert chosen(kubevirt=GIVEN).compute.kubevirt == KUBEVIRT


@pytest.mark.parametrize(
    ("compute", "said"),
    [
        ({"host": {}, "kubevirt": GIVEN}, "exactly one of host and kubevirt"),
        ({"kubevirt": {**GIVEN, "networks": []}}, "recovery.compute.kubevirt.networks"),
        ({"kubevirt": {**GIVEN, "networks": [{"name": "a"}]}}, "exactly one of pod and multus"),
        ({"kubevirt": {**GIVEN, "networks": [{"name": "a", "pod": {}, "isolated": "b"}]}}, "isolated stands beside"),
        ({"kubevirt": {**GIVEN, "mounter": "fuse"}}, "'rbd' or 'rbd-nbd'"),
        ({"kubevirt": {**GIVEN, "exec": "x"}}, "recovery.compute.kubevirt.exec"),
    ],
)
def test_what_cannot_be_used_is_said_by_its_place(compute: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        chosen(**compute)
