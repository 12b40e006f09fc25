"""Thousands of servers: how fast the operator answers, what it costs, and what it does when there is nothing to do.

A real API server, the simulated engine, and two baselines that write the same number of statuses of the same size: an
operator on controller-runtime without a limit of requests, and a bare one on kopf.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import operators
from bench.cluster import Body, Cluster, Watch
from bench.results import Figure, Lines, Measured, Samples, Target, percentile
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair

SERVERS: Final = "1000"
IDLE_SECONDS: Final = "30"
PROBES: Final = 40
LONGEST_SECONDS: Final = 1200.0
QUIET_SECONDS: Final = 5.0
MIB: Final = 1 << 20
_LEASES: Final = "leases"
_STATUS: Final = "protectedservers/status"


@dataclass(slots=True)
class Run:
    """What was measured of one operator with so many servers. Times are seconds, memory is bytes."""

    ready: float = 0.0
    ready_cpu: float = 0.0
    statuses: int = 0
    writes: int = 0
    created: dict[int, list[float]] = field(default_factory=dict)
    called: dict[int, list[float]] = field(default_factory=dict)
    edited: dict[int, list[float]] = field(default_factory=dict)
    idle_cpu: float = 0.0
    idle_writes: int = 0
    idle_renewals: int = 0
    idle_seconds: float = 0.0
    rss: int = 0
    changed: float = 0.0
    changed_writes: int = 0
    restarted: float = 0.0
    failed_over: float = 0.0
    failed_over_writes: int = 0
    failed_over_rss: int = 0
    progress: list[tuple[float, float]] = field(default_factory=list)


class Scene:
    """One operator at one API server, and what is done to them."""

    def __init__(
        self, cluster: Cluster, operator: operators.Process, servers: Watch, done: Callable[[Body], bool]
    ) -> None:
        self.cluster = cluster
        self.operator = operator
        self.servers = servers
        self.done = done
        self.run = Run()
        self._next = 0

    async def protect(self, count: int) -> None:
        """Create so many servers at once, and wait until the operator is done with all of them."""
        before, used, began = await self.cluster.writes(), self.operator.used(), time.monotonic()
        names = self._names(count)
        watching = asyncio.create_task(self._progress(names, began))
        try:
            await self.cluster.create(ProtectedServer, {name: spec(name) for name in names})
            ended = await self.servers.until(names, self.done, LONGEST_SECONDS)
        finally:
            watching.cancel()
        run = self.run
        run.ready, run.ready_cpu = ended - began, self.operator.used().cpu - used.cpu
        made = await self.cluster.writes() - before
        run.statuses, run.writes = made[_STATUS], _without_leases(made) - count

    async def react(self, idle: int, calls: Callable[[], Mapping[str, float]] | None = None) -> None:
        """Create servers one by one, and change them one by one: how long until the status says so."""
        created, edited, called = [], [], []
        names = self._names(PROBES)
        for name in names:
            asked = time.monotonic()
            await self.cluster.create(ProtectedServer, {name: spec(name)})
            seen = await self.servers.until([name], lambda body: bool(body.get("status")), 60)
            created.append(seen - self.servers.added[name])
            if calls is not None:
                called.append(calls()[name] - asked)
        await self.servers.until(names, self.done, 60)
        for name in names:
            began = time.monotonic()
            await self.cluster.patch(ProtectedServer, [name], {"deletionPolicy": "Retain"})
            edited.append(await self.servers.until([name], _current, 60) - began)
        self.run.created[idle], self.run.edited[idle] = created, edited
        if calls is not None:
            self.run.called[idle] = called

    async def rest(self, seconds: float) -> None:
        """Wait until nothing is written any more, and see what goes on all the same for so long."""
        await self.quiet()
        before, used, began = await self.cluster.writes(), self.operator.used(), time.monotonic()
        await asyncio.sleep(seconds)  # the window that is measured
        took = time.monotonic() - began
        made = await self.cluster.writes() - before
        self.run.idle_seconds, self.run.idle_cpu = took, (self.operator.used().cpu - used.cpu) / took
        self.run.idle_writes, self.run.idle_renewals = _without_leases(made), made[_LEASES]
        self.run.rss = self.operator.used().rss_bytes

    async def change_all(self) -> None:
        """Change the spec of every server, and wait until each status is about it."""
        before, began = await self.cluster.writes(), time.monotonic()
        names = list(self.servers.bodies)
        await self.cluster.patch(ProtectedServer, names, {"deletionPolicy": "Delete"})
        self.run.changed = await self._all_current() - began
        self.run.changed_writes = (await self.cluster.writes() - before)[_STATUS]
        self.run.rss = max(self.run.rss, self.operator.used().rss_bytes)

    async def restart(self) -> None:
        """Change every server while no operator runs, start one, and wait until each status is about it."""
        self.operator.tell(signal.SIGUSR1)
        await self.quiet()
        await self.cluster.patch(ProtectedServer, list(self.servers.bodies), {"deletionPolicy": "Retain"})
        began = time.monotonic()
        self.operator.tell(signal.SIGUSR2)
        self.run.restarted = await self._all_current() - began

    async def fail_over(self) -> None:
        """Fail every server over, and wait until each is."""
        names = list(self.servers.bodies)
        async with self.cluster.watching(Failover) as failovers:
            before, began = await self.cluster.writes(), time.monotonic()
            await self.cluster.create(Failover, {name: {"serverRef": {"name": name}} for name in names})
            ended = await failovers.until(names, lambda body: _phase(body) == "AwaitingCommit", LONGEST_SECONDS)
        self.run.failed_over, self.run.failed_over_rss = ended - began, self.operator.used().rss_bytes
        made = await self.cluster.writes() - before
        self.run.failed_over_writes = sum(count for name, count in made.items() if name.endswith("/status"))

    async def _all_current(self) -> float:
        return await self.servers.until(list(self.servers.bodies), _current, LONGEST_SECONDS)

    async def quiet(self) -> None:
        """Wait until nothing was written for some seconds."""
        last, since = await self.cluster.writes(), time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS:
            await asyncio.sleep(0.5)
            now = await self.cluster.writes()
            if _without_leases(now) != _without_leases(last):
                last, since = now, time.monotonic()

    async def _progress(self, names: list[str], began: float) -> None:
        """Note how many are done, for the chart."""
        while True:
            await asyncio.sleep(0.5)
            seen = self.servers.bodies
            done = sum(self.done(seen[name]) for name in names if name in seen)
            self.run.progress.append((time.monotonic() - began, done))

    def _names(self, count: int) -> list[str]:
        names = [f"s-{number}" for number in range(self._next, self._next + count)]
        self._next += count
        return names


def spec(name: str) -> Body:
    """A server that is to be replicated, with a point a day: while it is measured, none comes due."""
    points = [{"every": "24h", "for": "24h"}]
    return {
        "sitePairRef": {"name": "pair"},
        "serverId": name,
        "replication": {"enabled": True, "recoveryPoints": points},
    }


def prepare() -> None:
    """Build the baseline."""
    operators.controller_program()


def measure(folder: Path) -> Measured:
    """Measure all of it: with $SERVERS (some numbers, from few to many) servers, and $IDLE_SECONDS of rest."""
    counts = tuple(int(each) for each in os.environ.get("SERVERS", SERVERS).split())
    return measure_with("scale", folder, counts, float(os.environ.get("IDLE_SECONDS", IDLE_SECONDS)))


def measure_with(name: str, folder: Path, counts: Sequence[int], idle_seconds: float) -> Measured:
    """Measure all of it with so many servers and so much rest; `name` begins the names of the charts."""
    return asyncio.run(_measure(name, folder, counts, idle_seconds))


async def _measure(name: str, folder: Path, counts: Sequence[int], idle_seconds: float) -> Measured:
    ours: dict[int, Run] = {}
    theirs: dict[int, Run] = {}
    plain: dict[int, Run] = {}
    for count in counts:
        first = count == counts[0]
        for operator in ("lifeboat", "controller", "kopf"):
            (folder / f"{operator}-{count}").mkdir()
        ours[count], status = await _lifeboat(folder / f"lifeboat-{count}", count, idle_seconds, first)
        print(f"  lifeboat, {count} servers: {_short(ours[count])}", flush=True)
        file = folder / "status.json"
        file.write_text(json.dumps(status), encoding="utf-8")
        writes = round(ours[count].statuses / count)
        theirs[count] = await _baseline(
            folder / f"controller-{count}", count, operators.controller, file, writes, first
        )
        print(f"  controller-runtime, {count} servers: {_short(theirs[count])}", flush=True)
        plain[count] = await _baseline(folder / f"kopf-{count}", count, operators.bare, file, writes, first)
        print(f"  kopf, {count} servers: {_short(plain[count])}", flush=True)
    return _told(name, ours, theirs, plain)


async def _lifeboat(folder: Path, count: int, idle_seconds: float, first: bool) -> tuple[Run, Body]:
    """Lifeboat through all of it, and the status of one of its servers."""
    async with Cluster.started(folder / "controlplane") as cluster:
        side = {"network": "net", "replicationNetwork": "net", "recoveryNetwork": "net"}
        pair = {"primary": {"zone": "zone-a", **side}, "recovery": {"zone": "zone-b", **side}}
        await cluster.create(SitePair, {"pair": pair})
        existing = count + 2 * PROBES
        async with cluster.watching(ProtectedServer) as servers, cluster.watching(SitePair) as pairs:
            with operators.lifeboat(folder, cluster.plane.kubeconfig, existing) as process:
                await pairs.until(["pair"], lambda body: bool(body.get("status")), 60)
                scene = Scene(cluster, process, servers, lambda body: _phase(body) == "Replicating")

                def calls() -> dict[str, float]:
                    lines = (folder / "calls").read_text(encoding="ascii").splitlines()
                    return {name: float(at) for at, name in map(str.split, lines)}

                if first:
                    await scene.react(0, calls)
                await scene.protect(count)
                await scene.rest(idle_seconds)
                await scene.react(count, calls)
                status = dict(servers.bodies["s-0"]["status"])
                await scene.change_all()
                await scene.restart()
                await scene.fail_over()
                return scene.run, status


async def _baseline(folder: Path, count: int, start: Callable[..., Any], status: Path, writes: int, first: bool) -> Run:
    """A baseline through the same, as far as it does such things."""
    async with Cluster.started(folder / "controlplane") as cluster, cluster.watching(ProtectedServer) as servers:
        with start(folder, cluster.plane.kubeconfig, status, writes) as process:
            scene = Scene(
                cluster, process, servers, lambda body: (body.get("status") or {}).get("lagSeconds", 0) >= writes
            )
            if first:
                await scene.react(0)
            await scene.protect(count)
            await scene.quiet()
            scene.run.rss = process.used().rss_bytes
            await scene.react(count)
            await scene.change_all()
            return scene.run


def _told(name: str, ours: Mapping[int, Run], theirs: Mapping[int, Run], plain: Mapping[int, Run]) -> Measured:
    """The figures and charts of all runs."""
    found = Measured()
    go, most = "controller-runtime", max(ours)
    for what in ("created", "edited"):
        for idle in (0, *ours):
            mine, other = (_samples(runs, what, idle) for runs in (ours, theirs))
            title = f"{what} → first status, {idle:,} idle servers"
            found.figures += [
                Figure(
                    f"{title}, p50",
                    1000 * statistics.median(mine),
                    "ms",
                    1000 * statistics.median(other),
                    go,
                    (Target(1.5),),
                ),
                Figure(
                    f"{title}, p99",
                    1000 * percentile(mine, 0.99),
                    "ms",
                    1000 * percentile(other, 0.99),
                    go,
                    (Target(1000, "value"),),
                ),
            ]
    for idle in (0, *ours):
        called = ours[idle or min(ours)].called[idle]
        found.figures.append(
            Figure(f"created → first engine call, {idle:,} idle servers, p50", 1000 * statistics.median(called), "ms")
        )
    for count, run in ours.items():
        base, bare = theirs[count], plain[count]
        per = f"{count:,} servers"
        found.figures += [
            Figure(f"{per}: all Replicating", run.ready, "s", base.ready, f"{go}, as many statuses", (Target(1.2),)),
            Figure(f"{per}: the same beside kopf", run.ready, "s", bare.ready, "kopf, as many statuses"),
            Figure(f"{per}: CPU until then", run.ready_cpu, "s", base.ready_cpu, go),
            Figure(f"{per}: statuses written for each", run.statuses / count, ""),
            Figure(f"{per}: all writes for each", run.writes / count, ""),
            Figure(
                f"{per}: idle CPU over {run.idle_seconds:.0f} s",
                100 * run.idle_cpu,
                "% of a core",
                None,
                "",
                (Target(3, "value"),),
            ),
            Figure(
                f"{per}: API writes a minute, idle",
                60 * run.idle_writes / run.idle_seconds,
                "",
                None,
                "",
                (Target(0, "value"),),
            ),
            Figure(f"{per}: renewals of the lease a minute", 60 * run.idle_renewals / run.idle_seconds, ""),
            Figure(
                f"{per}: memory, at rest and after all changed",
                run.rss / MIB,
                "MiB",
                base.rss / MIB,
                go,
                (Target(400e6 / MIB, "value"),),
            ),
            Figure(f"{per}: all changed → all told", run.changed, "s", base.changed, go, (Target(1.2),)),
            Figure(
                f"{per}: restarted after all changed → all told", run.restarted, "s", base.changed, f"{go}, changed"
            ),
            Figure(f"{per}: all failed over", run.failed_over, "s"),
            Figure(f"{per}: statuses written for each failover", run.failed_over_writes / count, ""),
            Figure(f"{per}: memory after it", run.failed_over_rss / MIB, "MiB"),
        ]
    found.notes.append(
        "The memory and CPU of Lifeboat include the simulated engine's, whose zones live in the operator's process. "
        "A restart is of the operator in its process: Python's own start is not in it."
    )
    found.charts = [
        Lines(
            f"{name}-replicating",
            f"{most:,} servers at once",
            "seconds",
            "servers done",
            {
                "Lifeboat": ours[most].progress,
                go: theirs[most].progress,
                "kopf": plain[most].progress,
            },
        ),
        Samples(
            f"{name}-reaction",
            "Edited → first status",
            "ms",
            {
                f"{who}, {idle:,}": [1000 * each for each in _samples(runs, "edited", idle)]
                for who, runs in (("Lifeboat", ours), (go, theirs), ("kopf", plain))
                for idle in (0, most)
            },
        ),
    ]
    return found


def _samples(runs: Mapping[int, Run], what: str, idle: int) -> list[float]:
    """The reactions that were measured beside so many idle servers; beside none, in the run that was first."""
    run = runs[idle or min(runs)]
    return (run.created if what == "created" else run.edited)[idle]


def _short(run: Run) -> str:
    return (
        f"ready {run.ready:.1f} s, cpu {run.ready_cpu:.1f} s, rss {run.rss / MIB:.0f} MiB, changed {run.changed:.1f} s"
    )


def _phase(body: Body) -> str:
    return str((body.get("status") or {}).get("phase"))


def _current(body: Body) -> bool:
    return bool((body.get("status") or {}).get("observedGeneration") == body["metadata"]["generation"])


def _without_leases(made: Counter[str]) -> int:
    return sum(count for name, count in made.items() if name != _LEASES)
