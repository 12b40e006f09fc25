"""What the operator tells Prometheus: readable, gone with its objects, and not rendered anew at each scrape."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lifeboat.engines.facts import PairFacts
from lifeboat.lifecycle.report import report_pair
from lifeboat.metrics import Metrics
from lifeboat.series import ObjectGauge
from lifeboat.world import Key
from tests.lifecycle.cluster import SERVER, Cluster

CHECKS = [{"name": "tcp", "tcpSocket": {"port": 80}}]
SERVERS = 5_000


def series(metrics: Metrics) -> Iterator[tuple[str, dict[str, str], float]]:
    """The name, labels and value of each series of an object."""
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            if "name" in sample.labels:
                yield sample.name.removeprefix("lifeboat_"), sample.labels, sample.value


def told(metrics: Metrics) -> dict[str, float]:
    return {name: value for name, _, value in series(metrics)}


def phases(metrics: Metrics) -> list[dict[str, str]]:
    return [labels for name, labels, _ in series(metrics) if name == "server_phase"]


def look(metrics: Metrics, cluster: Cluster) -> None:
    """Take in all of the cluster as the operator does after a pass."""
    view = cluster.view()
    assert view is not None
    for (kind, name), body in cluster.objects.items():
        key = Key(kind, "default", name)
        if kind == "ProtectedServer":
            metrics.server(key, view, body["status"])
        else:
            metrics.recovery(key, SERVER, body["status"])
    facts = PairFacts(view.primary, view.recovery, {})
    said = report_pair(cluster.pair, view.now, view.primary, view.recovery, [view.server])
    for subject, status in said.statuses.items():
        metrics.pair(Key(subject.kind, "default", subject.name), cluster.pair, facts, status)


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    made.replicating()
    return made


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def test_a_server_that_replicates_and_then_does_not(cluster: Cluster, metrics: Metrics) -> None:
    look(metrics, cluster)
    assert phases(metrics) == [{"namespace": "default", "name": SERVER, "phase": "Replicating"}]
    found = told(metrics)
    assert found["replication_lag_seconds"] == 0
    assert found["recovery_points"] == 1
    assert found["recovery_point_objective_seconds"] == 3600
    assert 0 <= cluster.world.now.timestamp() - found["recovery_point_newest_timestamp_seconds"] < 60
    assert "server_last_passed_drill_timestamp_seconds" not in found
    cluster.world.cut_link()
    cluster.run(timedelta(minutes=7), by=timedelta(minutes=1))
    look(metrics, cluster)
    assert told(metrics)["replication_lag_seconds"] >= 420
    assert phases(metrics) == [{"namespace": "default", "name": SERVER, "phase": "Interrupted"}]


def test_a_drill_that_is_cleared_has_proved_the_server(cluster: Cluster, metrics: Metrics) -> None:
    cluster.drill("rehearsal", checks=CHECKS)
    cluster.run(timedelta(seconds=30))
    look(metrics, cluster)
    found = told(metrics)
    assert "drill_rto_seconds" in found
    assert found["drill_started_timestamp_seconds"] <= found["server_last_passed_drill_timestamp_seconds"]
    cluster.edit("Drill", "rehearsal", running=False)
    cluster.run(timedelta(minutes=1))
    cluster.delete("Drill", "rehearsal")
    cluster.run(timedelta(hours=1), by=timedelta(minutes=10))
    after_a_restart = Metrics()
    look(after_a_restart, cluster)
    assert "drill_started_timestamp_seconds" not in told(after_a_restart)
    key = "server_last_passed_drill_timestamp_seconds"
    assert told(after_a_restart)[key] == found[key]


def test_a_drill_whose_checks_fail_proves_nothing_and_needs_a_person(cluster: Cluster, metrics: Metrics) -> None:
    cluster.checks_pass = False
    cluster.drill("bad", checks=CHECKS)
    cluster.run(timedelta(seconds=30))
    look(metrics, cluster)
    assert "server_last_passed_drill_timestamp_seconds" not in told(metrics)
    stalled = [labels for name, labels, _ in series(metrics) if name == "object_stalled"]
    assert stalled == [{"namespace": "default", "name": "bad", "kind": "Drill", "reason": "ChecksFailed"}]


def test_what_was_proved_is_told_while_the_recovery_site_is_silent(cluster: Cluster, metrics: Metrics) -> None:
    cluster.drill("rehearsal", checks=CHECKS)
    cluster.run(timedelta(seconds=30))
    look(metrics, cluster)
    cluster.world.silence("zone-b")
    cluster.run(timedelta(seconds=30))
    look(metrics, cluster)
    found = told(metrics)
    assert "server_last_passed_drill_timestamp_seconds" in found
    assert "replication_lag_seconds" not in found
    up = {labels["site"]: value for name, labels, value in series(metrics) if name == "site_up"}
    assert up == {"primary": 1, "recovery": 0}
    rooms = [(labels["site"], labels["tier"]) for name, labels, _ in series(metrics) if name.endswith("free_bytes")]
    assert rooms == [("primary", "standard"), ("primary", "ssd")], "of the site that answers"


def test_a_failover_awaits_commit_until_it_is_committed(cluster: Cluster, metrics: Metrics) -> None:
    cluster.failover("fire", checks=CHECKS)
    cluster.until("FailedOver")
    look(metrics, cluster)
    found = told(metrics)
    assert "failover_rto_seconds" in found
    assert 0 < found["failover_awaiting_commit_timestamp_seconds"] <= cluster.world.now.timestamp()
    cluster.edit("Failover", "fire", commit=True)
    cluster.until("Committed")
    look(metrics, cluster)
    assert "failover_awaiting_commit_timestamp_seconds" not in told(metrics)
    assert told(metrics)["failover_rto_seconds"] == found["failover_rto_seconds"]


def test_series_go_with_their_objects(cluster: Cluster, metrics: Metrics) -> None:
    cluster.drill("rehearsal", checks=CHECKS)
    cluster.run(timedelta(seconds=30))
    look(metrics, cluster)
    names = {labels["name"] for _, labels, _ in series(metrics)}
    assert names == {"pair", SERVER, "rehearsal"}
    metrics.forget(Key("Drill", "default", "rehearsal"))
    assert {labels["name"] for _, labels, _ in series(metrics)} == {"pair", SERVER}
    metrics.forget_all()
    assert not list(series(metrics))


def test_a_scrape_renders_only_what_changed(
    cluster: Cluster, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = cluster.view()
    assert view is not None
    status = cluster.status("ProtectedServer", SERVER)
    keys = [Key("ProtectedServer", "default", f"server-{number}") for number in range(SERVERS)]
    for key in keys:
        metrics.server(key, view, status)
    rendered: list[Key] = []
    render = ObjectGauge._line

    def noted(gauge: ObjectGauge, key: Key, more: Sequence[str], value: float) -> str:
        rendered.append(key)
        return render(gauge, key, more, value)

    monkeypatch.setattr(ObjectGauge, "_line", noted)
    assert metrics.text().count(b"lifeboat_server_phase{") == SERVERS
    metrics.server(keys[7], view, status)
    metrics.text()
    assert set(rendered) == {keys[7]}


def test_labels_are_escaped() -> None:
    gauge = ObjectGauge("odd", "An odd one", "reason")
    gauge.tell(Key("Drill", "default", "a"), 1.5, 'back\\slash "quoted"\nline')
    (family,) = text_string_to_metric_families(gauge.text())
    assert family.samples[0].labels["reason"] == 'back\\slash "quoted"\nline'
