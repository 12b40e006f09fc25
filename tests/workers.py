"""Several processes that share the tests (`-n 2`): who runs what, and a network of its own for each.

What shares a world stays together, because a world is slow to make and one test begins where the last one ended. The
worlds have fixed loopback addresses, as a zone has in its inventory; in a network namespace of its own a process and
all that it starts have all of these addresses for themselves.
"""

from __future__ import annotations

from typing import Final

import pytest
from xdist.scheduler import LoadScopeScheduling

_ONE_WORLD: Final = ("tests/operator/", "tests/e2e/", "tests/faults/")  # a folder, a world; the longest first
_ROWS: Final = "tests/faults/test_matrix.py::test_cell["


class WholeWorlds(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Hands out the tests of a folder with a world at once, of any other folder file by file.

    Of the whole fault matrix a row is handed out at once.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(_ROWS) and self.config.getoption("--matrix", default=False):
            return nodeid.removeprefix(_ROWS).partition("-")[0]
        return next((folder for folder in _ONE_WORLD if nodeid.startswith(folder)), nodeid.partition("::")[0])


def longest_first(items: list[pytest.Item]) -> None:
    """Put the tests with a world in front, so that no worker begins with them when the others are done."""

    def place(item: pytest.Item) -> int:
        return next((i for i, folder in enumerate(_ONE_WORLD) if item.nodeid.startswith(folder)), len(_ONE_WORLD))

    items.sort(key=place)
