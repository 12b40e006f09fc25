"""A cluster without a cluster: objects as dictionaries, the simulated world, and the road through decide and report.

It does what the operator's loop does, one small step at a time and without a clock of its own, so that a test can stop
between any two steps, lose a status, recreate an object or start anew as after a crash.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.names import FINALIZER
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair
from lifeboat.api.values import format_time
from lifeboat.engines.contract import EngineError, Target
from lifeboat.engines.facts import Disk, Hardware, Known, Way
from lifeboat.engines.ledger import CheckOutcome, Ledger
from lifeboat.engines.simulated.world import World
from lifeboat.engines.verbs import Verb
from lifeboat.lifecycle.decide import decide
from lifeboat.lifecycle.report import Event, report, report_pair
from lifeboat.lifecycle.report.events import mended
from lifeboat.lifecycle.view import (
    DRILL,
    FAILOVER,
    PROTECTED_SERVER,
    DropFinalizer,
    KeepFinalizer,
    Notice,
    Plan,
    Subject,
    Verification,
    Verify,
    View,
)
from lifeboat.reconcile.pace import trouble_of

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
GIB = 1 << 30
SERVER = "web-1"
HARDWARE = Hardware(2, 2 * GIB, (Disk("system", 20 * GIB, GIB), Disk("data", 10 * GIB, GIB)), ("10.0.0.10",))


def world(**options: Any) -> World:
    """Two zones with networks and elastic IPs, and one server in the first."""
    made = World(EPOCH, **options)
    made.add_network("zone-a", "net", "10.0.0.0/24")
    for name, cidr in (("replication", "10.1.0.0/24"), ("recovery", "10.2.0.0/24")):
        made.add_network("zone-b", name, cidr)
    for address in ("127.0.10.5", "127.0.10.6"):
        made.add_elastic_ip("zone-b", address)
    made.add_server(SERVER, HARDWARE)
    return made


@dataclass
class Cluster:
    """The objects of one namespace, and an operator that takes one step at a time. `checks_pass` decides the checks."""

    world: World = field(default_factory=world)
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    term: int = 1
    checks_pass: bool = True
    verifications: dict[str, Verification] = field(default_factory=dict)
    troubles: dict[Subject, Notice] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    scripts: dict[Subject, Notice | None] = field(default_factory=dict)
    last_plan: Plan | None = None
    _uids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.pair = SitePair.parse(
            {
                "metadata": self._metadata("pair"),
                "spec": {
                    "primary": {"zone": "zone-a", "network": "net", "replicationNetwork": "net"},
                    "recovery": {
                        "zone": "zone-b",
                        "replicationNetwork": "replication",
                        "recoveryNetwork": "recovery",
                    },
                },
            }
        )

    def _metadata(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{next(self._uids):04}",
            "generation": 1,
            "creationTimestamp": format_time(self.world.now),
        }

    def create(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Apply a new object."""
        self.objects[kind, name] = {"kind": kind, "metadata": self._metadata(name), "spec": spec}

    def protect(self, **replication: Any) -> None:
        """Apply the ProtectedServer of the server."""
        self.phases.append("")
        spec = {"sitePairRef": {"name": "pair"}, "serverId": SERVER, "replication": replication}
        self.create(PROTECTED_SERVER, SERVER, spec)

    def drill(self, name: str, **spec: Any) -> None:
        """Apply a Drill."""
        self.create(DRILL, name, {"serverRef": {"name": SERVER}, **spec})

    def failover(self, name: str, **spec: Any) -> None:
        """Apply a Failover."""
        self.create(FAILOVER, name, {"serverRef": {"name": SERVER}, **spec})

    def edit(self, kind: str, name: str, **spec: Any) -> None:
        """Change fields of a spec; None takes one out."""
        body = self.objects[kind, name]
        merged = {key: value for key, value in {**body["spec"], **spec}.items() if value is not None}
        body["spec"] = merged
        body["metadata"]["generation"] += 1

    def delete(self, kind: str, name: str) -> None:
        """Ask for an object's deletion; it goes once its finalizers are gone."""
        metadata = self.objects[kind, name]["metadata"]
        metadata["deletionTimestamp"] = format_time(self.world.now)
        self._collect()

    def lose_statuses(self) -> None:
        """Forget every status, as a cluster restored from Git does."""
        for body in self.objects.values():
            body.pop("status", None)

    def rebuild(self) -> None:
        """Recreate every object under its name: other UIDs, no status, no finalizers, a later creation."""
        for (kind, name), body in list(self.objects.items()):
            if "deletionTimestamp" not in body["metadata"]:
                self.create(kind, name, body["spec"])
            else:
                del self.objects[kind, name]

    def crash(self) -> None:
        """Forget what only the operator's memory held."""
        self.verifications.clear()
        self.troubles.clear()

    def status(self, kind: str, name: str) -> dict[str, Any]:
        """The status last written."""
        status: dict[str, Any] = self.objects[kind, name].get("status", {})
        return status

    def condition(self, kind: str, name: str, condition: str) -> dict[str, Any]:
        """One condition of an object."""
        found: dict[str, Any] = next(c for c in self.status(kind, name)["conditions"] if c["type"] == condition)
        return found

    @property
    def phase(self) -> str:
        """The server's phase, as last told; empty while none was told."""
        return str(self.status(PROTECTED_SERVER, SERVER).get("phase", ""))

    @property
    def ledger(self) -> Ledger:
        """The stored ledger."""
        facts = self.world.observe(self.world.pair, [SERVER]).servers[SERVER].ledger
        return facts.value if isinstance(facts, Known) else Ledger(SERVER)

    @property
    def machines(self) -> dict[str, Any]:
        """The machines that were launched at either site."""
        facts = self.world.observe(self.world.pair, [SERVER]).servers[SERVER]
        found = (way.machines for way in (facts.forward, facts.reverse))
        return {name: machine for each in found if isinstance(each, Known) for name, machine in each.value.items()}

    @property
    def way(self) -> Way:
        """What is seen in the direction that the ledger says."""
        return self.world.observe(self.world.pair, [SERVER]).servers[SERVER].way(self.ledger.direction)

    def view(self) -> View | None:
        """What the operator would decide from now."""
        parsed = dict(self.objects)
        server = parsed.get((PROTECTED_SERVER, SERVER))
        if server is None:
            return None
        facts = self.world.observe(self.world.pair, [SERVER])
        return View(
            now=self.world.now,
            term=self.term,
            pair=self.pair,
            server=ProtectedServer.parse(server),
            drills=tuple(Drill.parse(b) for (kind, _), b in parsed.items() if kind == DRILL),
            failovers=tuple(Failover.parse(b) for (kind, _), b in parsed.items() if kind == FAILOVER),
            rivals=(),
            primary=facts.primary,
            recovery=facts.recovery,
            facts=facts.servers[SERVER],
            capabilities=self.world.capabilities,
            verifications=dict(self.verifications),
            scripts=dict(self.scripts),
            troubles=dict(self.troubles),
        )

    def step(self, *, stop_after: int | None = None) -> bool:
        """One look and what follows from it; True where anything was done. `stop_after` actions the operator dies."""
        view = self.view()
        if view is None:
            return False
        plan = decide(view)
        self.last_plan = plan
        target = Target(self.world.pair, SERVER, self.term)
        done = 0
        if plan.ledger is not None:
            if stop_after == 0:
                self.crash()
                return True
            try:
                self.world.record(target, plan.ledger)
            except EngineError:
                return False
            done += 1
        for action in plan.actions:
            if stop_after is not None and done >= stop_after:
                self.crash()
                return True
            acted = self._act(replace(target, direction=action.direction), action.subject, action.step)
            if acted and (event := mended(view, action)) is not None:
                self.events.append(event)
            done += acted
        told = report(view, plan)
        for subject, status in told.statuses.items():
            if (subject.kind, subject.name) in self.objects:
                self.objects[subject.kind, subject.name]["status"] = status
        self.events += told.events
        if not self.phases or self.phases[-1] != self.phase:
            self.phases.append(self.phase)
        report_pair(self.pair, self.world.now, view.primary, view.recovery, [view.server])
        self._collect()
        return done > 0

    def _act(self, target: Target, subject: Subject, step: Any) -> int:
        body = self.objects.get((subject.kind, subject.name))
        match step:
            case KeepFinalizer() if body is not None:
                body["metadata"].setdefault("finalizers", []).append(FINALIZER)
            case DropFinalizer() if body is not None:
                held = FINALIZER in body["metadata"].get("finalizers", [])
                body["metadata"]["finalizers"] = []
                return int(held)
            case Verify():
                outcomes = tuple(CheckOutcome(c.name, self.checks_pass, "seen") for c in step.checks)
                self.verifications[step.machine] = Verification(
                    done=True, checks=outcomes, ready_at=self.world.now if self.checks_pass else None
                )
            case KeepFinalizer() | DropFinalizer():
                return 0
            case _:
                return self._perform(target, subject, step)
        return 1

    def _perform(self, target: Target, subject: Subject, verb: Verb) -> int:
        try:
            self.world.perform(target, verb)
        except EngineError as error:
            self.troubles[subject] = trouble_of(error)
            return 0
        self.troubles.pop(subject, None)
        return 1

    def _collect(self) -> None:
        for key, body in list(self.objects.items()):
            metadata = body["metadata"]
            if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
                del self.objects[key]

    def settle(self, *, steps: int = 40) -> None:
        """Step until nothing more is done at this moment."""
        for _ in range(steps):
            if not self.step():
                return

    def run(self, length: timedelta, *, by: timedelta = timedelta(seconds=1)) -> None:
        """Let time pass, settling after each step of it."""
        end = self.world.now + length
        self.settle()
        while self.world.now < end:
            self.world.advance(min(by, end - self.world.now))
            self.settle()

    def until(self, phase: str, *, within: timedelta = timedelta(minutes=10)) -> None:
        """Let time pass until the server is in that phase."""
        end = self.world.now + within
        self.settle()
        while self.phase != phase:
            assert self.world.now < end, f"{self.phase} and not {phase}: {self.status(PROTECTED_SERVER, SERVER)}"
            self.world.advance(timedelta(seconds=1))
            self.settle()

    def replicating(self, **replication: Any) -> None:
        """A server that replicates, with its first point."""
        self.protect(enabled=True, **replication)
        self.until("Replicating")
        self.run(timedelta(seconds=2))
