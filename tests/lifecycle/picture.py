"""The picture of every transition of a server, drawn from the table of them: it is on the page about concepts.

`python -m tests.lifecycle.picture` draws it there anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from lifeboat.api.protectedserver import ProtectedServerPhase as Phase
from lifeboat.lifecycle.phases import TRANSITIONS

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "concepts.md"
BEGIN: Final = "<!-- Drawn by `python -m tests.lifecycle.picture`; do not edit. -->\n\n"
END: Final = "<!-- End of what is drawn. -->"

GROUPS: Final[Mapping[str, tuple[Phase, ...]]] = {
    "Copying": (Phase.STARTING_REPLICATION, Phase.FULL_SYNC, Phase.REPLICATING, Phase.INTERRUPTED, Phase.RESYNCING),
    "CopyingBack": (
        Phase.STARTING_REVERSE_REPLICATION,
        Phase.REVERSE_FULL_SYNC,
        Phase.REVERSE_REPLICATING,
        Phase.REVERSE_INTERRUPTED,
        Phase.REVERSE_RESYNCING,
    ),
}
"""Phases of which each may follow each other one: drawn as one box without arrows in it."""


def arrows(transitions: Mapping[Phase, Collection[Phase]]) -> Iterator[tuple[str, str]]:
    """The arrows, each group in place of its phases where an arrow is one of all of them."""
    pairs = {(before, after) for before, all_after in transitions.items() for after in all_after if before != after}
    for members in GROUPS.values():
        inside = {(before, after) for before in members for after in members if before != after}
        assert inside <= pairs, "phases of a group have to follow each other"
        pairs -= inside
    found = {(before.value, after.value) for before, after in pairs}
    for group, members in GROUPS.items():
        names = [member.value for member in members]
        for other in {before for before, _ in found}:
            if all((other, name) in found for name in names):
                found = found - {(other, name) for name in names} | {(other, group)}
        for other in {after for _, after in found}:
            if all((name, other) in found for name in names):
                found = found - {(name, other) for name in names} | {(group, other)}
    order = [*GROUPS, *(phase.value for phase in Phase)]
    yield from sorted(found, key=lambda arrow: (order.index(arrow[0]), order.index(arrow[1])))


def picture() -> str:
    """The picture as it has to be on the page."""
    lines = ["stateDiagram-v2"]
    for group, members in GROUPS.items():
        lines += [f"    state {group} {{", *(f"        {member.value}" for member in members), "    }"]
    lines += [f"    {before} --> {after}" for before, after in arrows(TRANSITIONS)]
    return "```mermaid\n" + "\n".join(lines) + "\n```\n"


def drawn(page: str) -> str:
    """The page with the picture as it is now."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} has no place for the picture")
    return f"{before}{begin}{picture()}\n{end}{after}"


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
