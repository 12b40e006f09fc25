"""What is worth a write, how API errors and Secrets are read, and how often a step is tried."""

import base64

import pytest

from lifeboat import kube
from lifeboat.engines import verbs
from lifeboat.engines.contract import NoSpace, Refused, Retry, Unreachable
from lifeboat.kube import secret_script
from lifeboat.lifecycle.view import Action, Subject
from lifeboat.reconcile.pace import LONGEST_SECONDS, QUIET_SECONDS, Pace
from lifeboat.reconcile.writer import comparable, contains

READY = {"type": "Ready", "status": "True", "reason": "AsAsked", "message": "", "lastTransitionTime": "2026-01-01"}
WEB = Subject("ProtectedServer", "web")


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_the_time_of_a_condition_is_no_news() -> None:
    later = {"conditions": [READY | {"lastTransitionTime": "2027-01-01"}], "phase": "Running", "checks": []}
    assert comparable(later) == comparable({"conditions": [READY], "phase": "Running"})
    assert comparable(later) != comparable({"conditions": [READY | {"message": "new"}], "phase": "Running"})


def test_conditions_of_others_are_theirs() -> None:
    stored = comparable({"conditions": [READY, READY | {"type": "Theirs"}], "phase": "Running"})
    assert contains(stored, comparable({"conditions": [READY], "phase": "Running"}))
    assert not contains(stored, comparable({"conditions": [READY], "phase": "Failed"}))


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (404, kube.NotFound),
        (409, kube.Conflict),
        (422, kube.Rejected),
        (403, kube.Rejected),
        (429, kube.Unavailable),
        (503, kube.Unavailable),
    ],
)
def test_answers_mean_one_thing_each(status: int, meaning: type[kube.KubeError]) -> None:
    error = kube._error(status, "GET", "/x", b'{"message": "said"}')
    assert type(error) is meaning
    assert "said" in str(error)
    assert "not json" in str(kube._error(status, "GET", "/x", b"not json"))


def test_a_secret_is_read_with_its_label_only() -> None:
    data = {"run": base64.b64encode(b"echo hi").decode(), "raw": base64.b64encode(b"\xff\xfe").decode()}
    labelled = {"metadata": {"labels": {"lifeboat.dev/script": "true"}}, "data": data}
    assert secret_script(labelled, "s", "run") == "echo hi"
    with pytest.raises(kube.Unusable, match="label"):
        secret_script({"metadata": {}, "data": data}, "s", "run")
    with pytest.raises(kube.Unusable, match="no key"):
        secret_script(labelled, "s", "other")
    with pytest.raises(kube.Unusable, match="not text"):
        secret_script(labelled, "s", "raw")


def test_a_step_that_fails_is_tried_more_and_more_rarely() -> None:
    clock = Clock()
    pace = Pace(elapsed=clock)
    pauses = []
    for _ in range(9):
        assert pace.may(WEB, verbs.Unfence())
        pace.tried(WEB, verbs.Unfence(), Unreachable("silent"))
        began = clock.seconds
        while not pace.may(WEB, verbs.Unfence()):
            clock.seconds += 0.1
        pauses.append(round(clock.seconds - began, 1))
    assert pauses[0] == pytest.approx(0.2, abs=0.11)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(LONGEST_SECONDS, abs=0.2)
    clock.seconds += QUIET_SECONDS + 1
    pace.tried(WEB, verbs.Unfence())
    clock.seconds += 0.3
    assert pace.may(WEB, verbs.Unfence()), "after a quiet time it is new again"


def test_another_verb_of_the_same_sort_is_not_held_up() -> None:
    pace = Pace(elapsed=Clock())
    pace.tried(WEB, verbs.TakePoint("one"))
    assert not pace.may(WEB, verbs.TakePoint("one"))
    assert pace.may(WEB, verbs.TakePoint("two"))


def test_a_trouble_stays_until_it_passes_or_nobody_wants_the_step() -> None:
    clock = Clock()
    pace = Pace(elapsed=clock)
    pace.tried(WEB, verbs.StopReplication(), Refused("no"))
    clock.seconds += 1
    pace.tried(WEB, verbs.Fence(), Retry("later"))
    assert pace.troubles()[WEB].message == "no", "what needs a person goes first"
    pace.tried(WEB, verbs.StopReplication())
    assert pace.troubles()[WEB].message == "later; it is tried again"
    pace.settle((Action(WEB, verbs.StopReplication()),))
    assert not pace.troubles()


@pytest.mark.parametrize(
    ("error", "reason", "stalled"),
    [
        (Refused("x"), "EngineError", True),
        (NoSpace("x"), "NoSpace", False),
        (Unreachable("x"), "SiteSilent", False),
        (Retry("x"), "EngineError", False),
        (TimeoutError(), "EngineError", False),
        (ZeroDivisionError("x"), "EngineError", False),
    ],
)
def test_errors_say_whether_they_pass(error: Exception, reason: str, stalled: bool) -> None:
    notice = Pace(elapsed=Clock()).tried(WEB, verbs.Fence(), error)
    assert notice is not None
    assert (notice.reason, notice.stalled) == (reason, stalled)
