"""What the guest notices: how long a write takes while it is protected, against the same guest that is not.

Measured in a guest that writes and flushes as fast as it can, and beside it at its disk's device, without a guest's
processor in between, which hides much where it is emulated. Windows with and without protection take turns, so that a
machine that becomes slower meanwhile does not look like a cost.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from bench.engine import KIB, MIB, Device, Pair
from bench.results import Figure, Measured, Samples, Target, percentile
from demo.guest import GuestImage, build, copy_disks
from demo.guest.trial import Trial
from lifeboat.engines.facts import Known
from lifeboat.engines.verbs import Launch, RemoveMachine, Shape, StopReplication, TakePoint
from lifeboat.host import machine
from lifeboat.host.guest import Guests

ROUNDS: Final = 3
POINTS: Final = 5
DRILLS: Final = 2
WINDOW: Final = 5.0
"""Seconds that the guest writes in each round."""
POINT_WINDOW: Final = 2.0
BOOT_WINDOW: Final = 12.0
"""Seconds that it writes beside a machine that boots."""
BLOCK: Final = 4 * KIB
AT_DEVICE: Final = 300
"""Writes at the device in each round."""
BULK: Final = 32 * MIB
"""What is written at once, in pieces of 1 MiB, for the throughput."""
DRAWN: Final = 200
_BLANK: Final = 2
"""The disk that the guest has and does not use."""
_SECONDS: Final = 90.0
# The data disk is mounted so that a write returns once it is flushed. No program is started between two looks at the
# clock, and the same 4 KiB are written over and over: the file does not grow.
_LOOP: Final = """
mount -o remount,sync /data || exit 1
block=$(head -c %d /dev/zero | tr '\\0' x)
echo -n "$block" >/data/bench
end=$((${EPOCHREALTIME%%.*} + %d))
began=$EPOCHREALTIME
while [ "${began%%.*}" -lt "$end" ]; do
  began=$EPOCHREALTIME
  echo -n "$block" 1<>/data/bench
  echo "$began $EPOCHREALTIME"
