"""Raw disks: what they begin with is their guest's to write, and is taken for nothing but data."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifeboat.engines.contract import Refused
from lifeboat.engines.qemu.site_server import present
from lifeboat.engines.qemu.zones import Zones
from lifeboat.engines.verbs import TakePoint
from lifeboat.host import machine
from tests.engines.qemu.conftest import MIB, SERVER, World, reads, run, server

HEADER_BYTES = 512


async def with_disk(world: World, **disk: object) -> Path:
    """Let the source have that for its second disk, and be off."""
    await world.engine.stop_server("zone-a", SERVER)
    disks = [server()["disks"][0], {"name": "data", **disk}]
    world.write_inventory("zone-a", servers=[server(disks=disks)])
    return world.a / str(disk["file"])


async def test_a_header_that_the_guest_wrote_opens_no_other_file(world: World, tmp_path: Path) -> None:
    disk = await with_disk(world, file="disks/data.raw", size="64Mi", format="raw")
    await world.engine.start_server("zone-a", SERVER)
    assert disk.stat().st_size == 64 * MIB
    secret, header = tmp_path / "secret.raw", tmp_path / "header.qcow2"
    secret.write_bytes(b"\x2a" * MIB)
    await run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(secret), str(header), "1G")
    await world.engine.stop_server("zone-a", SERVER)
    with disk.open("r+b") as file:
        file.write(header.read_bytes()[:HEADER_BYTES])

    await world.engine.start_server("zone-a", SERVER)
    hardware = present(Zones(world.folder).zone("zone-a"), SERVER).hardware()
    assert [each.size_bytes for each in hardware.disks] == [256 * MIB, 64 * MIB]
    await world.replicate()
    await world.write(1, 7, "32M")
    await world.perform(TakePoint("taken"))
    await world.launch("drill-d", "taken")
    assert await world.holds("drill-d", 1, 7, "32M")
    assert reads(world.overlay("drill-d", 1), ord("Q"), "0", "1"), "it is data like any other"
    assert not await world.holds("drill-d", 1, 0x2A, "1M")


async def test_a_raw_image_of_which_the_inventory_does_not_say_so_is_refused(world: World) -> None:
    disk = await with_disk(world, file="disks/data.img")
    await run("qemu-img", "create", "-q", "-f", "raw", str(disk), "64M")
    with pytest.raises(Refused, match="disk data is no qcow2 image; write `format: raw` beside its file in the inv"):
        await world.engine.start_server("zone-a", SERVER)
    assert machine.running(world.source) is None
