"""How far behind a copy is in time, and for how long nothing was told of it, from what was seen of it lately.

A journal counts entries and has no clock. So each look notes how far the writer was, and the peer is as old as the
oldest note that it has not reached yet. That is a gauge: an operator that was restarted begins anew. But whether the
peer has everything is exact: only then it is 0.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from lifeboat.engines.ceph.pools import Head

_KEPT = 600
# What is behind as of just now.
_LEAST = 0.001


class Lags:
    """The notes of all images."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._notes: dict[str, deque[tuple[float, Head]]] = {}
        self._untold: dict[str, float] = {}

    def lag(self, image: str, writer: Head, peer: Head) -> float:
        """Seconds by which a peer is behind the writer; 0 when it has everything that was seen, and only then."""
        now = self._monotonic()
        notes = self._notes.setdefault(image, deque())
        while notes and notes[0][1] <= peer:
            notes.popleft()
        if writer <= peer:
            notes.clear()
            return 0.0
        if not notes or notes[-1][1] != writer:
            notes.append((now, writer))
        if len(notes) > _KEPT:
            # The oldest is what the lag is counted from.
            self._notes[image] = notes = deque(list(notes)[::2])
        return max(_LEAST, now - notes[0][0])

    def untold(self, image: str, *, nothing: bool) -> float:
        """Seconds for which rbd-mirror has told nothing of an image; `nothing` is whether that is so now."""
        if not nothing:
            self._untold.pop(image, None)
            return 0.0
        now = self._monotonic()
        return now - self._untold.setdefault(image, now)
