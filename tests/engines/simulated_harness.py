"""The simulated engine under the conformance suite, once with every ability and once with none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from lifeboat.engines.contract import Capabilities, Engine, ExecResult, Refused
from lifeboat.engines.facts import Disk, Hardware, Way
from lifeboat.engines.ledger import Direction, ScriptOutcome
from lifeboat.engines.simulated.engine import SimulatedEngine
from lifeboat.engines.simulated.guest import Visit
from lifeboat.engines.simulated.guest import run as run_program
from lifeboat.engines.simulated.world import ALL, World

GIB = 1 << 30


class SimulatedHarness:
    """A world whose time passes while the suite waits, and in no other moment."""

    server_id = "web-1"
    outside_address = "10.99.0.5"
    elastic_ips: tuple[str, ...] = ("192.0.2.10", "192.0.2.11")
    cpu = 2
    memory_bytes = 4 * GIB
    boots = True

    def __init__(self, capabilities: Capabilities = ALL) -> None:
        self.world = World(datetime(2026, 1, 1, tzinfo=UTC), capabilities=capabilities)
        self.pair = self.world.pair
        self.direction = Direction.FORWARD
        for zone, network, cidr in (
            (self.pair.primary_zone, "serving", "10.0.1.0/24"),
            (self.pair.primary_zone, "replication-back", "10.0.4.0/24"),
            (self.pair.recovery_zone, "recovery", "10.0.2.0/24"),
            (self.pair.recovery_zone, "replication", "10.0.3.0/24"),
        ):
            self.world.add_network(zone, network, cidr)
        if capabilities.elastic_ips:
            for address in self.elastic_ips:
                self.world.add_elastic_ip(self.pair.recovery_zone, address)
        disks = (Disk("system", 40 * GIB, GIB), Disk("data", 100 * GIB, 2 * GIB))
        self.world.add_server(self.server_id, Hardware(self.cpu, self.memory_bytes, disks, ("10.0.1.7",)))
        self.engine: Engine = self._new_engine()
        self._files: dict[tuple[str, str], str] = {}
        self._server: asyncio.Server | None = None
        self.world.guest.run = self._run
        self.world.guest.run_script = self._run_script

    def _new_engine(self) -> SimulatedEngine:
        return SimulatedEngine(self.world, lambda: self.world.now)

    @classmethod
    async def create(cls, capabilities: Capabilities = ALL) -> SimulatedHarness:
        harness = cls(capabilities)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
            await writer.drain()
            writer.close()

        harness._server = await asyncio.start_server(serve, "127.0.0.1", 0)
        host, port = harness._server.sockets[0].getsockname()[:2]
        harness.world.guest.ports["routed", 80] = (host, port)
        return harness

    @property
    def direction(self) -> Direction:
        return self._direction

    @direction.setter
    def direction(self, direction: Direction) -> None:
        self._direction = direction
        if direction is Direction.FORWARD:
            self.recovery_network, self.replication_network = "recovery", "replication"
        else:
            self.recovery_network, self.replication_network = "serving", "replication-back"

    def address(self, number: int) -> str:
        return f"10.0.{2 if self.direction is Direction.FORWARD else 1}.{100 + number}"

    async def settle(self, predicate: Callable[[Way], bool], timeout: float = 120.0) -> Way:  # noqa: ASYNC109 - simulated seconds
        deadline = self.world.now + timedelta(seconds=timeout)
        while True:
            facts = (await self.engine.observe(self.pair, [self.server_id])).servers[self.server_id].way(self.direction)
            if predicate(facts):
                return facts
            assert self.world.now < deadline, f"not seen in {timeout:g} s, last: {facts}"
            self.world.advance(timedelta(seconds=1))

    async def restart_engine(self) -> None:
        await self.engine.close()
        self.engine = self._new_engine()

    async def write(self, number: int) -> None:
        self.world.write(self.server_id, number, self.direction)

    async def write_in(self, machine: str, number: int) -> None:
        self.world.write_in(self.server_id, machine, number, self.direction)

    async def contents(self, machine: str) -> int:
        return self.world.contents(self.server_id, machine, self.direction)

    async def original(self) -> int | None:
        return self.world.original_contents(self.server_id)

    @asynccontextmanager
    async def alternating(self) -> AsyncIterator[None]:
        # One counter stands for all disks of a simulated server, so there is nothing that could interleave.
        self.world.write(self.server_id, direction=self.direction)
        yield
        self.world.write(self.server_id, direction=self.direction)

    async def disks_agree(self, machine: str) -> bool:
        return self.world.contents(self.server_id, machine, self.direction) > 0

    async def kill_source(self) -> None:
        self.world.kill_source(self.server_id, self.direction)

    async def start_source(self) -> bool:
        try:
            self.world.start_source(self.server_id, self.direction)
        except Refused:
            return False
        return True

    async def silence(self, zone: str) -> None:
        self.world.silence(zone)

    async def answer(self, zone: str) -> None:
        self.world.answer(zone)

    async def cut_link(self) -> None:
        self.world.cut_link()

    async def restore_link(self) -> None:
        self.world.restore_link()

    async def fill_recovery(self) -> None:
        self.world.fill_disk(self.pair.recovery_zone)

    async def close(self) -> None:
        await self.engine.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def _run(self, visit: Visit, argv: tuple[str, ...]) -> ExecResult:
        match argv:
            case ("sh", "-c", content):
                return self._shell(visit, content)
            case ("cat", path) if (visit.machine, path) in self._files:
                return self._shell(visit, f"cat {path}")
            case _:
                return run_program(visit, argv)

    def _run_script(self, visit: Visit, content: str) -> ScriptOutcome:
        result = self._shell(visit, content)
        return ScriptOutcome(result.exit_code, result.output)

    def _shell(self, visit: Visit, content: str) -> ExecResult:
        """Run the few commands that the suite's scripts are made of."""
        output = ""
        for line in content.replace(";", "\n").splitlines():
            match line.split():
                case ["exit", code]:
                    return ExecResult(int(code), output)
                case ["cat", path]:
                    output += self._files.get((visit.machine, path), "")
                case ["echo", *words, ">>", path]:
                    self._files[visit.machine, path] = (
                        self._files.get((visit.machine, path), "") + f"{' '.join(words)}\n"
                    )
                case ["echo", *words]:
                    output += f"{' '.join(words)}\n"
                case _:
                    pass
        return ExecResult(0, output)
