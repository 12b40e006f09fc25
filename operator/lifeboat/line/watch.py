"""When a connection counts as broken: by what is under way on it, and by the signs of life from the other side.

Time and what happened are handed in; nothing is asked here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lifeboat.line import nbd

SILENT = 0.7
"""Seconds without any sign of the replica that are a break."""
SLOW = 2.0
SLOW_CLEARING = 10.0
_SLOWEST = 512 << 10
OWN = 0x4C69666562656174
"""The handle of the line's own requests. QEMU makes its handles of addresses, which are smaller."""


class Broken(Exception):
    """Raised when the line has to end. `kind` is for programs, the message for people."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(slots=True)
class Request:
    """A request that was not answered yet; `end` is its last byte's place in all that was passed on."""

    kind: int
    length: int
    sent: float
    end: int


@dataclass(slots=True)
class Watch:
    """What is known of a connection's progress: when there was a sign of the replica, and when it answered QEMU."""

    under_way: dict[int, Request] = field(default_factory=dict)
    moved: float = 0.0
    served: float = 0.0
    busy_since: float = 0.0
    answered: int = 0
    acknowledged: int = 0

    def begin(self, handle: int, request: Request) -> None:
        """A request is passed on."""
        if not self.under_way:
            self.busy_since, self.answered = request.sent, 0
        self.under_way[handle] = request

    def end(self, handle: int, now: float) -> Request | None:
        """A request was answered."""
        request = self.under_way.pop(handle, None)
        if request is not None and handle != OWN:
            self.answered += request.length
            self.served = now
        return request

    def taken(self, acknowledged: int, now: float) -> None:
        """The other side's TCP has taken so many bytes of all; that counts while the oldest request is among them."""
        oldest = next(iter(self.under_way.values()), None)
        if oldest is not None and self.acknowledged < oldest.end and acknowledged > self.acknowledged:
            self.moved = self.served = now
        self.acknowledged = acknowledged

    def patience(self, request: Request, least: float) -> float:
        """How long to wait for this request: `least`, or twice what its size takes at the pace so far."""
        pace = self.answered / max(self.served - self.busy_since, 0.001) if self.answered else 0.0
        return max(least, 2 * request.length / max(pace, _SLOWEST))

    def problem(self, now: float) -> Broken | None:
        """Why this connection counts as broken now, or None."""
        oldest = next(iter(self.under_way.values()), None)
        if oldest is None:
            return None
        if now - max(oldest.sent, self.moved) > self.patience(oldest, SILENT):
            return Broken("silent", f"no answer for {now - max(oldest.sent, self.moved):.1f} s")
        theirs = [request for handle, request in self.under_way.items() if handle != OWN]
        if theirs:
            clearing = all(request.kind in nbd.MAY_TAKE_LONG for request in theirs)
            limit = self.patience(theirs[0], SLOW_CLEARING if clearing else SLOW)
            waited = now - max(theirs[0].sent, self.served)
            if waited > limit:
                return Broken("slow", f"a write has not ended for {waited:.1f} s")
        return None
