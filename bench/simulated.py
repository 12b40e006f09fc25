"""The operator on the simulated engine, as a process to be measured: thousands of servers need no thousands of disks.

`python -m bench.simulated --calls FILE --servers N` plus the options of `lifeboat operator`. The servers `s-0` and up
are there and run. FILE gets a line for the first engine call about each server: the monotonic time, and its id.
"""

from __future__ import annotations

import asyncio
import signal
import time
from argparse import ArgumentParser
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TextIO

from lifeboat import logs, settings
from lifeboat.engines.contract import Pair, Target
from lifeboat.engines.facts import Disk, Hardware, PairFacts
from lifeboat.engines.ledger import Ledger
from lifeboat.engines.simulated.engine import SimulatedEngine
from lifeboat.engines.simulated.world import World
from lifeboat.engines.verbs import Verb
from lifeboat.service import Service

NETWORK: Final = "net"
CIDR: Final = "10.64.0.0/10"
MIB: Final = 1 << 20
STEP_MICROSECONDS: Final = 100_000


class Noted(SimulatedEngine):
    """The simulated engine, which notes when a server was first asked about."""

    def __init__(self, world: World, log: TextIO) -> None:
        super().__init__(world, now)
        self._log = log
        self._known: set[str] = set()

    async def observe(self, pair: Pair, server_ids: Collection[str]) -> PairFacts:
        """See, and note."""
        for server_id in server_ids:
            self._note(server_id)
        return await super().observe(pair, server_ids)

    async def record(self, target: Target, ledger: Ledger) -> Ledger:
        """Store, and note."""
        self._note(target.server_id)
        return await super().record(target, ledger)

    async def perform(self, target: Target, verb: Verb) -> None:
        """Do, and note."""
        self._note(target.server_id)
        await super().perform(target, verb)

    def _note(self, server_id: str) -> None:
        if server_id not in self._known:
            self._known.add(server_id)
            self._log.write(f"{time.monotonic()} {server_id}\n")
            self._log.flush()


def now() -> datetime:
    """The time of day, in steps: with each step everything that moves in the world is moved on."""
    moment = datetime.now(UTC)
    return moment - timedelta(microseconds=moment.microsecond % STEP_MICROSECONDS)


def world(servers: int, namespace: str) -> World:
    """Two zones, and so many servers in the first of them."""
    made = World(now(), boot_seconds=0.5, shutdown_seconds=0.2)
    for zone in (made.pair.primary_zone, made.pair.recovery_zone):
        made.add_zone(zone, cpu=1 << 20, memory_bytes=1 << 50)
        made.add_network(zone, NETWORK, CIDR)
        made.allow_namespaces(zone, namespace)
    for number in range(servers):
        made.add_server(f"s-{number}", Hardware(1, 512 * MIB, (Disk("vda", 1024 * MIB, 50 * MIB),)))
    return made


async def _serve(made: settings.Settings, engine: Noted) -> None:
    """Work until SIGTERM. SIGUSR1 ends the operator, SIGUSR2 starts another one; the world stays as it is."""
    loop = asyncio.get_running_loop()
    ending, going = asyncio.Event(), asyncio.Event()
    service = Service(made, lambda *_: engine)

    def end() -> None:
        ending.set()
        going.set()
        service.stop()

    def pause() -> None:
        going.clear()
        service.stop()

    for number, act in ((signal.SIGTERM, end), (signal.SIGUSR1, pause), (signal.SIGUSR2, going.set)):
        loop.add_signal_handler(number, act)
    going.set()
    while not ending.is_set():
        await service.run()
        await going.wait()
        service = Service(made, lambda *_: engine)


def main() -> None:
    """Work until ended."""
    parser = ArgumentParser(prog="python -m bench.simulated")
    parser.add_argument("--calls", type=Path, required=True)
    parser.add_argument("--servers", type=int, required=True)
    settings.add_arguments(parser)
    given = parser.parse_args()
    made = settings.from_arguments(given)
    logs.configure(made.log_format, made.log_level)
    with given.calls.open("a", encoding="ascii") as log:
        engine = Noted(world(given.servers, made.lease_namespace), log)
        asyncio.run(_serve(made, engine))


if __name__ == "__main__":
    main()
