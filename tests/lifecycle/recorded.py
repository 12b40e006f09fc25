"""Objects as people and Argo CD see them, in every phase, recorded while the lifecycle is driven.

They are the test data of the health scripts for Argo CD, and are never written by hand, so that they stay true:
`python -m tests.lifecycle.recorded` writes those beside the scripts anew.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from demo.argocd.settings import CUSTOMIZATIONS, health
from lifeboat.api import names
from lifeboat.api.sitepair import SitePair
from lifeboat.engines.ledger import Direction
from lifeboat.engines.simulated.world import World
from lifeboat.lifecycle.report import report_pair
from lifeboat.lifecycle.view import DRILL, FAILOVER, PROTECTED_SERVER, SITE_PAIR
from tests.lifecycle.cluster import EPOCH, HARDWARE, SERVER, Cluster, world

Seen = dict[tuple[str, str, str], dict[str, Any]]
CHECKS: Final = [{"name": "web", "tcpSocket": {"port": 80}}]


def readiness_of(found: Mapping[str, Any]) -> str:
    """Which of the three conditions says how things stand; the operator sets one at a time."""
    states = {c["type"]: c["status"] for c in found["status"]["conditions"]}
    true = [name for name in ("Ready", "Reconciling", "Stalled") if states[name] == "True"]
    assert len(true) == 1, states
    return true[0]


@dataclass
class Recorder(Cluster):
    """A cluster that keeps the first object seen of each kind, phase and readiness."""

    seen: Seen = field(default_factory=dict)

    def step(self, *, stop_after: int | None = None) -> bool:
        """One step, and a look at every object after it."""
        done = super().step(stop_after=stop_after)
        for (kind, _), body in self.objects.items():
            if "status" in body:
                self._keep(kind, body, body["status"].get("phase", ""))
        view = self.view()
        if view is not None:
            told = report_pair(self.pair, self.world.now, view.primary, view.recovery, [view.server])
            status = next(iter(told.statuses.values()))
            spec = self.pair.as_dict()["spec"]
            body = {"kind": SITE_PAIR, "metadata": self._metadata_of(self.pair), "spec": spec, "status": status}
            self._keep(SITE_PAIR, body, "")
        return done

    def _metadata_of(self, pair: SitePair) -> dict[str, Any]:
        return {"name": pair.metadata.name, "namespace": "default", "generation": pair.metadata.generation}

    def _keep(self, kind: str, body: Mapping[str, Any], phase: str) -> None:
        key = (kind, phase, readiness_of(body))
        if key not in self.seen:
            self.seen[key] = copy.deepcopy({"apiVersion": names.API_VERSION, **body})


def record() -> Seen:
    """Drive servers through all that can happen to them."""
    seen: Seen = {}
    for story in (_whole_road, _refusals, _troubles, _failing_checks, _yielding):
        story(seen)
    return seen


def _recorder(seen: Seen) -> Recorder:
    return Recorder(world(), seen=seen)


def _whole_road(seen: Seen) -> None:
    made = world()
    made.remove_server(SERVER)
    made.add_server(SERVER, HARDWARE, agent_after_reboot=True)
    cluster = Recorder(made, seen=seen)
    cluster.protect()
    cluster.until("InstallingAgent")
    made.set_agent(SERVER, connected=True)
    cluster.until("Initialized")
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"enabled": True})
    cluster.drill("early", checks=CHECKS)
    cluster.until("Replicating")
    cluster.run(timedelta(minutes=1))
    cluster.edit(DRILL, "early", running=False)
    cluster.run(timedelta(minutes=1))
    made.write(SERVER)
    made.cut_link()
    cluster.until("Interrupted")
    made.write(SERVER)
    made.restore_link()
    cluster.until("Resyncing")
    cluster.until("Replicating")
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"enabled": False})
    cluster.until("Stopped")
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"enabled": True})
    cluster.until("Replicating")
    cluster.run(timedelta(seconds=5))
    cluster.failover("first", checks=CHECKS)
    cluster.until("FailedOver")
    cluster.edit(FAILOVER, "first", rollback=True)
    cluster.until("Replicating")
    cluster.failover("second", checks=CHECKS)
    cluster.until("FailedOver")
    cluster.run(timedelta(minutes=1))
    cluster.edit(FAILOVER, "second", recoveryPoint="latest", instance={"cpu": 1})
    cluster.run(timedelta(minutes=1))
    cluster.edit(FAILOVER, "second", commit=True)
    cluster.until("Committed")
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"direction": "Reverse"})
    cluster.until("ReverseRegistered")
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"direction": "Reverse", "enabled": True})
    cluster.until("ReverseReplicating")
    made.cut_link()
    cluster.until("ReverseInterrupted")
    made.write(SERVER, direction=Direction.REVERSE)
    made.restore_link()
    cluster.until("ReverseResyncing")
    cluster.until("ReverseReplicating")
    cluster.run(timedelta(seconds=5))
    cluster.failover("home", type="Failback", checks=CHECKS)
    cluster.until("FailedBack")
    cluster.run(timedelta(minutes=1))
    cluster.edit(PROTECTED_SERVER, SERVER, replication={})
    cluster.until("Initialized")


def _refusals(seen: Seen) -> None:
    """What is asked cannot be: no such point, no such network, a failover that cannot start in time."""
    cluster = _recorder(seen)
    cluster.replicating()
    cluster.drill("no-such-point", recoveryPoint="rp-none")
    cluster.failover("no-such-network", instance={"network": "none"}, startDeadline="1m")
    cluster.run(timedelta(seconds=10))
    cluster.run(timedelta(minutes=2), by=timedelta(seconds=10))
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"enabled": True, "direction": "Reverse"})
    cluster.run(timedelta(seconds=10))
    without_networks = World(EPOCH)
    without_networks.add_server(SERVER, HARDWARE)
    lacking = Recorder(without_networks, seen=seen)
    lacking.protect()
    lacking.run(timedelta(seconds=10))


def _troubles(seen: Seen) -> None:
    """The primary site falls silent."""
    cluster = _recorder(seen)
    cluster.replicating()
    cluster.world.silence("zone-a")
    cluster.run(timedelta(minutes=1), by=timedelta(seconds=5))
    cluster.failover("zone-a-lost", checks=CHECKS)
    cluster.until("FailedOver")
    cluster.run(timedelta(minutes=1), by=timedelta(seconds=5))


def _failing_checks(seen: Seen) -> None:
    """Servers start, and their checks fail."""
    cluster = _recorder(seen)
    cluster.checks_pass = False
    cluster.replicating()
    cluster.drill("fails", checks=CHECKS)
    cluster.run(timedelta(minutes=1))
    cluster.failover("fails", checks=CHECKS)
    cluster.run(timedelta(minutes=1))


def _yielding(seen: Seen) -> None:
    """A drill that still launches gives way to a failover."""
    cluster = _recorder(seen)
    cluster.replicating()
    cluster.drill("yields", checks=CHECKS)
    while cluster.status(DRILL, "yields").get("phase") != "Launching":
        cluster.step()
    cluster.failover("comes", checks=CHECKS)
    cluster.run(timedelta(minutes=1))


def files(seen: Seen) -> dict[str, str]:
    """What stands beside the scripts: test data, and what Argo CD's own test of them expects."""
    written: dict[str, str] = {}
    tests: dict[str, list[dict[str, Any]]] = {}
    for (kind, phase, readiness), found in sorted(seen.items()):
        verdict = health(found)
        name = "_".join(part.lower() for part in (verdict["status"], phase, readiness) if part)
        written[f"{kind}/testdata/{name}.yaml"] = yaml.safe_dump(found, sort_keys=False, width=120)
        tests.setdefault(kind, []).append({"healthStatus": verdict, "inputPath": f"testdata/{name}.yaml"})
    for kind, expected in tests.items():
        written[f"{kind}/health_test.yaml"] = yaml.safe_dump({"tests": expected}, sort_keys=False, width=120)
    return written


def write(folder: Path = CUSTOMIZATIONS) -> None:
    """Write the test data anew."""
    for stale in folder.glob("*/testdata"):
        shutil.rmtree(stale)
    for name, text in files(record()).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
