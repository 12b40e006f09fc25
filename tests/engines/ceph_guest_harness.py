"""The ceph engine with a guest that boots, from images that its disks are copied into."""

from __future__ import annotations

import asyncio

from demo.ceph import Clusters
from demo.ceph.cluster import POOL
from demo.guest import GuestImage, build
from lifeboat.engines.ceph import naming
from lifeboat.host.qmp import Monitors
from tests.engines.ceph_harness import SOURCE_ADDRESS, CephZones
from tests.engines.guest import Guest


class CephGuestHarness(CephZones, Guest):
    """A server that boots, and so do the machines that are started from its points."""

    source_address = SOURCE_ADDRESS

    def __init__(self, clusters: Clusters, image: GuestImage) -> None:
        super().__init__(clusters, image.memory_mib)
        self._pristine = {disk.stem: disk for disk in image.disks}
        self.disks = tuple(self._pristine)

    @classmethod
    async def create(cls, clusters: Clusters) -> CephGuestHarness:
        harness = cls(clusters, await asyncio.to_thread(build, "tiny", data_disks=2))
        await harness.begin()
        try:
            await harness.source_up()
        except BaseException:
            await harness.close()
            raise
        return harness

    @property
    def owners_monitors(self) -> Monitors:
        return self.owner._computes._host._monitors

    def _make_images(self) -> None:
        for disk, file in self._pristine.items():
            self.clusters.primary.import_disk(file, POOL, self._image(disk))

    def _more_marks(self, disk: str) -> dict[str, str]:
        return {naming.ORDER: str(self.disks.index(disk))}
