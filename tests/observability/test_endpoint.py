"""Prometheus scrapes a real operator that is brought into each condition: its alert fires, and clears after it.

The rules are those that are shipped, but that they wait a second instead of minutes. What takes weeks is had by a clock
that is weeks behind: the operator dates drills and points by it, Prometheus does not know.
"""

import re
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from demo.controlplane import ControlPlane
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.engines.contract import Pair, Unreachable
from lifeboat.engines.facts import PairFacts
from lifeboat.engines.simulated.engine import SimulatedEngine
from tests.api.operators import Site
from tests.conftest import connect
from tests.observability import dashboard
from tests.observability.prometheus import RULES, Programs, Server, free_port, rules, serving

PASSES = [{"name": "data", "exec": {"command": ["true"]}}]
FAILS = [{"name": "data", "exec": {"command": ["false"]}, "timeoutSeconds": 2}]
SECONDS = 90.0
"""For what a busy machine does late: one look of the operator, one scrape, one evaluation."""


class Clock:
    """The operator's clock and the world's."""

    def __init__(self) -> None:
        self.behind = timedelta(days=40)

    def __call__(self) -> datetime:
        return datetime.now(UTC) - self.behind


class Moody(SimulatedEngine):
    """An engine that fails at each look while it is told to."""

    failing = False

    async def observe(self, pair: Pair, server_ids: Collection[str]) -> PairFacts:
        if self.failing:
            raise Unreachable("the array does not answer")
        return await super().observe(pair, server_ids)


