"""How things look in a terminal: one small vocabulary, so that every command reads the same.

Whoever reads this is tired. A state is a word beside its mark, never a colour alone; what needs a person comes first,
and its message is told in full, while what goes on by itself gets one line. Without a terminal the same lines come as
plain text, as wide as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import IO, Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.text import Text

from lifeboat.api.common import Condition
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.conditions import READY, STALLED, find

PLAIN_WIDTH: Final = 400
"""Wide enough that nothing is broken where nobody looks at columns."""

GAP: Final = "  "
INDENT: Final = 2
NOTE_INDENT: Final = 6
BAR_WIDTH: Final = 24

HEADING: Final = "bold"
QUIET: Final = "dim"

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_GOES_ON: Final = frozenset(
    {
        reasons.COPYING,
        reasons.DELETING,
        reasons.IN_PROGRESS,
        reasons.INITIALIZED,
        reasons.INSTALLING_AGENT,
        reasons.NOT_YET,
        reasons.RESYNCING,
        reasons.STOPPED,
    }
)
"""Reasons of a wait that is work under way; any other wait has an obstacle."""


class Mood(Enum):
    """What an object asks of the reader: word, mark and style, the most urgent first."""

    NEEDS_YOU = ("needs you", "▲", "bold red")
    YOUR_TURN = ("your turn", "▶", "bold magenta")
    WAITING = ("waiting", "◆", "yellow")
    UNKNOWN = ("unknown", "○", "yellow")
    IN_PROGRESS = ("in progress", "◐", "cyan")
    OK = ("ok", "●", "green")
    ENDED = ("ended", "◇", "dim")

    def __init__(self, word: str, mark: str, style: str) -> None:
        self.word = word
        self.mark = mark
        self.style = style

    @property
    def urgency(self) -> int:
        """Its place in an order that begins with what needs a person."""
        return list(Mood).index(self)

    def text(self) -> Text:
        """The mark and the word."""
        return Text(f"{self.mark} {self.word}", style=self.style)


def mood_of(conditions: Sequence[Condition]) -> Mood:
    """What the conditions of an object ask of the reader."""
    ready, stalled = find(conditions, READY), find(conditions, STALLED)
    if ready is None or ready.status == "Unknown":
        return Mood.UNKNOWN
    if stalled is not None and stalled.status == "True":
        return Mood.NEEDS_YOU
    if ready.status == "True":
        return Mood.OK
    return Mood.IN_PROGRESS if ready.reason in _GOES_ON else Mood.WAITING


def clean(text: str) -> str:
    """The text without control characters: what a guest printed must not steer the reader's terminal."""
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


def quiet(text: str) -> Text:
    """Text that is there for whoever looks for it."""
    return Text(clean(text), style=QUIET)


def cell(value: object, style: str = "") -> Text:
    """One line of a table; a dash where there is nothing."""
    text = clean(str(value)).replace("\n", " ") if value is not None else ""
    return Text(text, style=style) if text else Text("-", style=QUIET)


