"""The ceph engine with servers on KubeVirt: real clusters, a real API server, and real machines by a stand-in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from demo.ceph import Clusters
from demo.ceph.cluster import POOL
from demo.controlplane import ControlPlane
from lifeboat import kube
from lifeboat.engines.ceph import connection, naming
from lifeboat.engines.ceph.compute.kubevirt import names
from lifeboat.engines.ceph.engine import CephEngine
from lifeboat.engines.contract import Pair, Secrets
from lifeboat.engines.facts import Known, Machine, MachineState, Way
from tests.engines import sectors
from tests.engines.ceph_harness import CephHarness
from tests.kubevirt.conftest import options
from tests.kubevirt.qemu import Qemu
from tests.kubevirt.standin import DRIVER, KubeVirt

SOURCE = "source"
SECRET = "kubernetes"
FEATURES = "layering,exclusive-lock,object-map,fast-diff,deep-flatten,journaling"


class _Secrets:
    """The Secrets of both sites, and the one that leads to the API server."""

    def __init__(self, clusters: Clusters, kubeconfig: str) -> None:
        self._clusters = clusters
        self._kubeconfig = kubeconfig

    async def read(self, namespace: str, name: str) -> Mapping[str, str]:
        if name == SECRET:
            return {"kubeconfig": self._kubeconfig}
        return await self._clusters.read(namespace, name)


class KubeVirtHarness(CephHarness):
    """A server of two disks whose recovered copies, and which itself where that is asked for, KubeVirt runs."""

    def __init__(self, clusters: Clusters, kubevirt: KubeVirt, qemu: Qemu, kubeconfig: str, *, both: bool) -> None:
        self._secrets = _Secrets(clusters, kubeconfig)
        super().__init__(clusters)
        self.kubevirt = kubevirt
        self.qemu = qemu
        self.both = both
        sites: dict[str, dict[str, Any]] = {}
        for side, cluster in zip(("primary", "recovery"), clusters.both, strict=True):
            sites[side] = {"secretRef": {"name": cluster.secret_name}}
            if both or side == "recovery":
                chosen = options(
                    clusterID=cluster.name,
                    kubeconfigSecretRef={"name": SECRET},
                    namespace=kubevirt.namespace,
                    networks=[{"name": "recovery", "pod": {}}, {"name": "replication", "pod": {}}],
                )
                sites[side]["compute"] = {"kubevirt": chosen.model_dump(mode="json", by_alias=True, exclude_none=True)}
        self.pair = Pair("zone-a", "zone-b", sites, "test")

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls, clusters: Clusters, plane: ControlPlane, namespace: str, folder: Path, *, both: bool
    ) -> AsyncIterator[KubeVirtHarness]:
        """A harness, and what has to run for it."""
        accesses = {each.name: connection.read(each.secret(), each.name) for each in clusters.both}
        api = await kube.Kube.connect(plane.kubeconfig)
        try:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
            await api.call("POST", "/api/v1/namespaces", body=body)
            qemu = Qemu(folder, accesses)
            async with contextlib.AsyncExitStack() as stack:
                # Left after the stand-in, which would start again what is ended here.
                kubevirt = KubeVirt(api, namespace, qemu, folder)
                kubeconfig = plane.kubectl("config", "view", "--raw", "--minify", "--flatten")
                harness = cls(clusters, kubevirt, qemu, kubeconfig, both=both)
                stack.push_async_callback(harness.close)
                qemu.move(harness.zones / "kubevirt")
                await stack.enter_async_context(kubevirt.running())
                await harness.begin()
                yield harness
        finally:
            await api.close()

    @property
    def source_folder(self) -> Path:
        return self.qemu.folder(SOURCE) if self.both else super().source_folder

    def machine_folder(self, name: str) -> Path:
        return self.qemu.folder(names.machine("zone-b", self.server_id, name))

    async def start_source(self) -> bool:
        started = await super().start_source()
        if started and self.both:
            await self.settle(_booted)
        return started

    async def write(self, number: int) -> None:
        if self.both:
            # Whoever lifts a fence lets the cluster start it, by and by.
            await self.settle(_booted)
        await super().write(number)

    async def agrees(self, point: str) -> bool:
        """Whether the disks of a point that was taken while the source alternated are of one instant.

        Read from the copy itself: a machine that is started from it goes on counting as soon as it boots.
        """
        first, second = [await asyncio.to_thread(self._frozen, self._image(disk), point) for disk in self.disks]
        return first > 0 and first - second in {0, 1}

    def _frozen(self, image: str, point: str) -> int:
        file = self.zones / "frozen.raw"
        frozen = f"{POOL}/{image}@{naming.snapshot(point)}"
        self.clusters.recovery.run("rbd", "export", "--no-progress", frozen, str(file))
        content = file.read_bytes()
        file.unlink()
        return int.from_bytes(content[sectors.SECTOR : sectors.SECTOR + 4], "little")

    def is_up(self, facts: Way, name: str) -> bool:
        """Whether a machine runs on its node, and not only in the cluster's plans."""
        found = facts.machines.value.get(name) if isinstance(facts.machines, Known) else None
        return found is not None and found.state is MachineState.RUNNING and bool(found.addresses)

    async def up(self, name: str) -> Machine:
        """Wait until a machine is up."""
        facts = await self.settle(lambda facts: self.is_up(facts, name))
        assert isinstance(facts.machines, Known)
        return facts.machines.value[name]

    def new_engine(self, secrets: Secrets | None = None) -> CephEngine:
        return super().new_engine(secrets or self._secrets)

    async def _mark_images(self) -> None:
        await super()._mark_images()
        if self.both:
            await self._make_source()

    async def _make_source(self) -> None:
        """Make the server as its owner has it: a virtual machine, claims, and volumes that librbd serves."""
        query = {"fieldManager": "owner", "force": "true"}
        for disk in self.disks:
            name = f"{SOURCE}-{disk}-{self.server_id}"
            common = {"accessModes": ["ReadWriteOnce"], "volumeMode": "Block", "storageClassName": ""}
            attributes = {
                "clusterID": self.clusters.primary.name,
                "pool": POOL,
                "staticVolume": "true",
                "imageFeatures": FEATURES,
                "mounter": "rbd-nbd",
            }
            volume = {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": name},
                "spec": {
                    **common,
                    "capacity": {"storage": "32Mi"},
                    "persistentVolumeReclaimPolicy": "Retain",
                    "claimRef": {"namespace": self.kubevirt.namespace, "name": name},
                    "csi": {"driver": DRIVER, "volumeHandle": self._image(disk), "volumeAttributes": attributes},
                },
            }
            claim = {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name},
                "spec": {**common, "volumeName": name, "resources": {"requests": {"storage": "32Mi"}}},
            }
            for plural, body in (("persistentvolumes", volume), ("persistentvolumeclaims", claim)):
                path = f"{self.kubevirt.path(plural)}/{name}"
                await self.kubevirt.api.call("PATCH", path, query=query, body=body, content_type=kube.APPLY_PATCH)
        volumes = [
            {"name": disk, "persistentVolumeClaim": {"claimName": f"{SOURCE}-{disk}-{self.server_id}"}}
            for disk in self.disks
        ]
        domain = {"cpu": {"cores": self.cpu}, "memory": {"guest": "64Mi"}, "devices": {}}
        server = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachine",
            "metadata": {
                "name": SOURCE,
                "labels": {names.SERVER: self.server_id},
                "annotations": {names.PORTS: "80"},
            },
            "spec": {"runStrategy": "Halted", "template": {"spec": {"domain": domain, "volumes": volumes}}},
        }
        path = f"{self.kubevirt.path('virtualmachines')}/{SOURCE}"
        await self.kubevirt.api.call("PATCH", path, query=query, body=server, content_type=kube.APPLY_PATCH)


def _booted(facts: Way) -> bool:
    """Whether the source runs on a node, and whoever starts it is done with that."""
    return isinstance(facts.source, Known) and facts.source.value.boot_time is not None
