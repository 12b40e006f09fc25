"""The engine itself: each question and each verb of the contract, and who answers it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import assert_never

from lifeboat.engines.ceph import arrival, pools
from lifeboat.engines.ceph.compute import Compute, Disk, Made
from lifeboat.engines.ceph.compute.computes import Computes
from lifeboat.engines.ceph.lags import Lags
from lifeboat.engines.ceph.machines import Machines
from lifeboat.engines.ceph.observe import Observer
from lifeboat.engines.ceph.points import Points
from lifeboat.engines.ceph.records import Stored, Volume
from lifeboat.engines.ceph.replication import Original, Power, Replication
from lifeboat.engines.ceph.sites import Site, Sites
from lifeboat.engines.ceph.source import absent, source_disks
from lifeboat.engines.contract import (
    Capabilities,
    EngineError,
    ExecResult,
    Pair,
    Refused,
    Retry,
    Script,
    Secrets,
    Target,
    Underway,
    Unreachable,
)
from lifeboat.engines.facts import PairFacts, ReplicaState
from lifeboat.engines.ledger import Direction, Ledger, ScriptOutcome
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

_AT_ONCE = 8
# How many seconds a client is kept from a cluster. One that is started later is another one.
_BLOCKED = 24 * 3600
_NO_LIMIT = "RBD mirroring cannot limit a copy's bandwidth: leave bandwidthLimit out"
_NOT_FROZEN = (
    "application-consistent points are not built for the ceph engine: leave applicationConsistent out; a server of "
    "several disks stands still for a moment for each point"
)


class CephEngine:
    """RBD images that two clusters mirror, and servers in the zones in `folder` that run on them."""

    def __init__(
        self,
        folder: Path,
        secrets: Secrets,
        clock: Callable[[], datetime] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        now = clock or _now
        self._sites = Sites(secrets, monotonic)
        self._computes = Computes(folder, secrets, now, monotonic)
        self._lags = Lags(monotonic)
        self._points = Points(now)
        self._replication = Replication(self._points, self._lags, now)
        self._observer = Observer(self._sites, self._computes, self._lags)
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    @property
    def name(self) -> str:
        """The member of `spec.engine` that chooses this engine."""
        return "ceph"

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do."""
        return Capabilities(
            delta_resync=True,
            elastic_ips=True,
            planned_failover=True,
            reverse_replication=True,
            ordered_replay=True,
            outlives_source=True,
        )

    async def observe(self, pair: Pair, server_ids: Collection[str]) -> PairFacts:
        """Look at both sites and these servers in one go."""
        return await self._observer.observe(pair, server_ids)

    async def record(self, target: Target, ledger: Ledger) -> Ledger:
        """Store a ledger as the successor of the version that it carries."""
        home = await self._home(target)
        return await home.ledgers.record(target.server_id, target.term, ledger)

    async def perform(self, target: Target, verb: Verb) -> None:
        """Do what the verb says, or see that it is done already."""
        home = await self._home(target)
        await home.ledgers.check_term(target.server_id, target.term)
        _refuse_unable(verb)
        async with self._turn(target):
            # Asked again: another hand may have taken over while this one waited for its turn.
            await home.ledgers.check_term(target.server_id, target.term)
            try:
                await self._do(target, verb)
            except OSError as error:
                raise Retry(f"{error.strerror}: {error.filename}") from error

    async def route(self, target: Target, machine: str, port: int) -> tuple[str, int]:
        """A private address and port that lead to `port` of a machine, once something there accepts connections."""
        there = await self._visit(target)
        return await there.route(_ends(target)[1], target.server_id, machine, port)

    async def execute(self, target: Target, machine: str, argv: Collection[str], seconds: float) -> ExecResult:
        """Run a program in a machine's guest and wait for it at most so long."""
        there = await self._visit(target)
        return await there.execute(_ends(target)[1], target.server_id, machine, argv, seconds)

    async def run_script(self, target: Target, machine: str, script: Script, seconds: float) -> ScriptOutcome:
        """Run a script in a machine's guest once, and tell its outcome."""
        there = await self._visit(target)
        return await there.run_script(_ends(target)[1], target.server_id, machine, script, seconds)

    async def start_server(self, pair: Pair, zone: str, server_id: str) -> None:
        """Start a server of a zone, as its owner does; a fenced one is refused."""
        site = await self._sites.site(pair, zone)
        compute = await self._computes.at(pair, zone)
        made = await compute.made(zone, server_id)
        disks = () if made is None else await self._own_disks(site, server_id, made)
        await compute.start(zone, server_id, disks, site.connection)

    async def stop_server(self, pair: Pair, zone: str, server_id: str) -> None:
        """Stop a server of a zone, as its owner does."""
        await (await self._computes.at(pair, zone)).stop(zone, server_id)

    async def close(self) -> None:
        """End the programs that talk to clusters, and stop asking guests; what was started goes on."""
        await self._computes.close()
        await self._sites.close()

    async def _do(self, target: Target, verb: Verb) -> None:
        server_id = target.server_id
        away, zone = _ends(target)
        match verb:
            case Restart():
                await self._present(target)
                await (await self._runs_source(target)).restart(away, server_id)
            case StartReplication():
                await self._start(target, verb)
            case ResumeReplication():
                source, there = await self._source(target), await self._there(target)
                await self._replication.resume(source, there, server_id, verb)
            case LimitBandwidth():
                if (await Stored.read((await self._there(target)).records, server_id)).record is None:
                    raise Refused("there is no replication to limit")
            case StopReplication():
                there, power = await self._there(target), await self._power(target)
                await self._replication.stop(await self._answering(target), there, server_id, verb, power)
            case TakePoint():
                await self._take(target, verb)
            case PrunePoints():
                await self._points.prune(await self._answering(target), await self._there(target), server_id, verb)
            case Fence():
                await self._fence(target, verb)
            case Unfence():
                source = await self._source(target)
                disks = await self._own_disks(source, server_id, await self._present(target))
                await (await self._runs_source(target)).unfence(away, server_id, disks, source.connection)
            case Register():
                await self._register(target, verb)
            case Launch():
                await (await self._machines(target)).launch(await self._there(target), server_id, verb)
            case Halt():
                await (await self._runs_there(target)).halt(zone, server_id, verb.machine)
            case Continue():
                await (await self._runs_there(target)).go_on(zone, server_id, verb.machine)
            case MoveElasticIP():
                await (await self._runs_there(target)).move_elastic_ip(zone, server_id, verb.machine, verb.elastic_ip)
            case RemoveMachine():
                there = await self._there(target)
                await (await self._machines(target)).remove(there, server_id, verb.machine)
                await self._replication.tidy(there, server_id)
            case MakeIndependent():
                await (await self._machines(target)).make_independent(
                    await self._there(target), server_id, verb.machine
                )
            case ReleaseReplica():
                await self._replication.release(await self._answering(target), await self._there(target), server_id)
            case _:
                assert_never(verb)

    async def _take(self, target: Target, verb: TakePoint) -> None:
        await self._present(target)
        source, there, power = await self._source(target), await self._there(target), await self._power(target)
        if power.running is None:
            raise Retry(f"whether server {target.server_id} runs is not known: a point needs it to stand still")
        await self._points.take(source, there, target.server_id, verb, power.hold)

    async def _start(self, target: Target, verb: StartReplication) -> None:
        server_id = target.server_id
        if verb.onto_original and target.direction is Direction.FORWARD:
            raise Refused("only a copy back to the primary zone goes onto an original: no disks are given up")
        there = await self._there(target)
        compute = await self._runs_there(target)
        offer = await compute.offer(there.zone)
        if verb.replication_network not in {network.name for network in offer.networks}:
            raise Refused(f"zone {there.zone} has no network {verb.replication_network}")
        made = await self._present(target)
        if not made.known:
            raise Retry(f"what server {server_id} is made of cannot be told while it does not run: start it")
        original = await self._original(compute, there, server_id, verb.run) if verb.onto_original else None
        await self._replication.start(await self._source(target), there, server_id, made, verb, original)

    @staticmethod
    async def _original(compute: Compute, there: Site, server_id: str, run: int) -> Original:
        """The server that the target site has under the id of the one that is copied back to it."""
        made = await compute.made(there.zone, server_id)
        if made is None:
            raise Refused(f"zone {there.zone} has no server {server_id!r} whose disks could be given up")
        found = source_disks(await pools.look(there), server_id, made)
        return Original(
            disks=tuple(Volume(name=name, pool=image.pool, image=image.name) for name, image in found.items()),
            check=lambda: compute.check_given_up(there.zone, server_id),
            give_up=lambda: compute.give_up(there.zone, server_id, run),
        )

    async def _fence(self, target: Target, verb: Fence) -> None:
        await self._present(target)
        zone, server_id, compute = _ends(target)[0], target.server_id, await self._runs_source(target)
        if verb.orderly:
            await compute.fence_orderly(zone, server_id, lambda: self._drain(target))
        else:
            try:
                await compute.fence(zone, server_id)
            except Unreachable:
                # Who runs it does not answer. Its cluster may, and can keep it from its disks.
                with contextlib.suppress(EngineError):
                    await self._keep_from_disks(target)
                raise

    async def _keep_from_disks(self, target: Target) -> None:
        """Let the source's cluster take nothing any more from whoever has the server's disks open."""
        source = await self._source(target)
        for disk in await self._own_disks(source, target.server_id, await self._present(target)):
            wanted = {"pool": disk.pool, "images": [disk.image], "seconds": _BLOCKED}
            await source.worker.call("block_writers", deadline=2.0, **wanted)

    async def _register(self, target: Target, verb: Register) -> None:
        server_id, zone = target.server_id, _ends(target)[0]
        compute = await self._runs_source(target)
        made = await compute.made(zone, server_id)
        if target.direction is Direction.REVERSE and made is not None and made.machine is None:
            raise Refused(
                f"zone {zone} has a server {server_id} of its own: machine {verb.machine} cannot be it as well"
            )
        await compute.register(zone, server_id, verb.machine)

    async def _drain(self, target: Target) -> None:
        """See that all that a source which stands still has written is at the other site.

        Raises:
            Retry: it is not, or that is not known.
        """
        waits = f"server {target.server_id} is down and waits for its last writes to be copied"
        there = await self._there(target)
        stored = await Stored.read(there.records, target.server_id)
        record = stored.record
        if record is None or not record.replicating:
            return
        stand, seen = await arrival.seen(await self._source(target), there, record, self._lags)
        if stand.state is not ReplicaState.SYNCED:
            raise Retry(f"{waits}: {stand.reason or stand.state}")
        if not seen.level:
            raise Underway(waits)
        await stored.save(seen)

    async def _power(self, target: Target) -> Power:
        """Whether the source runs, and how to let it stand still."""
        zone, server_id = _ends(target)[0], target.server_id
        try:
            await self._present(target)
            compute = await self._runs_source(target)
            running = (await compute.source(zone, server_id)).running
        except (EngineError, OSError):
            return Power()
        return Power(running, (lambda: compute.hold(zone, server_id)) if running else None)

    async def _present(self, target: Target) -> Made:
        """What the server that is copied from is made of.

        Raises:
            Refused: its site has none. What the recovery site's own inventory has under this id is another one.
        """
        zone, reverse = _ends(target)[0], target.direction is Direction.REVERSE
        made = await (await self._runs_source(target)).made(zone, target.server_id)
        if made is None or (reverse and made.machine is None):
            raise Refused(absent(zone, target.server_id, registered_only=reverse))
        return made

    async def _own_disks(self, site: Site, server_id: str, made: Made | None) -> tuple[Disk, ...]:
        if made is not None and made.machine is not None:
            return made.disks
        found = (await pools.look(site)).own_disks(server_id)
        if not found:
            raise Refused(f"no image of zone {site.zone} is a disk of server {server_id}")
        return tuple(Disk(name, image.pool, image.name) for name, image in found.items())

    async def _runs_source(self, target: Target) -> Compute:
        """What runs the server that is copied from."""
        return await self._computes.at(target.pair, _ends(target)[0])

    async def _runs_there(self, target: Target) -> Compute:
        """What runs the machines that are started from the copy."""
        return await self._computes.at(target.pair, _ends(target)[1])

    async def _machines(self, target: Target) -> Machines:
        return Machines(await self._runs_there(target))

    async def _home(self, target: Target) -> Site:
        """The recovery site, where the ledger is."""
        return await self._at(target.pair, target.pair.recovery_zone)

    async def _source(self, target: Target) -> Site:
        """The site that is copied from."""
        return await self._at(target.pair, _ends(target)[0])

    async def _there(self, target: Target) -> Site:
        """The site where replica and machines are."""
        return await self._at(target.pair, _ends(target)[1])

    async def _at(self, pair: Pair, zone: str) -> Site:
        await (await self._computes.at(pair, zone)).offer(zone)
        return await self._sites.site(pair, zone)

    async def _answering(self, target: Target) -> Site | None:
        """The site that is copied from where it is not needed: None where it does not answer."""
        try:
            source = await self._source(target)
            await source.worker.call("standing", pools=[], deadline=3.0)
        except (EngineError, OSError):
            return None
        return source

    async def _visit(self, target: Target) -> Compute:
        """What runs the machines, for a hand that is still the leader's."""
        home = await self._home(target)
        await home.ledgers.check_term(target.server_id, target.term)
        return await self._runs_there(target)

    @contextlib.asynccontextmanager
    async def _turn(self, target: Target) -> AsyncIterator[None]:
        lock = self._locks.setdefault((target.pair.recovery_zone, target.server_id), asyncio.Lock())
        async with lock, self._slots:
            yield


def _refuse_unable(verb: Verb) -> None:
    """Refuse what is not built, or what RBD cannot do, instead of ignoring that part of the verb."""
    match verb:
        case StartReplication(bandwidth_limit=int()) | LimitBandwidth(bandwidth_limit=int()):
            raise Refused(_NO_LIMIT)
        case TakePoint(application_consistent=True):
            raise Refused(_NOT_FROZEN)
        case _:
            pass


def _ends(target: Target) -> tuple[str, str]:
    """The zones that the target's direction copies from and to."""
    ends = target.pair.primary_zone, target.pair.recovery_zone
    return ends if target.direction is Direction.FORWARD else ends[::-1]


def _now() -> datetime:
    return datetime.now(UTC)
