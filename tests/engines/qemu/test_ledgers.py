"""The ledger's files: one winner, terms, a damaged file named, a copy for people at the primary."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lifeboat.engines.contract import LedgerConflict, Refused, Retry, StaleTerm, Target
from lifeboat.engines.facts import Known, Unknown
from lifeboat.engines.ledger import Ledger, decode
from lifeboat.engines.qemu import QemuEngine
from lifeboat.engines.qemu.ledgers import Ledgers
from lifeboat.engines.qemu.records import ReplicaRecord, save_replica
from lifeboat.engines.qemu.zones import Zone, Zones
from lifeboat.engines.verbs import TakePoint
from tests.engines.qemu.conftest import SERVER, World, known


@pytest.fixture
def zones() -> Iterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="lifeboat-qemu-"))
    yield World(folder)
    shutil.rmtree(folder)


@pytest.fixture
def small_zone(zones: World) -> Iterator[World]:
    """A world whose recovery zone lies on a disk of 32 MiB as a whole."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(zones.b)], check=True)
    zones.write_inventory("zone-b")
    yield zones
    subprocess.run(["umount", str(zones.b)], check=True)


def fill(path: Path) -> None:
    free = os.statvfs(path.parent)
    path.write_bytes(bytes(free.f_bavail * free.f_frsize))
    with pytest.raises(OSError, match="No space left"):
        path.with_name("one-more").write_bytes(bytes(4096))
    path.with_name("one-more").unlink()


async def test_a_full_disk_has_room_for_ledgers_and_records_still(small_zone: World) -> None:
    world, reserve = small_zone, small_zone.b / "reserve"
    stored = await world.engine.record(world.target, Ledger(SERVER))
    assert reserve.stat().st_blocks * 512 == 4 << 20
    fill(world.b / "filler")
    zone = Zones(world.folder).zone("zone-b")
    record = ReplicaRecord(server_id=SERVER, cpu=1, memory_bytes=1, disks=())
    for run in range(30):
        stored = await world.engine.record(world.target, replace(stored, run=run))
        save_replica(zone, record.model_copy(update={"run": run}))
    assert (await world.ledger()).run == 29
    assert not reserve.exists()
    (world.b / "filler").unlink()
    await world.engine.record(world.target, stored)
    assert reserve.exists(), "kept back again as soon as there is room"


async def test_of_many_writers_one_wins_each_version(zones: World) -> None:
    engines = [QemuEngine(zones.folder) for _ in range(4)]
    written: list[int] = []

    async def add(engine: QemuEngine) -> None:
        for _ in range(10):
            while True:
                facts = (await engine.observe(zones.pair, [SERVER])).servers[SERVER]
                ledger = known(facts.ledger)
                try:
                    stored = await engine.record(zones.target, replace(ledger, run=ledger.run + 1))
                except LedgerConflict:
                    continue
                written.append(stored.version)
                break

    await asyncio.gather(*(add(engine) for engine in engines))
    last = await zones.ledger()
    assert last.run >= 40
    assert last.version == last.run
    assert len(written) == len(set(written)) == 40
    assert len(list((zones.b / "replicas" / SERVER / "ledger").iterdir())) <= 6


async def test_a_later_term_shuts_out_an_older_one(zones: World) -> None:
    stored = await zones.engine.record(replace(zones.target, term=7), Ledger(SERVER))
    assert stored.term == 7
    with pytest.raises(StaleTerm):
        await zones.engine.record(zones.target, stored)
    with pytest.raises(StaleTerm):
        await zones.perform(TakePoint("x"))
    with pytest.raises(StaleTerm):
        await zones.engine.execute(zones.target, "machine", ["true"], 1)


async def test_a_damaged_ledger_is_unknown_and_its_file_is_named(zones: World) -> None:
    stored = await zones.engine.record(zones.target, Ledger(SERVER))
    path = zones.b / "replicas" / SERVER / "ledger" / "00000002.json"
    path.write_text("{")
    fact = (await zones.engine.observe(zones.pair, [SERVER])).servers[SERVER].ledger
    assert isinstance(fact, Unknown)
    assert str(path) in fact.reason
    with pytest.raises(Retry, match="00000002"):
        await zones.engine.record(zones.target, stored)
    path.unlink()
    assert await zones.ledger() == stored


async def test_the_primary_gets_a_copy_while_it_answers(zones: World) -> None:
    stored = await zones.engine.record(zones.target, Ledger(SERVER))
    copy = zones.a / "servers" / SERVER / "ledger.json"
    assert decode(copy.read_bytes()) == stored
    (zones.a / "DOWN").touch()
    await zones.engine.record(zones.target, stored)
    assert decode(copy.read_bytes()) == stored


async def test_a_server_that_is_not_asked_for_is_not_looked_at(zones: World) -> None:
    await zones.engine.record(Target(zones.pair, "forgotten", 1), Ledger("forgotten"))
    facts = await zones.engine.observe(zones.pair, [SERVER])
    assert set(facts.servers) == {SERVER}


async def test_a_server_whose_id_cannot_be_blinds_no_other_one(zones: World) -> None:
    facts = await zones.engine.observe(zones.pair, [SERVER, "a..b"])
    assert isinstance(facts.servers["a..b"].ledger, Unknown)
    assert "not a valid server id" in facts.servers["a..b"].ledger.reason
    assert isinstance(facts.servers[SERVER].ledger, Known)


async def test_a_look_that_fails_is_unknown_of_its_server_only(zones: World, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Ledgers.load

    def broken(self: Ledgers, zone: Zone, server_id: str) -> Ledger:
        if server_id == "odd":
            raise Refused("nothing is to be had here")
        return load(self, zone, server_id)

    monkeypatch.setattr(Ledgers, "load", broken)
    monkeypatch.setattr(Ledgers, "fact", lambda self, zone, server_id: Known(self.load(zone, server_id)))
    facts = await zones.engine.observe(zones.pair, [SERVER, "odd"])
    odd = facts.servers["odd"].forward
    for fact in (odd.exists, odd.hardware, odd.source, odd.replica, odd.machines, facts.servers["odd"].ledger):
        assert fact == Unknown("nothing is to be had here")
    assert isinstance(facts.servers[SERVER].ledger, Known)
