"""The world of the matrix, once for all cells, and the figures at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.faultworld import FaultWorld


@dataclass
class Figures:
    """What was measured in one cell. Times are seconds; `interrupted` is until the interruption was told."""

    cell: str
    end: str = "failed"
    seconds: float = 0.0
    stall: float = 0.0
    interrupted: float | None = None
    acknowledged: int = 0
    lost: int | None = None
    said: str = ""


FIGURES = pytest.StashKey[list[Figures]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the whole matrix be asked for."""
    parser.addoption("--matrix", action="store_true", help="run every cell of the fault matrix, not one for each group")


def pytest_configure(config: pytest.Config) -> None:
    """Have a place for the figures."""
    config.stash[FIGURES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was measured, a line for each cell."""
    figures = config.stash.get(FIGURES, [])
    if not figures:
        return
    terminalreporter.section("fault matrix")
    terminalreporter.write_line(
        f"{'cell':<38} {'end':<15} {'seconds':>7} {'max stall':>9} {'told after':>10} {'rows':>5} {'lost':>4}"
    )
    for each in figures:
        told = f"{each.interrupted:.1f}" if each.interrupted is not None else "-"
        lost = "?" if each.lost is None else str(each.lost)
        terminalreporter.write_line(
            f"{each.cell:<38} {each.end:<15} {each.seconds:>7.1f} {each.stall:>9.2f} {told:>10} "
            f"{each.acknowledged:>5} {lost:>4}"
        )
        if each.said:
            terminalreporter.write_line(f"    {each.said}")


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


@pytest.fixture(scope="session")
def world() -> Iterator[FaultWorld]:
    """The world, taken down whatever happens."""
    made = FaultWorld(Path(tempfile.mkdtemp(prefix="lifeboat-faults-")))
    try:
        made.begin()
        yield made
    finally:
        made.finish()
        shutil.rmtree(made.folder, ignore_errors=True)