@dataclass
class Watched:
    """An operator, the world that it works on, and the Prometheus that scrapes it."""

    site: Site
    clock: Clock
    engine: Moody
    prometheus: Server
    running: ExitStack

    def start(self) -> None:
        self.running.enter_context(self.site.operator(lambda _: self.engine))

    def stop(self) -> None:
        self.running.close()

    def until_firing(self, *wanted: tuple[str, str]) -> None:
        """Wait until these fire, each an alert and the name of its object."""
        self.until(lambda: set(wanted) <= self.prometheus.firing(), f"{wanted} do not fire")

    def until_clear(self, *gone: str) -> None:
        """Wait until none of these alerts fires."""
        self.until(lambda: not {name for name, _ in self.prometheus.firing()} & set(gone), f"{gone} do not clear")

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until it holds."""
        deadline = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < deadline, f"{what} within {SECONDS:g} s; firing: {self.prometheus.firing()}"
            time.sleep(0.2)


def hurried(folder: Path) -> Path:
    """The rules with a second where they wait minutes, and half a minute where they look at a quarter of an hour."""
    text = re.sub(r"^( +for:) \S+$", r"\1 1s", RULES.read_text(encoding="utf-8"), flags=re.MULTILINE)
    path = folder / "alerts.yaml"
    path.write_text(text.replace("[15m]", "[30s]"), encoding="utf-8")
    assert {rule.get("for", "1s") for rule in rules(path)} == {"1s"}
    return path


@pytest.fixture(scope="module")
def watched(
    control_plane: ControlPlane, prometheus: Programs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    folder, clock = tmp_path_factory.mktemp("prometheus"), Clock()
    target, port = free_port(), free_port()
    with connect(control_plane) as connection, ExitStack() as running:
        site = Site(connection, control_plane.kubeconfig, clock=clock)
        site.settings = replace(site.settings, http_port=target)
        with serving(prometheus, folder, target=target, port=port, rule_file=hurried(folder)) as server:
            watched = Watched(site, clock, Moody(site.world, clock), server, running)
            watched.start()
            site.pair()
            for name in ("web", "mail"):
                site.protect(name)
            for name in ("web", "mail"):
                site.until_phase(ProtectedServer, name, "Replicating")
            yield watched
            watched.stop()


def test_what_was_left_alone_for_weeks(watched: Watched) -> None:
    site = watched.site
    site.create(Drill, "left", {"serverRef": {"name": "web"}, "checks": PASSES})
    site.create(Failover, "lost", {"serverRef": {"name": "mail"}, "checks": PASSES})
    site.until_phase(Drill, "left", "Running")
    site.until_phase(Failover, "lost", "AwaitingCommit")
    watched.until_firing(
        ("LifeboatDrillLeftRunning", "left"),
        ("LifeboatFailoverNotCommitted", "lost"),
        ("LifeboatNoNewRecoveryPoint", "web"),
        ("LifeboatNotDrilled", "web"),
    )
    watched.clock.behind = timedelta()
    site.edit(Drill, "left", {"running": False})
    site.edit(Failover, "lost", {"commit": True})
    watched.until_firing(("LifeboatNotProtected", "mail"))
    site.edit(ProtectedServer, "mail", {"replication": {"direction": "Reverse"}})
    site.create(Drill, "again", {"serverRef": {"name": "web"}, "checks": PASSES})
    watched.until_clear(
        "LifeboatDrillLeftRunning",
        "LifeboatFailoverNotCommitted",
        "LifeboatNoNewRecoveryPoint",
        "LifeboatNotDrilled",
        "LifeboatNotProtected",
    )


def test_an_interruption_and_the_lag_that_comes_of_it(watched: Watched) -> None:
    watched.site.world.cut_link()
    watched.until_firing(("LifeboatReplicationInterrupted", "web"))
    assert not {name for name, _ in watched.prometheus.firing()} & {"LifeboatReplicationLag"}
    watched.clock.behind = -timedelta(hours=2, minutes=30)
    watched.until_firing(("LifeboatReplicationLag", "web"))
    assert ("LifeboatReplicationLagCritical", "web") not in watched.prometheus.firing()
    watched.clock.behind = -timedelta(hours=4)
    watched.until_firing(("LifeboatReplicationLag", "web"), ("LifeboatReplicationLagCritical", "web"))
    watched.site.world.restore_link()
    watched.until_clear("LifeboatReplicationInterrupted", "LifeboatReplicationLag", "LifeboatReplicationLagCritical")


def test_a_site_that_is_silent(watched: Watched) -> None:
    watched.site.world.silence("zone-a")
    watched.until_firing(("LifeboatSiteSilent", "pair"))
    zones = {(each["metric"]["zone"], each["value"][1]) for each in watched.prometheus.query("lifeboat_site_up")}
    assert zones == {("zone-a", "0"), ("zone-b", "1")}
    watched.site.world.answer("zone-a")
    watched.until_clear("LifeboatSiteSilent")


def test_storage_that_is_nearly_full(watched: Watched) -> None:
    watched.site.world.fill_disk("zone-b")
    watched.until_firing(("LifeboatStorageNearlyFull", "pair"))
    watched.site.world.free_disk("zone-b")
    watched.until_clear("LifeboatStorageNearlyFull")


def test_an_object_that_needs_a_person(watched: Watched) -> None:
    watched.site.create(Drill, "broken", {"serverRef": {"name": "web"}, "checks": FAILS})
    watched.until_firing(("LifeboatNeedsPerson", "broken"))
    watched.site.delete(Drill, "broken")
    watched.until_clear("LifeboatNeedsPerson")


def test_an_engine_that_fails_again_and_again(watched: Watched) -> None:
    watched.engine.failing = True
    watched.until_firing(("LifeboatEngineErrors", ""))
    watched.engine.failing = False
    watched.until_clear("LifeboatEngineErrors")


def test_no_operator_and_none_that_leads(watched: Watched) -> None:
    watched.stop()
    watched.until_firing(("LifeboatDown", ""))
    hold_lease(watched.site, "somebody")
    watched.start()
    watched.until_firing(("LifeboatNoLeader", ""))
    watched.until_clear("LifeboatDown")
    hold_lease(watched.site, "")
    watched.until_clear("LifeboatNoLeader")


def hold_lease(site: Site, holder: str) -> None:
    """Write into the operators' Lease that somebody holds it for an hour, or nobody."""
    lease = site.coordination.read_namespaced_lease("lifeboat", site.namespace)
    assert lease.spec is not None
    lease.spec.holder_identity, lease.spec.lease_duration_seconds = holder, 3600
    lease.spec.renew_time = datetime.now(UTC)
    site.coordination.replace_namespaced_lease("lifeboat", site.namespace, lease)


def test_the_page_is_as_prometheus_likes_it(watched: Watched, prometheus: Programs) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{watched.site.settings.http_port}/metrics", timeout=10) as answer:
        said = prometheus.check("check", "metrics", text=answer.read().decode())
    assert not said


def test_a_copy_under_way(watched: Watched) -> None:
    slowly = {"enabled": True, "bandwidthLimit": "2Mi"}
    watched.site.protect("big", replication=slowly)
    watched.site.until_phase(ProtectedServer, "big", "FullSync")
    rates = next(asked for title, asked in dashboard.expressions() if title == "Copy rate")
    watched.until(lambda: any(float(each["value"][1]) > 0 for each in watched.prometheus.query(rates)), "no rate")


def test_every_alert_is_in_this_story() -> None:
    told = set(re.findall(r'"(Lifeboat\w+)"', Path(__file__).read_text(encoding="utf-8")))
    assert told == {rule["alert"] for rule in rules()}


def test_every_panel_of_the_dashboard_had_something_to_show(watched: Watched) -> None:
    """Within the story; a panel's expression is asked for each second of it."""
    end = time.time()
    window = {"start": str(end - 600), "end": str(end), "step": "1"}
    empty = [
        f"{title}: {expression}"
        for title, expression in dashboard.expressions()
        if not watched.prometheus.ask("query_range", query=expression, **window)["result"]
    ]
    assert not empty
