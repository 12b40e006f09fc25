"""How often the same step is tried."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import sentinel

import pytest

from lifeboat.engines.contract import NoSpace, Refused, Retry, Underway, Unreachable
from lifeboat.engines.verbs import ResumeReplication, TakePoint
from lifeboat.lifecycle.view import Subject
from lifeboat.reconcile.pace import LONGEST_SECONDS, QUIET_SECONDS, Pace, trouble_of

SERVER: Subject = sentinel.server


class Clock:
    """A clock that is set by hand, in seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def moments(steps: list[object], seconds: float) -> list[float]:
    """When each step was tried, when it is wanted all the time."""
    clock, found = Clock(), list[float]()
    pace = Pace(elapsed=clock)
    waiting = iter(steps)
    step = next(waiting)
    while clock.now < seconds:
        if pace.may(SERVER, step):
            pace.tried(SERVER, step)
            found.append(clock.now)
            step = next(waiting, step)
        clock.now += 0.1
    return found


def test_the_same_step_is_tried_more_and_more_rarely_and_never_given_up() -> None:
    waits = [b - a for a, b in pairwise(moments([TakePoint("one")], 60))]
    assert waits == sorted(waits)
    assert waits[0] < 1
    assert LONGEST_SECONDS - 0.2 < waits[-1] < LONGEST_SECONDS + 0.2


def test_another_step_of_its_sort_is_tried_at_once() -> None:
    found = moments([TakePoint(str(number)) for number in range(5)], 5)
    assert all(b - a < 0.2 for a, b in list(pairwise(found))[:4])


def test_resyncs_one_after_the_other_are_tried_more_and_more_rarely() -> None:
    found = moments([ResumeReplication(f"before-resync-1-{number}") for number in range(100)], 60)
    waits = [b - a for a, b in pairwise(found)]
    assert waits[0] < 1
    assert waits[-1] > LONGEST_SECONDS - 0.2


def test_a_resync_after_a_quiet_time_is_tried_at_once() -> None:
    clock = Clock()
    pace = Pace(elapsed=clock)
    for number in range(10):
        pace.tried(SERVER, ResumeReplication(f"before-resync-1-{number}"))
    assert not pace.may(SERVER, ResumeReplication("before-resync-1-10"))
    clock.now += QUIET_SECONDS + 1
    assert pace.may(SERVER, ResumeReplication("before-resync-1-10"))
    pace.tried(SERVER, ResumeReplication("before-resync-1-10"))
    clock.now += 0.5
    assert pace.may(SERVER, ResumeReplication("before-resync-1-11"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Retry("QEMU of servers/web-1 does not answer"), "QEMU of servers/web-1 does not answer; it is tried again"),
        (Unreachable("zone zone-a does not answer"), "zone zone-a does not answer; it is tried again"),
        (
            NoSpace("the disk of zone zone-b is full"),
            "the disk of zone zone-b is full; make room there, and it goes on",
        ),
        (Underway("server web-1 is shutting down"), "server web-1 is shutting down"),
        (TimeoutError(), "the engine did not answer in time; it is tried again"),
    ],
)
def test_what_passes_by_itself_says_what_the_operator_does(error: Exception, message: str) -> None:
    trouble = trouble_of(error)
    assert (trouble.message, trouble.stalled) == (message, False)


def test_what_was_refused_is_told_as_it_was_said_and_needs_a_person() -> None:
    trouble = trouble_of(Refused("point p-1 cannot be used: it is damaged"))
    assert (trouble.message, trouble.stalled) == ("point p-1 cannot be used: it is damaged", True)
