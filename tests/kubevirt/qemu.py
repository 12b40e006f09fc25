"""What the stand-in for KubeVirt runs where it is to be real: QEMU machines on the images that claims lead to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lifeboat.engines.ceph.compute import Disk
from lifeboat.engines.ceph.compute.host import booting
from lifeboat.engines.ceph.connection import Connection
from lifeboat.host import machine
from lifeboat.host.inventory import NetworkSpec
from lifeboat.host.qmp import Monitors
from tests.kubevirt.standin import Wanted

_NETWORK = {"name": "pods", "cidr": "10.244.0.0/24", "address": "127.77.1.1"}


class Qemu:
    """Machines in a folder, on the clusters that ceph-csi has these names for."""

    def __init__(self, folder: Path, clusters: Mapping[str, Connection]) -> None:
        self._folder = folder
        self._clusters = clusters
        self._monitors = Monitors()
        self._network = NetworkSpec.model_validate(_NETWORK)
        self.stood_still = 0

    def move(self, folder: Path) -> None:
        """Run the machines that are to come in another folder."""
        self._folder = folder

    def folder(self, name: str) -> Path:
        """Where the machine of a virtual machine runs."""
        return self._folder / name

    async def start(self, wanted: Wanted) -> str:
        (cluster,) = {image.cluster for image in wanted.disks}
        access = self._clusters[cluster]
        address = "10.244.0.50"
        spec = booting.spec(
            name=wanted.name,
            hostname=wanted.name,
            folder=self.folder(wanted.name),
            cpu=wanted.cpu,
            memory_bytes=wanted.memory_bytes,
            disks=tuple(Disk(str(index), image.pool, image.name) for index, image in enumerate(wanted.disks)),
            network=self._network,
            address=address,
            access=access,
        )
        await booting.boot(self._monitors, spec, access)
        return address

    async def end(self, name: str, *, orderly: bool) -> bool:  # noqa: ARG002 - what it boots does not listen
        await machine.stop(self._monitors, self.folder(name))
        return True

    async def runs(self, name: str) -> bool:
        return machine.running(self.folder(name)) is not None

    async def pause(self, name: str) -> None:
        self.stood_still += 1
        await self._monitors.run(machine.socket(self.folder(name)), "stop")

    async def go_on(self, name: str) -> None:
        await self._monitors.run(machine.socket(self.folder(name)), "cont")