done >/run/bench.new
mount -o remount,async /data
mv /run/bench.new /run/bench.done
"""
_FOUND: Final = 16 * MIB


def measure(folder: Path) -> Measured:
    """Write in a guest while it is protected and while it is not."""
    return asyncio.run(_measure(folder))


class Guest:
    """The server that boots and writes."""

    def __init__(self, pair: Pair, image: GuestImage) -> None:
        self.pair, self.image = pair, image
        self._guests = Guests()

    async def writes(self, seconds: float) -> list[float]:
        """Let it write for so long, and return how many milliseconds each write took with its flush."""
        agent = self.pair.source_folder / machine.AGENT
        script = _LOOP % (BLOCK, round(seconds))
        start = {"path": "/bin/sh", "arg": ["-c", f"rm -f /run/bench.done; {script}"]}
        async with self._guests.conversation(agent, 10.0) as talk:
            await talk.run("guest-exec", start)
        await asyncio.sleep(seconds)  # nobody asks meanwhile: that would cost the guest time
        async with asyncio.timeout(_SECONDS):
            while True:
                async with self._guests.conversation(agent, 10.0) as talk:
                    ended = await talk.run("guest-exec", {"path": "/bin/test", "arg": ["-e", "/run/bench.done"]})
                    await asyncio.sleep(0.2)
                    status = await talk.run("guest-exec-status", {"pid": ended["pid"]})
                    if status["exited"] and status["exitcode"] == 0:
                        found = (await talk.read_file("/run/bench.done", _FOUND)).decode()
                        break
        pairs = (line.split() for line in found.splitlines())
        return [(float(after) - float(before)) * 1000 for before, after in pairs]

    async def close(self) -> None:
        """Stop asking."""
        await self._guests.close()


@asynccontextmanager
async def booted(folder: Path) -> AsyncIterator[Guest]:
    """A guest in a pair of zones."""
    image = await asyncio.to_thread(build, "tiny")
    zones = folder / "zones"
    zones.mkdir()
    pair = Pair(image.memory_mib, storage_mib=None, zones=zones)
    pair.cpu = 1
    guest = Guest(pair, image)
    try:
        home = zones / pair.pair.primary_zone
        disks = copy_disks(image, home / "standard")
        blank = {"name": "blank", "file": "standard/blank.qcow2", "size": f"{BULK // MIB}Mi"}
        pair.describe([*({"name": disk.stem, "file": str(disk.relative_to(home))} for disk in disks), blank])
        assert await pair.start_source()
        await pair.settle(lambda way: isinstance(way.source, Known) and way.source.value.agent_connected)
        yield guest
    finally:
        await guest.close()
        await pair.take_down()


async def _measure(folder: Path) -> Measured:
    async with booted(folder) as guest:
        run = 0
        guest_ms: dict[str, list[float]] = {"unprotected": [], "replicating": []}
        device_ms: dict[str, list[float]] = {"unprotected": [], "replicating": []}
        bulk: dict[str, list[float]] = {"unprotected": [], "replicating": []}
        for _ in range(ROUNDS):
            for way in guest_ms:
                if way == "replicating":
                    run += 1
                    await guest.pair.perform(guest.pair.copy(run))
                    await guest.pair.in_step(_SECONDS)
                elif run:
                    await guest.pair.perform(StopReplication())
                guest_ms[way] += await guest.writes(WINDOW)
                small, rate = await asyncio.to_thread(_at_device, guest.pair.source_folder)
                device_ms[way] += small
                bulk[way].append(rate)
        print("  replicating: measured", flush=True)
        points = await _points(guest)
        print("  points: measured", flush=True)
        beside = await _boots(guest, folder)
    return _told(guest_ms, device_ms, bulk, points, beside)


def _at_device(folder: Path) -> tuple[list[float], float]:
    """Milliseconds that each write of 4 KiB with its flush takes at the device, and MB/s of large ones."""
    places = random.Random(1)
    with Device(folder) as device:
        small = [
            device.write(_BLANK, places.randrange(BULK // BLOCK) * BLOCK, BLOCK, 1) * 1000 for _ in range(AT_DEVICE)
        ]
        began = time.perf_counter()
        for piece in range(BULK // MIB):
            device.write(_BLANK, piece * MIB, MIB, 2)
        return small, BULK / (time.perf_counter() - began) / 1e6


async def _points(guest: Guest) -> dict[str, tuple[list[float], list[float]]]:
    """By where it is written: the longest write of windows in which nothing happens, and in which a point is taken."""
    folder = guest.pair.source_folder
    found: dict[str, tuple[list[float], list[float]]] = {"in the guest": ([], []), "at the device": ([], [])}
    for number in range(POINTS):
        for where, longest in found.items():
            for taken, into in enumerate(longest):
                write = guest.writes(POINT_WINDOW) if where == "in the guest" else _steadily(folder, POINT_WINDOW)
                writing = asyncio.create_task(write)
                try:
                    await asyncio.sleep(POINT_WINDOW / 2)
                    if taken:
                        await guest.pair.perform(TakePoint(f"{where.replace(' ', '-')}-{number}"))
                finally:
                    into.append(max(await writing))
    return found


async def _steadily(folder: Path, seconds: float) -> list[float]:
    """Milliseconds that each write of 4 KiB with its flush takes at the device, for so long."""

    def write() -> list[float]:
        found, end = [], time.monotonic() + seconds
        places = random.Random(1)
        with Device(folder) as device:
            while time.monotonic() < end:
                found.append(device.write(_BLANK, places.randrange(BULK // BLOCK) * BLOCK, BLOCK, 1) * 1000)
        return found

    return await asyncio.to_thread(write)


async def _boots(guest: Guest, folder: Path) -> dict[str, list[float]]:
    """Milliseconds of each write while an unrelated guest boots, and while a drill's does."""
    beside: dict[str, list[float]] = {"an unrelated guest boots": [], "a drill's guest boots": []}
    control, drilled = beside.values()
    for number in range(DRILLS):
        with _unrelated(guest.image, folder / "control"):
            control += await guest.writes(BOOT_WINDOW)
        shape = Shape(1, guest.pair.memory_bytes, guest.pair.recovery_network, isolated=True)
        await guest.pair.perform(Launch(f"drill-{number}", f"at-the-device-{POINTS - 1}", shape))
        try:
            drilled += await guest.writes(BOOT_WINDOW)
        finally:
            await guest.pair.perform(RemoveMachine(f"drill-{number}"))
    return beside


