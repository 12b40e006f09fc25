"""The embedded engine with a guest that boots, from disks in files."""

from __future__ import annotations

import asyncio

from demo.guest import GuestImage, build, copy_disks
from lifeboat.host.qmp import Monitors
from tests.engines.guest import Guest
from tests.engines.qemu_harness import SOURCE_ADDRESS, Zones


class GuestHarness(Zones, Guest):
    """A server that boots, and so do the machines that are started from its points."""

    source_address = SOURCE_ADDRESS

    def __init__(self, image: GuestImage) -> None:
        super().__init__(image.memory_mib, storage_mib=1024)
        disks = copy_disks(image, self.zones / "zone-a" / "standard" / self.server_id)
        self.describe([{"name": disk.stem, "file": str(disk.relative_to(self.zones / "zone-a"))} for disk in disks])

    @classmethod
    async def create(cls) -> GuestHarness:
        harness = cls(await asyncio.to_thread(build, "tiny", data_disks=2))
        try:
            await harness.source_up()
        except BaseException:
            await harness.close()
            raise
        return harness

    @property
    def owners_monitors(self) -> Monitors:
        return self.owner._monitors

    async def close(self) -> None:
        await self.take_down()
