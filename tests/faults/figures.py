"""What was measured in the cells of the matrix, and the table of it at the end.

The figures travel with a test's report, because several processes may share the cells.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import pytest

_PROPERTY: Final = "cell"


@dataclass
class Figures:
    """What was measured in one cell. Times are seconds; `interrupted` is until the interruption was told.

    `acknowledged` counts the rows that the end was judged by, `lost` those of them that were not there.
    """

    cell: str
    end: str = "failed"
    seconds: float = 0.0
    stall: float = 0.0
    interrupted: float | None = None
    acknowledged: int = 0
    lost: int | None = None
    said: str = ""

    def attach(self, item: pytest.Item) -> None:
        """Let them travel with the test's report."""
        item.user_properties.append((_PROPERTY, asdict(self)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured, a line for each cell."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    figures = [
        Figures(**value)
        for report in reports
        if report.when == "call"
        for name, value in report.user_properties
        if name == _PROPERTY
    ]
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
    rows, lost_rows = sum(each.acknowledged for each in figures), sum(each.lost or 0 for each in figures)
    terminalreporter.write_line(f"{len(figures)} cells, {rows} acknowledged rows looked for, {lost_rows} lost")
