"""The engine itself: each question and each verb of the contract, and who answers it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import assert_never

from lifeboat.engines.contract import (
    Capabilities,
    ExecResult,
    Pair,
    Refused,
    Retry,
    Script,
    Target,
)
from lifeboat.engines.facts import PairFacts
from lifeboat.engines.ledger import Ledger, ScriptOutcome
from lifeboat.engines.qemu import files, forwards, machine
from lifeboat.engines.qemu.guest import Guests
from lifeboat.engines.qemu.instep import InStep
from lifeboat.engines.qemu.ledgers import Ledgers
from lifeboat.engines.qemu.observe import Observer
from lifeboat.engines.qemu.points import Points
from lifeboat.engines.qemu.qmp import Monitors
from lifeboat.engines.qemu.recovered import Recovered
from lifeboat.engines.qemu.replica import Replicas
from lifeboat.engines.qemu.servers import Servers
from lifeboat.engines.qemu.zones import Zone, Zones
from lifeboat.engines.verbs import (
    Fence,
    Halt,
    Launch,
    LimitBandwidth,
    MakeIndependent,
    MoveElasticIP,
    PrunePoints,
    Register,
    ReleaseReplica,
    RemoveMachine,
    Restart,
    ResumeReplication,
    StartReplication,
    StopReplication,
    TakePoint,
    Unfence,
    Verb,
)

_AT_ONCE = 8


class QemuEngine:
    """QEMU machines, mirrored over NBD between the zones in `folder`; each subfolder with an inventory is a zone."""

    def __init__(
        self,
        zones: Path,
        clock: Callable[[], datetime] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        now = clock or _now
        self._zones = Zones(zones)
        self._monitors = Monitors()
        self._guests = Guests(monotonic)
        self._ledgers = Ledgers()
        self._servers = Servers(self._monitors, self._guests, now)
        self._recovered = Recovered(self._monitors, self._guests, self._servers)
        instep = InStep(self._monitors, now, monotonic)
        self._replicas = Replicas(self._monitors, instep)
        self._points = Points(self._monitors, self._guests, instep, now)
        self._observer = Observer(
            self._zones, self._monitors, instep, self._points, self._ledgers, self._servers, self._recovered
        )
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    @property
    def name(self) -> str:
        """The member of `spec.engine` that chooses this engine."""
        return "qemu"

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do: all of it."""
        return Capabilities(
            application_consistent_points=True,
            delta_resync=True,
            bandwidth_limit=True,
            elastic_ips=True,
        )

    async def observe(self, pair: Pair, server_ids: Collection[str]) -> PairFacts:
        """Look at both sites and these servers in one go."""
        return await self._observer.observe(pair, server_ids)

    async def record(self, target: Target, ledger: Ledger) -> Ledger:
        """Store a ledger as the successor of the version that it carries."""
        recovery = self._zones.zone(target.pair.recovery_zone)
        primary = self._answering(target.pair.primary_zone)
        return await self._ledgers.record(recovery, target.server_id, target.term, ledger, primary)

    async def perform(self, target: Target, verb: Verb) -> None:
        """Do what the verb says, or see that it is done already."""
        recovery = self._zones.zone(target.pair.recovery_zone)
        self._ledgers.check_term(recovery, target.server_id, target.term)
        async with self._turn(recovery, target.server_id):
            # Asked again: another hand may have taken over while this one waited for its turn.
            self._ledgers.check_term(recovery, target.server_id, target.term)
            try:
                with files.disk_errors(recovery.name):
                    await self._do(target, recovery, verb)
            except OSError as error:
                raise Retry(f"{error.strerror}: {error.filename}") from error

    async def route(self, target: Target, machine_name: str, port: int) -> tuple[str, int]:
        """A private address and port that lead to `port` of a machine, once something there accepts connections."""
        zone, folder = self._running(target, machine_name)
        record = self._recovered.present(zone, target.server_id, machine_name)
        route = await forwards.ensure_route(self._monitors, folder, record.address, port)
        await forwards.until_accepted(self._monitors, folder, route, port)
        return route

    async def execute(self, target: Target, machine_name: str, argv: Collection[str], seconds: float) -> ExecResult:
        """Run a program in a machine's guest and wait for it at most so long."""
        if not argv:
            raise Refused("there is no program to run")
        _, folder = self._running(target, machine_name)
        return await self._guests.execute(folder / machine.AGENT, argv, seconds)

    async def run_script(self, target: Target, machine_name: str, script: Script, seconds: float) -> ScriptOutcome:
        """Run a script in a machine's guest once, and tell its outcome."""
        _, folder = self._running(target, machine_name)
        return await self._guests.run_script(folder / machine.AGENT, script, seconds)

    async def start_server(self, zone: str, server_id: str) -> None:
        """Start a server of a zone, as its owner does; a fenced one is refused."""
        await self._servers.start(self._zones.zone(zone), server_id)

    async def stop_server(self, zone: str, server_id: str) -> None:
        """Stop a server of a zone, as its owner does."""
        await self._servers.stop(self._zones.zone(zone), server_id)

    async def close(self) -> None:
        """Stop asking guests; there are no other connections between calls, and what was started goes on."""
        await self._guests.close()
        await self._recovered.close()

    async def _do(self, target: Target, recovery: Zone, verb: Verb) -> None:
        server_id, pair = target.server_id, target.pair
        match verb:
            case Restart():
                await self._servers.restart(self._zones.zone(pair.primary_zone), server_id)
            case StartReplication():
                await self._replicas.start(self._zones.zone(pair.primary_zone), recovery, server_id, verb)
            case ResumeReplication():
                await self._replicas.resume(self._zones.zone(pair.primary_zone), recovery, server_id, verb)
            case LimitBandwidth():
                primary = self._zones.zone(pair.primary_zone)
                await self._replicas.limit(primary, recovery, server_id, verb.bandwidth_limit)
            case StopReplication():
                await self._replicas.stop(self._answering(pair.primary_zone), recovery, server_id, verb)
            case TakePoint():
                await self._points.take(self._answering(pair.primary_zone), recovery, server_id, verb)
            case PrunePoints():
                await self._points.prune(recovery, server_id, verb)
            case Fence():
                await self._servers.fence(self._zones.zone(pair.primary_zone), server_id)
            case Unfence():
                await self._servers.unfence(self._zones.zone(pair.primary_zone), server_id)
            case Register():
                raise Refused("reverse replication is not available")
            case Launch():
                await self._recovered.launch(recovery, server_id, verb)
            case Halt():
                await self._recovered.halt(recovery, server_id, verb.machine)
            case MoveElasticIP():
                await self._recovered.move_elastic_ip(recovery, server_id, verb.machine, verb.elastic_ip)
            case RemoveMachine():
                await self._recovered.remove(recovery, server_id, verb.machine)
                await self._replicas.tidy(recovery, server_id)
            case MakeIndependent():
                await self._recovered.make_independent(recovery, server_id, verb.machine)
            case ReleaseReplica():
                await self._replicas.release(self._answering(pair.primary_zone), recovery, server_id)
            case _:
                assert_never(verb)

    def _answering(self, zone: str) -> Zone | None:
        """A zone that is not needed: None where it does not answer."""
        try:
            return self._zones.zone(zone)
        except (Retry, OSError):
            return None

    def _running(self, target: Target, machine_name: str) -> tuple[Zone, Path]:
        zone = self._zones.zone(target.pair.recovery_zone)
        self._ledgers.check_term(zone, target.server_id, target.term)
        folder = zone.machine_folder(target.server_id, machine_name)
        if machine.running(folder) is None:
            raise Retry(f"machine {machine_name} does not run")
        return zone, folder

    @contextlib.asynccontextmanager
    async def _turn(self, zone: Zone, server_id: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault((zone.name, server_id), asyncio.Lock())
        async with lock, self._slots:
            yield


def _now() -> datetime:
    return datetime.now(UTC)
