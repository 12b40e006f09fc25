"""Gauges that belong to objects, kept as the lines in which Prometheus is told them.

With thousands of servers few change between two scrapes. To make each line anew at each scrape would hold up the event
loop, and so everything that the operator does, for seconds; to join lines that are there takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lifeboat.world import Key


class ObjectGauge:
    """A gauge with the labels `name` and `namespace` of the object that a series belongs to, and more of its own."""

    def __init__(self, name: str, meaning: str, *more: str) -> None:
        self.name = name
        self.meaning = meaning
        self.more = more
        self._lines: dict[Key, str] = {}

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of all labels."""
        return ("namespace", "name", *self.more)

    def tell(self, key: Key, value: float | None, *more: str) -> None:
        """Make this the only series of the object; None takes it away."""
        self.tell_all(key, {} if value is None else {more: value})

    def tell_all(self, key: Key, values: Mapping[tuple[str, ...], float]) -> None:
        """Make these the series of the object, by the values of its further labels."""
        if values:
            self._lines[key] = "".join(self._line(key, more, value) for more, value in values.items())
        else:
            self._lines.pop(key, None)

    def clear(self) -> None:
        """Take all series away."""
        self._lines.clear()

    def text(self) -> str:
        """All series in Prometheus' text format."""
        head = f"# HELP {self.name} {self.meaning}\n# TYPE {self.name} gauge\n"
        return head + "".join(self._lines.values())

    def _line(self, key: Key, more: Sequence[str], value: float) -> str:
        given = {"name": key.name, "namespace": key.namespace, **dict(zip(self.more, more, strict=True))}
        pairs = ",".join(f'{label}="{_escaped(given[label])}"' for label in sorted(given))
        return f"{self.name}{{{pairs}}} {float(value)!r}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
