"""The page of measurements: the tables of the last run between two marks, and its charts beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt

from bench.results import Chart, Figure, Lines, Measured, Samples

BEGIN: Final = "<!-- measured: from here on, `make bench` writes -->"
END: Final = "<!-- measured: until here -->"


def write(folder: Path, machine: Mapping[str, Any], parts: Mapping[str, tuple[str, Measured, float]]) -> None:
    """Draw the charts, and put the tables into the page, whose words outside of the marks stay.

    `parts` is, by name: what the part measures, what it found, and how many seconds it took.
    """
    for _, measured, _ in parts.values():
        for chart in measured.charts:
            draw(chart, folder / f"{chart.name}.png")
    page = folder / "README.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{tables(machine, parts)}\n{END}{after}", encoding="utf-8")


def tables(machine: Mapping[str, Any], parts: Mapping[str, tuple[str, Measured, float]]) -> str:
    """The tables of all parts, in Markdown."""
    words = [f"Measured on {machine['name']}. {machine['software']}.\n"]
    for name, (about, measured, seconds) in parts.items():
        words += [f"### {about}\n", f"`make bench-{name}`, {seconds:.0f} s.\n"]
        words += ["| What | Measured | Baseline | Ratio | Target | |", "|---|---|---|---|---|---|"]
        words += [row(each) for each in measured.figures]
        words.append("")
        words += [f"{note}\n" for note in measured.notes]
        words += [f"![{chart.title}]({chart.name}.png)\n" for chart in measured.charts]
    return "\n".join(words)


def row(figure: Figure) -> str:
    """A figure as a row of a table."""
    baseline = f"{_number(figure.baseline)} {figure.unit}, {figure.against}" if figure.baseline is not None else ""
    ratio = f"{figure.ratio:.2f} times" if figure.ratio is not None else ""
    target = ", ".join(each.told(figure.unit) for each in figure.targets)
    verdict = ("missed" if figure.missed else "met") if figure.targets else ""
    return f"| {figure.what} | {_number(figure.value)} {figure.unit} | {baseline} | {ratio} | {target} | {verdict} |"


def draw(chart: Chart, file: Path) -> None:
    """Draw a chart into a PNG file."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    match chart:
        case Samples():
            names = list(chart.samples)
            axes.boxplot([list(chart.samples[name]) for name in names], tick_labels=names, whis=(0, 100))
            for place, name in enumerate(names, start=1):
                axes.plot([place] * len(chart.samples[name]), chart.samples[name], ".", alpha=0.5)
            axes.set_ylabel(chart.unit)
            axes.set_ylim(bottom=0)
        case Lines():
            for name, points in chart.lines.items():
                axes.plot([x for x, _ in points], [y for _, y in points], marker="o", markersize=3, label=name)
            axes.set_xlabel(chart.x)
            axes.set_ylabel(chart.y)
            axes.set_ylim(bottom=0)
            axes.legend()
    axes.set_title(chart.title)
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(file, dpi=100, metadata={"Software": None})
    plt.close(figure)


def _number(value: float) -> str:
    """Three digits that count."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
