"""Argo CD and kstatus (Flux) read the statuses of every phase of every kind as they are meant."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from demo.argocd import settings
from demo.argocd.settings import health
from lifeboat.api import crd
from lifeboat.api.drill import DrillPhase
from lifeboat.api.failover import FailoverPhase
from lifeboat.api.protectedserver import ProtectedServerPhase
from tests.lifecycle import recorded

KINDS = [kind.__name__ for kind in crd.KINDS]
PHASES = {"ProtectedServer": ProtectedServerPhase, "Drill": DrillPhase, "Failover": FailoverPhase}

# What people look for at the end of a wave, and what must never let one go on. A phase that is here is Healthy when
# what spec asks holds in it; in every other phase something is still under way or wrong.
AT_REST = {
    "SitePair": {""},
    "ProtectedServer": {
        "Initialized", "Replicating", "Stopped", "FailedOver", "Committed", "ReverseRegistered", "ReverseReplicating",
        "FailedBack",
    },
    "Drill": {"Running", "CleanedUp"},
    "Failover": {"AwaitingCommit", "Committed", "Completed", "RolledBack"},
}  # fmt: skip


@pytest.fixture(scope="module")
def seen() -> recorded.Seen:
    return recorded.record()


def test_every_phase_of_every_kind_is_recorded(seen: recorded.Seen) -> None:
    for kind, phases in PHASES.items():
        told = {phase for (of, phase, _) in seen if of == kind and phase}
        assert told == {phase.value for phase in phases}, kind


def test_every_kind_is_seen_well_under_way_and_refused(seen: recorded.Seen) -> None:
    verdicts = {(kind, health(found)["status"]) for (kind, _, _), found in seen.items()}
    assert verdicts == {(kind, verdict) for kind in KINDS for verdict in ("Healthy", "Progressing", "Degraded")}


def test_healthy_are_exactly_the_phases_in_which_what_is_asked_can_hold(seen: recorded.Seen) -> None:
    for kind in KINDS:
        ours = {(phase, health(found)["status"]) for (of, phase, _), found in seen.items() if of == kind}
        healthy = {phase for phase, verdict in ours if verdict == "Healthy"}
        assert healthy == AT_REST[kind]


def test_a_drill_that_awaits_clearing_is_healthy_and_one_whose_checks_failed_is_not(seen: recorded.Seen) -> None:
    passed, failed = seen["Drill", "Running", "Ready"], seen["Drill", "Running", "Stalled"]
    assert passed["status"]["result"] == "Passed"
    assert health(passed)["status"] == "Healthy"
    assert failed["status"]["result"] == "Failed"
    assert health(failed)["status"] == "Degraded"
    assert "web: seen" in health(failed)["message"]


def test_a_failover_that_awaits_its_commit_is_healthy(seen: recorded.Seen) -> None:
    """Suspended would keep a sync running, and the edit that commits could not be synced."""
    told = health(seen["Failover", "AwaitingCommit", "Ready"])
    assert told["status"] == "Healthy"
    assert "commit" in told["message"]


def test_a_refused_or_failed_thing_is_degraded_with_its_message(seen: recorded.Seen) -> None:
    for (kind, phase, readiness), found in seen.items():
        told = health(found)
        conditions = {c["type"]: c for c in found["status"]["conditions"]}
        assert (told["status"] == "Degraded") == (readiness == "Stalled"), (kind, phase)
        assert told["message"] == conditions["Ready"]["message"]
        assert told["message"] or phase in ("", "Pending"), (kind, phase)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_status_it_progresses(kind: str) -> None:
    new: dict[str, Any] = {"kind": kind, "metadata": {"name": "new", "generation": 1}, "spec": {}}
    assert health(new)["status"] == "Progressing"
    assert health({**new, "status": {}})["status"] == "Progressing"
    assert health({**new, "status": {"conditions": []}})["status"] == "Progressing"


def test_what_was_said_of_an_earlier_generation_does_not_count(seen: recorded.Seen) -> None:
    for found in seen.values():
        edited = copy.deepcopy(found)
        edited["metadata"]["generation"] += 1
        assert health(edited)["status"] == "Progressing"


def test_kstatus_reads_the_same(seen: recorded.Seen) -> None:
    """The rules of sigs.k8s.io/cli-utils/pkg/kstatus for a custom resource, in their order."""
    meant = {"Ready": "Current", "Reconciling": "InProgress", "Stalled": "Failed"}
    for (kind, phase, readiness), found in seen.items():
        assert kstatus(found) == meant[readiness], (kind, phase)
        for condition in found["status"]["conditions"]:
            assert condition["observedGeneration"] == found["metadata"]["generation"]


def kstatus(found: dict[str, Any]) -> str:
    status, metadata = found["status"], found["metadata"]
    states = {c["type"]: c["status"] for c in status["conditions"]}
    if "deletionTimestamp" in metadata:
        return "Terminating"
    if status["observedGeneration"] != metadata["generation"]:
        return "InProgress"
    if states["Reconciling"] == "True":
        return "InProgress"
    if states["Stalled"] == "True":
        return "Failed"
    return "Current" if states["Ready"] == "True" else "InProgress"


def test_the_test_data_beside_the_scripts_is_what_is_recorded(seen: recorded.Seen) -> None:
    committed = {
        str(path.relative_to(settings.CUSTOMIZATIONS)): path.read_text(encoding="utf-8")
        for path in settings.CUSTOMIZATIONS.rglob("*.yaml")
    }
    assert committed == recorded.files(seen), "run python -m tests.lifecycle.recorded"


def test_the_config_map_carries_the_scripts() -> None:
    text = settings.SNIPPET.read_text(encoding="utf-8")
    assert text == settings.config_map(), "run python -m demo.argocd.settings"
    carried = yaml.safe_load(text)["data"]
    assert carried == {f"resource.customizations.health.lifeboat.dev_{kind}": settings.script(kind) for kind in KINDS}


def test_one_rule_holds_for_all_four_kinds() -> None:
    assert len({settings.script(kind) for kind in KINDS}) == 1
