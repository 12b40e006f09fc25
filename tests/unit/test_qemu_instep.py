"""When a replica counts as in step, under a guest that never stops writing."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lifeboat.engines.qemu.instep import InStep
from lifeboat.engines.qemu.inventory import Inventory
from lifeboat.engines.qemu.mirror import Mirror, Progress
from lifeboat.engines.qemu.records import DiskRecord, Layer, ReplicaRecord, layer_file
from lifeboat.engines.qemu.zones import Zone
from lifeboat.host.qmp import Monitors


@pytest.fixture
def zone(tmp_path: Path) -> Zone:
    network = {"name": "app", "cidr": "10.1.0.0/24", "address": "127.0.20.1"}
    described = {"zone": "zone-b", "networks": [network], "storage": {"standard": "storage"}}
    return Zone(tmp_path, Inventory.model_validate(described))


@pytest.fixture
def instep() -> InStep:
    return InStep(Monitors(), lambda: datetime(2026, 1, 1, tzinfo=UTC), lambda: 0.0)


def record(*, synced: bool = False, torn: bool = False) -> ReplicaRecord:
    disk = DiskRecord(name="system", size_bytes=1)
    return ReplicaRecord(server_id="web-1", cpu=1, memory_bytes=1, disks=(disk,), synced=synced, torn=torn)


def seen(offset: int, length: int, *, clean: bool) -> Mirror:
    return Mirror(Progress.COPYING, "", offset, length, clean=clean, offsets=(offset,), lengths=(length,))


def test_writes_under_way_do_not_count_against_a_copy_that_is_ready(zone: Zone, instep: InStep) -> None:
    assert instep.judge(zone, record(), seen(90, 100, clean=True)).progress is Progress.SYNCED
    assert instep.judge(zone, record(synced=True), seen(90, 100, clean=True)).progress is Progress.SYNCED


def test_a_copy_with_marks_is_not_in_step(zone: Zone, instep: InStep) -> None:
    assert instep.judge(zone, record(), seen(90, 100, clean=False)).progress is Progress.COPYING


def test_the_last_of_a_resync_has_to_arrive(zone: Zone, instep: InStep) -> None:
    torn = record(synced=True, torn=True)
    for offset, length, clean, progress in (
        (90, 100, False, Progress.COPYING),
        (90, 100, True, Progress.COPYING),
        (99, 120, True, Progress.COPYING),
        (99, 120, False, Progress.COPYING),
        (110, 125, True, Progress.COPYING),
        (124, 140, True, Progress.COPYING),
        (125, 150, True, Progress.SYNCED),
    ):
        assert instep.judge(zone, torn, seen(offset, length, clean=clean)).progress is progress


def test_a_tip_is_as_old_as_the_last_write_that_arrived_until_it_is_closed(zone: Zone) -> None:
    elapsed = 0.0
    began = datetime(2026, 1, 1, tzinfo=UTC)
    instep = InStep(Monitors(), lambda: began + timedelta(seconds=elapsed), lambda: elapsed)
    tip = Layer(number=1, disks=("system",), base=True)
    known = record(synced=True).model_copy(update={"layers": (tip,), "tip": 1, "replicating": True, "offered": True})
    image = layer_file(zone, known, tip, 0)
    image.parent.mkdir(parents=True)
    image.touch()
    os.utime(image, (0, (began + timedelta(seconds=8)).timestamp()))
    instep.note(zone, known)
    assert instep.tip_time(zone, known) == began
    elapsed = 10.0
    assert instep.tip_time(zone, known) == began + timedelta(seconds=8)
    closed = known.model_copy(update={"offered": False})
    assert instep.tip_time(zone, closed) == began, "closing the images made them newer"
    later = InStep(Monitors(), lambda: began + timedelta(seconds=10), lambda: 0.0)
    assert later.tip_time(zone, known) == began + timedelta(seconds=8), "the next operator sees it too"


def test_what_stands_still_is_left_as_it_is(zone: Zone, instep: InStep) -> None:
    stopped = Mirror(Progress.INTERRUPTED, "why", 1, 2, clean=True, offsets=(1,), lengths=(2,))
    assert instep.judge(zone, record(synced=True), stopped) is stopped
