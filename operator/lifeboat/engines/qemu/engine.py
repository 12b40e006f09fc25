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
    EngineError,
    ExecResult,
    Pair,
    Refused,
    Retry,
    Script,
    Target,
)
from lifeboat.engines.facts import PairFacts
from lifeboat.engines.ledger import Direction, Ledger, ScriptOutcome
from lifeboat.engines.qemu import site_server
from lifeboat.engines.qemu.draining import Draining
from lifeboat.engines.qemu.instep import InStep
from lifeboat.engines.qemu.ledgers import Ledgers
from lifeboat.engines.qemu.observe import Observer
from lifeboat.engines.qemu.points import Points
from lifeboat.engines.qemu.recovered import Recovered
from lifeboat.engines.qemu.replica import Replicas
from lifeboat.engines.qemu.servers import Servers
from lifeboat.engines.qemu.site_server import SiteServer
from lifeboat.engines.qemu.zones import Zone, Zones
from lifeboat.engines.verbs import (
    Continue,
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
from lifeboat.host import files, forwards, machine
from lifeboat.host.fences import Fences
from lifeboat.host.guest import Guests
from lifeboat.host.qmp import Monitors

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
        self._fences = Fences(self._monitors, self._guests, now)
        self._draining = Draining(self._monitors, instep)
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
            planned_failover=True,
            reverse_replication=True,
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
                with files.disk_errors(_ends(target)[1]):
                    await self._do(target, verb)
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
        await self._servers.start(site_server.present(self._zones.zone(zone), server_id))

    async def stop_server(self, zone: str, server_id: str) -> None:
        """Stop a server of a zone, as its owner does."""
        await self._servers.stop(site_server.present(self._zones.zone(zone), server_id))

    async def close(self) -> None:
        """Stop asking guests; there are no other connections between calls, and what was started goes on."""
        await self._guests.close()
        await self._recovered.close()

    async def _do(self, target: Target, verb: Verb) -> None:
        server_id = target.server_id
        match verb:
            case Restart():
                await self._servers.restart(self._source(target))
            case StartReplication(onto_original=True) if target.direction is Direction.FORWARD:
                raise Refused("only a copy back to the primary zone goes onto an original: no disks are given up")
            case StartReplication():
                await self._replicas.start(self._source(target), self._there(target), verb)
            case ResumeReplication():
                await self._replicas.resume(self._source(target), self._there(target), verb)
            case LimitBandwidth():
                await self._replicas.limit(self._source(target), self._there(target), verb.bandwidth_limit)
            case StopReplication():
                await self._replicas.stop(self._answering_source(target), self._there(target), server_id, verb)
            case TakePoint():
                await self._points.take(self._answering_source(target), self._there(target), server_id, verb)
            case PrunePoints():
                await self._points.prune(self._there(target), server_id, verb)
            case Fence(orderly=False):
                await self._fences.fence(self._source(target))
            case Fence():
                source, there = self._source(target), self._answering(_ends(target)[1])
                await self._fences.fence_orderly(source, lambda: self._draining.drain(source, there))
            case Unfence():
                source = self._source(target)
                await self._fences.unfence(source, lambda: self._servers.start(source, lifting=True))
            case Register():
                zone = self._zones.zone(_ends(target)[0])
                self._servers.register(zone, server_id, verb.machine, registered_only=_only_registered(target))
            case Launch():
                await self._recovered.launch(self._there(target), server_id, verb)
            case Halt():
                await self._recovered.halt(self._there(target), server_id, verb.machine)
            case Continue():
                await self._recovered.go_on(self._there(target), server_id, verb.machine)
            case MoveElasticIP():
                await self._recovered.move_elastic_ip(self._there(target), server_id, verb.machine, verb.elastic_ip)
            case RemoveMachine():
                await self._recovered.remove(self._there(target), server_id, verb.machine)
                await self._replicas.tidy(self._there(target), server_id)
            case MakeIndependent():
                await self._recovered.make_independent(self._there(target), server_id, verb.machine)
            case ReleaseReplica():
                await self._replicas.release(self._answering_source(target), self._there(target), server_id)
            case _:
                assert_never(verb)

    def _there(self, target: Target) -> Zone:
        """The zone where replica and machines are."""
        return self._zones.zone(_ends(target)[1])

    def _source(self, target: Target) -> SiteServer:
        """The server that is copied from."""
        zone = self._zones.zone(_ends(target)[0])
        return site_server.present(zone, target.server_id, registered_only=_only_registered(target))

    def _answering_source(self, target: Target) -> SiteServer | None:
        """The server that is copied from where it is not needed: None where it is not there or its zone is silent."""
        try:
            return self._source(target)
        except (EngineError, OSError):
            return None

    def _answering(self, zone: str) -> Zone | None:
        """A zone that is not needed: None where it does not answer."""
        try:
            return self._zones.zone(zone)
        except (Retry, OSError):
            return None

    def _running(self, target: Target, machine_name: str) -> tuple[Zone, Path]:
        home = self._zones.zone(target.pair.recovery_zone)
        self._ledgers.check_term(home, target.server_id, target.term)
        zone = self._there(target)
        folder = zone.machine_folder(target.server_id, machine_name)
        if machine.running(folder) is None:
            raise Retry(f"machine {machine_name} does not run")
        return zone, folder

    @contextlib.asynccontextmanager
    async def _turn(self, zone: Zone, server_id: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault((zone.name, server_id), asyncio.Lock())
        async with lock, self._slots:
            yield


def _ends(target: Target) -> tuple[str, str]:
    """The zones that the target's direction copies from and to."""
    ends = target.pair.primary_zone, target.pair.recovery_zone
    return ends if target.direction is Direction.FORWARD else ends[::-1]


def _only_registered(target: Target) -> bool:
    """Whether only a registered machine is the source: what the recovery zone's own inventory has is another server."""
    return target.direction is Direction.REVERSE


def _now() -> datetime:
    return datetime.now(UTC)
