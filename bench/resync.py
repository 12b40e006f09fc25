"""After an interruption: what crosses the link again, against what was written meanwhile, and how long it takes.

The link is a relay between the zones, which is cut and counts what it passes on. The server's disk is written at a
steady rate, 4 KiB at random places, as a database does. The writer rests once the link is back, so that what is counted
is the resync and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench.engine import KIB, MIB, Device, Pair, bare
from bench.results import Figure, Lines, Measured, Target
from lifeboat.engines.contract import Retry
from lifeboat.engines.facts import ReplicaState
from lifeboat.engines.qemu import images
from lifeboat.engines.verbs import ResumeReplication, StopReplication
from tests.engines.qemu.relay import Mode, Relay

AWAY: Final = 60.0
"""Seconds without a link."""
BEFORE: Final = 5.0
RATE: Final = 40.0
"""Writes a second."""
DISK: Final = 1024 * MIB
FILLED: Final = 256 * MIB
"""From the disk's beginning on: where it is written."""
BLOCK: Final = 4 * KIB
PIECE: Final = 64 * KIB
"""What QEMU remembers as changed at least."""
_SECONDS: Final = 60.0
_LOOK: Final = 0.5
_TOLD: Final = (
    f"{RATE:.0f} writes of {BLOCK // KIB} KiB a second at random places of {FILLED // MIB} MiB. Bytes are counted where"
    " they pass, with all that the protocol adds. Both sides were compared afterwards."
)
_REMEMBERED: Final = (
    f"QEMU remembers what changed in pieces of {PIECE // KIB} KiB, as the replica's image is made of: a small write at"
    " a place of its own costs a whole piece. So the first row shows what the engine adds, the second what a database"
    " that writes at random places pays."
)


def measure(folder: Path) -> Measured:
    """Interrupt the link, and let the copy go on."""
    return asyncio.run(_measure(folder))


class Writer:
    """Writes blocks at random places at a steady rate, in a thread; `blocks` are those written since `anew`."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._places = random.Random(1)
        self._done = False
        self.blocks: set[int] = set()
        self.longest = 0.0

    def anew(self) -> None:
        """Count from here on."""
        self.blocks, self.longest = set(), 0.0

    def pieces(self) -> int:
        """Bytes of the distinct pieces that the blocks lie in."""
        return len({block * BLOCK // PIECE for block in self.blocks.copy()}) * PIECE

    def run(self) -> None:
        """Write until `stop`."""
        due = time.monotonic()
        while not self._done:
            block = self._places.randrange(FILLED // BLOCK)
            # Noted before it is written: a block that is under way at the cut may have to be copied.
            self.blocks.add(block)
            self.longest = max(
                self.longest, self._device.write(0, block * BLOCK, BLOCK, self._places.randrange(1, 256))
            )
            due = max(due + 1 / RATE, time.monotonic() - 1.0)
            time.sleep(max(0.0, due - time.monotonic()))

    def stop(self) -> None:
        """End after the present write."""
        self._done = True


async def _measure(folder: Path) -> Measured:
    disk = folder / "disk"
    await images.create(disk, DISK)
    async with bare(folder, {"disk": disk}) as pair:
        with Device(pair.source_folder) as device:
            device.write(0, 0, FILLED, 165)
            relay = await _relayed(pair)
            writer = Writer(device)
            writing = asyncio.create_task(asyncio.to_thread(writer.run))
            try:
                return await _interrupt(pair, relay, writer, writing)
            finally:
                writer.stop()
                relay.close()
                await asyncio.gather(writing, return_exceptions=True)


async def _relayed(pair: Pair) -> Relay:
    """Replicate through a relay. The replica's port is known once it was offered: the first start finds nobody."""
    await pair.cut_link()
    with contextlib.suppress(Retry):
        await pair.perform(pair.copy(1))
    record = pair.record()
    assert record.port is not None
    relay = Relay(*pair.link(record.port))
    try:
        await pair.perform(pair.copy(1))
        await pair.in_step(_SECONDS)
    except BaseException:
        relay.close()
        raise
    return relay


@asynccontextmanager
async def _drawing(
    lines: dict[str, list[tuple[float, float]]], look: Callable[[], tuple[int, ...]]
) -> AsyncIterator[None]:
    """Add to each line, twice a second, what is seen of it in bytes."""
    began = time.monotonic()

    def add() -> None:
        for line, seen in zip(lines.values(), look(), strict=True):
            line.append((round(time.monotonic() - began, 2), round(seen / MIB, 2)))

    async def keep_adding() -> None:
        while True:
            add()
            await asyncio.sleep(_LOOK)

    adding = asyncio.create_task(keep_adding())
    try:
        yield
    finally:
        adding.cancel()
        await asyncio.gather(adding, return_exceptions=True)
        add()


async def _interrupt(pair: Pair, relay: Relay, writer: Writer, writing: asyncio.Task[None]) -> Measured:
    lines: dict[str, list[tuple[float, float]]] = {"written since the cut": [], "passed on since the cut": []}
    await asyncio.sleep(BEFORE)
    usual = writer.longest
    writer.anew()
    relay.cut(Mode.REFUSE)
    passed = relay.passed
    async with _drawing(lines, lambda: (writer.pieces(), relay.passed - passed)):
        await asyncio.sleep(AWAY)
        assert (await pair.replica()).state is ReplicaState.INTERRUPTED
        writer.stop()
        await writing
        relay.cut(Mode.PASS)
        back = time.monotonic()
        await pair.perform(ResumeReplication(freeze_as="before"))
        started = time.monotonic() - back
        await pair.in_step(_SECONDS)
        took = time.monotonic() - back
    copied = (relay.passed - passed) / MIB
    await pair.perform(StopReplication())
    await asyncio.to_thread(pair.compare, 0)
    written = len(writer.blocks) * BLOCK / MIB
    pieces = writer.pieces() / MIB
    what = f"What crosses the link again after {AWAY:.0f} s without it"
    return Measured(
        [
            Figure(what, copied, "MiB", pieces, f"distinct pieces of {PIECE // KIB} KiB written", (Target(1.2),)),
            Figure(what, copied, "MiB", written, f"distinct blocks of {BLOCK // KIB} KiB written", (Target(1.2),)),
            Figure("From the verb until the replica is in step", took, "s"),
            Figure("of these, until the first byte may be copied", started, "s"),
            Figure("Longest write from the break on", writer.longest, "s", usual, f"in {BEFORE:g} s before it"),
        ],
        [Lines("resync", f"A link that is away for {AWAY:.0f} s", "seconds since the cut", "MiB", lines)],
        [_TOLD, _REMEMBERED],
    )
