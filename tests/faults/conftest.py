"""The world of the matrix, once for all cells."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.faults.faultworld import FaultWorld


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the whole matrix be asked for."""
    parser.addoption("--matrix", action="store_true", help="run every cell of the fault matrix, not one for each group")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a cell that failed what the operator logged and what was told meanwhile."""
    report = yield
    world = getattr(item, "funcargs", {}).get("world")
    if report.failed and call.when == "call" and isinstance(world, FaultWorld):
        report.sections.append(("operator", world.logged()))
        told = (f"{each.kind} {each.name} {each.phase} {each.reason}: {each.message}" for each in world.told())
        report.sections.append(("told", "\n".join(told)))
    return report


@pytest.fixture(scope="module")
def world() -> Iterator[FaultWorld]:
    """The world, taken down whatever happens."""
    made = FaultWorld(Path(tempfile.mkdtemp(prefix="lifeboat-faults-")))
    try:
        made.begin()
        yield made
    finally:
        made.finish()
        shutil.rmtree(made.folder, ignore_errors=True)
