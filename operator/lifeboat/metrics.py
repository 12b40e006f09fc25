"""What the operator counts and measures for Prometheus, in a registry of its own. Series go when their objects go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from lifeboat.api.protectedserver import ProtectedServerPhase
from lifeboat.lifecycle.view import View, known
from lifeboat.world import Key

_OBJECT = ("namespace", "name")


class Metrics:
    """All series of one operator."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._phase = self._gauge("server_phase", "1 for the phase a protected server is in", "phase")
        self._lag = self._gauge("replication_lag_seconds", "How far the replica is behind the source")
        self._copied = self._gauge("replication_copied_bytes", "Bytes that the copy under way has copied")
        self._total = self._gauge("replication_total_bytes", "Bytes that the copy under way has to copy")
        self._points = self._gauge("recovery_points", "Recovery points that exist")
        self._age = self._gauge("recovery_point_age_seconds", "Age of the newest recovery point")
        self._rto = {
            "Drill": self._gauge("drill_rto_seconds", "Seconds a drill took from acceptance until its checks passed"),
            "Failover": self._gauge("failover_rto_seconds", "Seconds a failover took until its checks passed"),
        }
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
        self._phases: dict[Key, str] = {}
        self._known: set[Key] = set()
        self._newest: dict[Key, datetime] = {}

    def text(self, now: datetime) -> bytes:
        """Everything in Prometheus' text format; a point grows older whether its server is looked at or not."""
        for key, newest in self._newest.items():
            self._set(self._age, key, max(0.0, (now - newest).total_seconds()))
        return generate_latest(self.registry)

    def server(self, key: Key, view: View, status: Mapping[str, Any]) -> None:
        """Take in what was just seen of a protected server; what is unknown has no series."""
        self._known.add(key)
        self._set_phase(key, status.get("phase"))
        replica = known(view.way.replica)
        self._set(self._lag, key, replica.lag_seconds if replica is not None else None)
        self._set(self._copied, key, replica.copied_bytes if replica is not None else None)
        self._set(self._total, key, replica.total_bytes if replica is not None else None)
        self._set(self._points, key, len(replica.points) if replica is not None else None)
        if replica is not None and replica.points:
            self._newest[key] = max(point.time for point in replica.points)
        else:
            self._newest.pop(key, None)
            self._set(self._age, key, None)

    def recovery(self, key: Key, status: Mapping[str, Any]) -> None:
        """Take in the recovery time of a drill or failover."""
        self._known.add(key)
        self._set(self._rto[key.kind], key, (status.get("timings") or {}).get("rtoSeconds"))

    def forget(self, key: Key) -> None:
        """Drop the series of an object that is gone."""
        self._known.discard(key)
        self._set_phase(key, None)
        self._newest.pop(key, None)
        gauges: Iterable[Gauge] = (self._lag, self._copied, self._total, self._points, self._age)
        if key.kind in self._rto:
            gauges = (self._rto[key.kind],)
        for gauge in gauges:
            self._set(gauge, key, None)

    def forget_all(self) -> None:
        """Drop the series of all objects: who does not act does not look, and must not tell what is not so any more."""
        for key in list(self._known):
            self.forget(key)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"lifeboat_{name}", meaning, (*_OBJECT, *labels), registry=self.registry)

    def _set(self, gauge: Gauge, key: Key, value: float | None) -> None:
        if value is None:
            gauge.remove(key.namespace, key.name)
        else:
            gauge.labels(key.namespace, key.name).set(value)

    def _set_phase(self, key: Key, phase: str | None) -> None:
        before = self._phases.get(key)
        if phase == before:
            return
        if phase is None:
            self._phases.pop(key, None)
            for each in ProtectedServerPhase:
                self._phase.remove(key.namespace, key.name, each.value)
            return
        if before is None:
            for each in ProtectedServerPhase:
                self._phase.labels(key.namespace, key.name, each.value).set(0)
        else:
            self._phase.labels(key.namespace, key.name, before).set(0)
        self._phase.labels(key.namespace, key.name, phase).set(1)
        self._phases[key] = phase
