"""How long to leave alone what is done again and again, so that it costs no more than a share of one core.

With a few servers a look costs nothing, and there is one each second. With thousands each look goes through all of
them, and an operator in which nothing happens should not use up what others need on its node.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Thrift:
    """The pace of something: `least` seconds apart, more where it costs more than its share, up to `longest`.

    What else the thread does meanwhile counts as well: who is busy looks around less often.
    """

    def __init__(
        self, share: float, least: float, longest: float, *, spent: Callable[[], float] = time.thread_time
    ) -> None:
        self._share = share
        self._least = least
        self._longest = max(least, longest)
        self._spent = spent
        self._began = spent()

    def begin(self) -> None:
        """It begins now."""
        self._began = self._spent()

    def pause(self) -> float:
        """It has ended now: for how many seconds it is to be left alone."""
        return min(self._longest, max(self._least, (self._spent() - self._began) / self._share))
