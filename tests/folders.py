"""What the tests of one folder share, and what ends with the last of them.

A world of machines goes on working while nobody tests it: a fixture of the session would take half a core from all the
tests that come after its own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

import pytest

Shared = TypeVar("Shared")


def shared_in_folder(request: pytest.FixtureRequest, make: Callable[[], AbstractContextManager[Shared]]) -> Shared:
    """What `make` gives: made for the first test of a folder that asks, closed after the folder's last test.

    Args:
        request: of a fixture with the scope of a module.
        make: what opens it; one folder shares one of each.
    """
    folder = request.node.parent
    made = folder.stash.setdefault(_MADE, {})
    if make not in made:
        opened = ExitStack()
        made[make] = opened.enter_context(make())

        def end() -> None:
            del made[make]
            opened.close()

        folder.addfinalizer(end)
    shared: Shared = made[make]
    return shared


_MADE = pytest.StashKey[dict[object, object]]()
