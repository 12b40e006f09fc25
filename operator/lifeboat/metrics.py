"""What the operator counts and measures for Prometheus. Series go when their objects go.

A moment is told as a Unix time, so that it needs no telling again while it stays the same: Prometheus takes it from
`time()`. All is taken from what was just seen and reported; nothing is remembered here that a restart would lose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from lifeboat.api import values
from lifeboat.api.common import Result
from lifeboat.api.drill import DrillPhase
from lifeboat.api.failover import FailoverPhase
from lifeboat.api.sitepair import SitePair
from lifeboat.engines.facts import Known, PairFacts
from lifeboat.engines.ledger import Attempt, Ledger
from lifeboat.lifecycle import points
from lifeboat.lifecycle.conditions import STALLED
from lifeboat.lifecycle.view import DRILL, View, known
from lifeboat.series import ObjectGauge
from lifeboat.world import Key

_NO_SERVER = {DrillPhase.PENDING.value, DrillPhase.CLEANED_UP.value, DrillPhase.FAILED.value}


class Metrics:
    """All series of one operator."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.gauges: list[ObjectGauge] = []
        self._site_up = self._gauge("site_up", "1 while the site of a SitePair answers, 0 while not", "site", "zone")
        self._size = self._gauge("site_storage_size_bytes", "Size of a storage tier of a site", "site", "zone", "tier")
        self._free = self._gauge(
            "site_storage_free_bytes", "What is left of a storage tier of a site", "site", "zone", "tier"
        )
        self._phase = self._gauge("server_phase", "1 for the phase that a protected server is in", "phase")
        self._created = self._gauge("server_created_timestamp_seconds", "When the ProtectedServer was created")
        self._passed = self._gauge(
            "server_last_passed_drill_timestamp_seconds",
            "When all checks of a drill of the server last passed; a drill without checks proves nothing",
        )
        self._lag = self._gauge("replication_lag_seconds", "How far the replica is behind the source")
        self._copied = self._gauge("replication_copied_bytes", "Bytes that the copy under way has copied")
        self._total = self._gauge("replication_total_bytes", "Bytes that the copy under way has to copy")
        self._points = self._gauge("recovery_points", "Recovery points that exist")
        self._newest = self._gauge("recovery_point_newest_timestamp_seconds", "The moment that the newest point holds")
        self._objective = self._gauge(
            "recovery_point_objective_seconds",
            "How often the policy asks for a point (its finest tier), and so how much may be lost at most",
        )
        self._drill_started = self._gauge(
            "drill_started_timestamp_seconds",
            "When the server of a drill was started that is not cleared yet",
            "server",
        )
        self._awaiting = self._gauge(
            "failover_awaiting_commit_timestamp_seconds",
            "When the server was started of a failover that awaits commit, another point, or rollback",
            "server",
        )
        self._drill_rto = self._gauge(
            "drill_rto_seconds", "Seconds a drill took from acceptance until its checks passed", "server"
        )
        self._failover_rto = self._gauge(
            "failover_rto_seconds", "Seconds a failover took until its checks passed", "server"
        )
        self._stalled = self._gauge(
            "object_stalled", "1 while an object needs a person: its condition Stalled is True", "kind", "reason"
        )
        self.engine_errors = Counter(
            "lifeboat_engine_errors",
            "Errors of engines, by verb and sort",
            ("engine", "verb", "error"),
            registry=self.registry,
        )
        self.reconcile = Histogram(
            "lifeboat_reconcile_duration_seconds",
            "Seconds that one pass over one server took, from the first look to the last status",
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30),
            registry=self.registry,
        )
        self.leader = Gauge("lifeboat_leader", "1 while this process acts", registry=self.registry)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry) + "".join(gauge.text() for gauge in self.gauges).encode()

    def engine_failed(self, engine: str, verb: str, error: Exception) -> None:
        """Count what an engine could not do."""
        self.engine_errors.labels(engine, verb, type(error).__name__).inc()

    def pair(self, key: Key, pair: SitePair, facts: PairFacts, status: Mapping[str, Any]) -> None:
        """Take in what was just seen of a site pair."""
        primary, recovery = pair.spec.primary.zone, pair.spec.recovery.zone
        up = {("primary", primary): facts.primary, ("recovery", recovery): facts.recovery}
        self._site_up.tell_all(key, {labels: float(isinstance(fact, Known)) for labels, fact in up.items()})
        tiers = {
            (*labels, tier): storage
            for labels, fact in up.items()
            if isinstance(fact, Known)
            for tier, storage in (("standard", fact.value.standard), ("ssd", fact.value.ssd))
            if storage is not None
        }
        self._size.tell_all(key, {labels: float(storage.size_bytes) for labels, storage in tiers.items()})
        self._free.tell_all(key, {labels: float(storage.free_bytes) for labels, storage in tiers.items()})
        self.stalled(key, status)

    def server(self, key: Key, view: View, status: Mapping[str, Any]) -> None:
        """Take in what was just seen of a protected server; what is unknown has no series."""
        self._phase.tell(key, 1.0 if "phase" in status else None, status.get("phase", ""))
        replica = known(view.way.replica)
        self._lag.tell(key, replica.lag_seconds if replica is not None else None)
        self._copied.tell(key, replica.copied_bytes if replica is not None else None)
        self._total.tell(key, replica.total_bytes if replica is not None else None)
        self._points.tell(key, len(replica.points) if replica is not None else None)
        newest = max((point.time for point in replica.points), default=None) if replica is not None else None
        self._newest.tell(key, _unix(newest))
        self._objective.tell(key, points.finest(view.server.spec.replication.tiers).total_seconds())
        ledger = known(view.facts.ledger)
        if ledger is not None:
            # What was proved stays proved while the site that remembers it is silent.
            self._created.tell(key, _unix(view.server.metadata.creation_timestamp))
            self._passed.tell(key, _unix(_last_passed(ledger)))
        self.stalled(key, status)

    def recovery(self, key: Key, server: str, status: Mapping[str, Any]) -> None:
        """Take in how a drill or failover of a server stands."""
        timings = status.get("timings") or {}
        launched, rto = timings.get("launchedAt"), timings.get("rtoSeconds")
        started = _unix(values.parse_time(launched)) if launched else None
        phase = status.get("phase")
        if key.kind == DRILL:
            self._drill_rto.tell(key, rto, server)
            self._drill_started.tell(key, started if phase not in _NO_SERVER else None, server)
        else:
            self._failover_rto.tell(key, rto, server)
            self._awaiting.tell(key, started if phase == FailoverPhase.AWAITING_COMMIT else None, server)
        self.stalled(key, status)

    def stalled(self, key: Key, status: Mapping[str, Any]) -> None:
        """Take in whether an object of any kind needs a person."""
        found = next((each for each in status.get("conditions") or () if each["type"] == STALLED), None)
        if found is not None and found["status"] == "True":
            self._stalled.tell(key, 1.0, key.kind, found["reason"])
        else:
            self._stalled.tell(key, None)

    def forget(self, key: Key) -> None:
        """Drop the series of an object that is gone."""
        for gauge in self.gauges:
            gauge.tell(key, None)

    def forget_all(self) -> None:
        """Drop the series of all objects: who does not act does not look, and must not tell what is not so any more."""
        for gauge in self.gauges:
            gauge.clear()

    def _gauge(self, name: str, meaning: str, *more: str) -> ObjectGauge:
        made = ObjectGauge(f"lifeboat_{name}", meaning, *more)
        self.gauges.append(made)
        return made


def _unix(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment is not None else None


def _last_passed(ledger: Ledger) -> datetime | None:
    """When a drill last passed: one that ended, or one whose server still runs."""
    return max((attempt.ready_at for attempt in _drilled(ledger) if attempt.ready_at is not None), default=None)


def _drilled(ledger: Ledger) -> Iterator[Attempt]:
    """The attempts of drills whose checks passed."""
    ended = (attempt for spent in ledger.spent if spent.kind == DRILL for attempt in spent.attempts)
    under_way = (drill.attempt for drill in ledger.drills)
    for attempts in (ended, under_way):
        yield from (attempt for attempt in attempts if attempt.result == Result.PASSED)