def told(reason: str, message: str, style: str = "") -> Text:
    """A reason and its message."""
    return Text.assemble((f"{clean(reason)}: ", f"{style} bold" if style else "bold"), (clean(message), style))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table, and what is to be said below it. `brief` notes are cut to one line in a terminal."""

    cells: Sequence[Text]
    notes: Sequence[Text] = ()
    brief: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """A table without lines.

    Where it is wider than the terminal, the `droppable` columns go, the first one first; where that is not enough,
    each row becomes a paragraph with everything in it.
    """

    headings: Sequence[str]
    rows: Sequence[Row]
    indent: int = INDENT
    droppable: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay out the table in the width that there is."""
        columns = self._columns(options.max_width)
        if columns:
            yield self._line([Text(heading, style=QUIET) for heading in self.headings], columns)
        for row in self.rows:
            yield self._line(row.cells, columns) if columns else self._paragraph(row.cells)
            for note in row.notes:
                brief = row.brief and console.is_terminal
                shown = Text.assemble(note, no_wrap=brief, overflow="ellipsis" if brief else "fold")
                yield indented(shown, NOTE_INDENT)

    def _columns(self, room: int) -> dict[int, int]:
        """The width of each column that is shown, by its number; none where they do not fit."""
        every = enumerate(zip(self.headings, *(row.cells for row in self.rows), strict=True))
        widths = {number: max(cell_len(str(each)) for each in column) for number, column in every}
        for heading in (None, *self.droppable):
            if heading is not None:
                del widths[self.headings.index(heading)]
            if self.indent + sum(widths.values()) + len(GAP) * (len(widths) - 1) <= room:
                return widths
        return {}

    def _line(self, cells: Sequence[Text], columns: Mapping[int, int]) -> Text:
        line = Text(" " * self.indent, no_wrap=True)
        for number, width in columns.items():
            line.append_text(cells[number])
            line.append(" " * (width - cells[number].cell_len) + GAP)
        line.rstrip()
        return line

    def _paragraph(self, cells: Sequence[Text]) -> RenderableType:
        parts = [cells[0]]
        for heading, each in zip(self.headings[1:], cells[1:], strict=True):
            if each.plain != "-":
                parts.append(Text.assemble((f"{heading.lower()} ", QUIET), each))
        return indented(Text(GAP).join(parts), self.indent)


def indented(text: Text, columns: int = INDENT) -> Padding:
    """Text that keeps its distance from the edge when it wraps."""
    return Padding(text, (0, 0, 0, columns), expand=False)


def section(title: str, table: Rows | None, empty: str = "") -> list[RenderableType]:
    """A title with its table, or with a word on why there is none."""
    parts: list[RenderableType] = [Text(""), Text(title, style=HEADING)]
    if table is not None and table.rows:
        parts.append(table)
    elif empty:
        parts.append(indented(quiet(empty)))
    return parts


def bar(percent: int, width: int = BAR_WIDTH) -> Text:
    """How far a copy is, as a line that fills."""
    done = max(0, min(width, percent * width // 100))
    return Text.assemble(("━" * done, "cyan"), ("─" * (width - done), QUIET))


def span(seconds: float) -> str:
    """A length of time as people say it."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 10 and rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d"


def precise(seconds: float) -> str:
    """A length of time that was measured: a recovery time to the tenth of a second."""
    return f"{seconds:.1f} s" if seconds < 60 else span(seconds)


def ago(moment: datetime | None, now: datetime) -> str | None:
    """How long ago a moment was."""
    return span((now - moment).total_seconds()) if moment is not None else None


def size(number: float) -> str:
    """Bytes as people say them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number of things."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Iterable[str], limit: int = 10) -> str:
    """Names with commas, and how many more there are."""
    every = sorted(names)
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more


def console_for(stream: IO[str]) -> Console:
    """The console to print on: the terminal as it is, or plain text where there is none."""
    console = Console(file=stream, highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def show(console: Console, parts: Iterable[RenderableType]) -> None:
    """Print the parts; without a terminal, in characters that any program can read."""
    if console.is_terminal and console.encoding.startswith("utf"):
        console.print(Group(*parts), crop=False)  # a group, since `print` joins texts and forgets how each wraps
        return
    with console.capture() as captured:
        console.print(Group(*parts), crop=False)
    for line in captured.get().splitlines():
        words = _MARKED.sub(r"\g<word>  ", line)  # the column keeps its width
        console.file.write(f"{_MARK.sub('', words).translate(_PLAIN).rstrip()}\n")
    console.file.flush()


_MARKS: Final = f"[{''.join(mood.mark for mood in Mood)}]"
_MARK: Final = re.compile(f"{_MARKS} ")
_MARKED: Final = re.compile(f"{_MARKS} (?P<word>{'|'.join(mood.word for mood in Mood)})")
_PLAIN: Final = str.maketrans({"━": "#", "─": ".", "→": ">"})
