"""How often the same step is tried: at once when it is new, then more and more rarely, until something else happens.

An engine that fails is not hammered, and a verb that did its work but changed nothing is not repeated five times a
second. The engine's last error stays with the object it is about, so that people see why it does not go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from lifeboat import clock
from lifeboat.engines.contract import EngineError, NoSpace, Refused, Underway, Unreachable
from lifeboat.engines.verbs import Fence, ResumeReplication
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.view import Action, Notice, Subject

FIRST_SECONDS: Final = 0.2
LONGEST_SECONDS: Final = 10.0
LONGEST_FENCE_SECONDS: Final = 1.0
"""A fence is never put off for long: until it stands, two servers may serve, and a clean shutdown is waited for."""
QUIET_SECONDS: Final = 30.0
"""A step that was not asked for this long is new again."""


@dataclass(slots=True)
class _Tries:
    step: object
    count: int
    at: float
    trouble: Notice | None = None


class Pace:
    """The tries of one server's steps, by subject and sort of verb."""

    def __init__(self, *, elapsed: Callable[[], float] = clock.elapsed) -> None:
        self._elapsed = elapsed
        self._tries: dict[tuple[Subject, str], _Tries] = {}

    def may(self, subject: Subject, step: object) -> bool:
        """Whether the step may be tried now."""
        return self._wait(subject, step) <= 0

    def tried(self, subject: Subject, step: object, error: Exception | None = None) -> Notice | None:
        """Note a try; the trouble that it ended in, where it did."""
        key = _key(subject, step)
        before = self._tries.get(key)
        fresh = before is None or not _same(before.step, step) or self._elapsed() - before.at > QUIET_SECONDS
        count = 1 if fresh or before is None else before.count + 1
        trouble = trouble_of(error) if error is not None else None
        self._tries[key] = _Tries(step, count, self._elapsed(), trouble)
        return trouble

    def forget(self, subject: Subject, step: object) -> None:
        """Let the next try of the step be the first again."""
        self._tries.pop(_key(subject, step), None)

    def settle(self, wanted: tuple[Action, ...]) -> None:
        """Forget the troubles of steps that nobody wants any more."""
        keys = {_key(action.subject, action.step) for action in wanted}
        for key, tries in self._tries.items():
            if key not in keys:
                tries.trouble = None

    def troubles(self) -> Mapping[Subject, Notice]:
        """The last error of each subject; one that needs a person goes before one that passes."""
        found: dict[Subject, Notice] = {}
        for (subject, _), tries in sorted(self._tries.items(), key=lambda item: item[1].at):
            trouble = tries.trouble
            if trouble is not None and (subject not in found or trouble.stalled or not found[subject].stalled):
                found[subject] = trouble
        return found

    def next_in(self, wanted: tuple[Action, ...]) -> float | None:
        """Seconds until the first of these steps may be tried, None where there is none."""
        waits = [self._wait(action.subject, action.step) for action in wanted]
        return max(0.0, min(waits)) if waits else None

    def _wait(self, subject: Subject, step: object) -> float:
        tries = self._tries.get(_key(subject, step))
        if tries is None or not _same(tries.step, step):
            return 0.0
        longest = LONGEST_FENCE_SECONDS if isinstance(step, Fence) else LONGEST_SECONDS
        pause = min(longest, FIRST_SECONDS * 2.0 ** min(tries.count - 1, 10))
        return tries.at + pause - self._elapsed()


def trouble_of(error: Exception) -> Notice:
    """What an error means for people: whether it passes by itself, and what was said."""
    match error:
        case Refused():
            return Notice(reasons.ENGINE_ERROR, str(error), stalled=True)
        case Underway():
            return Notice(reasons.IN_PROGRESS, str(error), stalled=False)
        case NoSpace():
            return Notice(reasons.NO_SPACE, f"{error}; make room there, and it goes on", stalled=False)
        case Unreachable():
            return Notice(reasons.SITE_SILENT, _tried_again(error), stalled=False)
        case EngineError():
            return Notice(reasons.ENGINE_ERROR, _tried_again(error), stalled=False)
        case TimeoutError():
            return Notice(reasons.ENGINE_ERROR, "the engine did not answer in time; it is tried again", stalled=False)
        case _:
            return Notice(reasons.ENGINE_ERROR, f"it broke ({type(error).__name__}), see the log", stalled=False)


def _tried_again(error: Exception) -> str:
    """What was said, and what the operator does about it."""
    return f"{error}; it is tried again"


def _same(before: object, step: object) -> bool:
    """Whether a step is the one of before, tried again.

    Each resync has a name of its own; one that broke again at once is tried more and more rarely all the same. A link
    that comes and goes, or a machine without time to spare, is not helped by resyncs one after the other.
    """
    return before == step or (isinstance(before, ResumeReplication) and isinstance(step, ResumeReplication))


def _key(subject: Subject, step: object) -> tuple[Subject, str]:
    return subject, step if isinstance(step, str) else type(step).__name__