@contextmanager
def _unrelated(image: GuestImage, folder: Path) -> Iterator[None]:
    """A guest of the same size that has nothing to do with anything, booting from a copy of the same image."""
    disks = copy_disks(image, folder)
    try:
        with Trial(disks, accelerator=machine.accelerator(), memory_mib=image.memory_mib, cpus=1):
            yield
    finally:
        shutil.rmtree(folder)


def _told(
    guest: dict[str, list[float]],
    device: dict[str, list[float]],
    bulk: dict[str, list[float]],
    points: dict[str, tuple[list[float], list[float]]],
    beside: dict[str, list[float]],
) -> Measured:
    figures = []
    for where, found in (("in the guest", guest), ("at the device", device)):
        plain, copied = found["unprotected"], found["replicating"]
        for share, targets in ((0.5, (Target(1.5),)), (0.99, ())):
            what = f"Write of 4 KiB with its flush {where} while replicating, p{share * 100:.0f}"
            value, baseline = percentile(copied, share), percentile(plain, share)
            figures.append(Figure(what, value, "ms", baseline, "unprotected", targets))
    rates = {name: 1000 / statistics.mean(found) for name, found in guest.items()}
    what = "Writes of 4 KiB in the guest, one after the other, while replicating"
    figures.append(Figure(what, rates["replicating"], "a second", rates["unprotected"], "unprotected"))
    rates = {name: statistics.median(found) for name, found in bulk.items()}
    what = "Large writes at the device while replicating"
    figures.append(Figure(what, rates["replicating"], "MB/s", rates["unprotected"], "unprotected"))
    for where, longest in points.items():
        calm, pointed = (statistics.median(found) for found in longest)
        what = f"Longest write {where} in {POINT_WINDOW:g} s in which a point is taken"
        figures.append(Figure(what, pointed, "ms", calm, "in which none is", (Target(20, "difference"),)))
    control, drilled = (statistics.mean(found) for found in beside.values())
    what = "Write in the guest while a drill's guest boots, mean"
    figures.append(Figure(what, drilled, "ms", control, "an unrelated guest boots", (Target(1.1),)))
    charts = [
        Samples("writes-guest", "Write of 4 KiB with its flush in the guest", "ms", _few(guest)),
        Samples("writes-device", "Write of 4 KiB with its flush at the device", "ms", _few(device)),
        Samples(
            "writes-points",
            f"Longest write of {POINT_WINDOW:g} s",
            "ms",
            {
                f"{what}, {where}": found
                for where, longest in points.items()
                for what, found in zip(("no point", "point"), longest, strict=True)
            },
        ),
        Samples("writes-drill", "Write in the guest beside a machine that boots", "ms", _few(beside)),
    ]
    note = (
        f"{ROUNDS} windows of {WINDOW:g} s with and without protection in turns, {POINTS} with a point,"
        f" {DRILLS} of {BOOT_WINDOW:g} s for each boot. Guests run by {machine.accelerator().upper()}."
    )
    return Measured(figures, list(charts), [note])


def _few(found: dict[str, list[float]]) -> dict[str, list[float]]:
    """As many as a chart can show, of the same distribution: every so many of them in their order, and the longest."""
    few = {}
    for name, values in found.items():
        ordered = sorted(values)
        step = max(1, len(ordered) // DRAWN)
        few[name] = [round(value, 3) for value in (*ordered[:-1:step], ordered[-1])]
    return few
