"""Everything at a glance: what needs a person first, then what moves, then what is well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.console import RenderableType
from rich.text import Text

from lifeboat.api.common import Resource
from lifeboat.api.protectedserver import ProtectedServerPhase
from lifeboat.cli import paint, rows
from lifeboat.cli.client import Snapshot
from lifeboat.cli.paint import Mood

_URGENT = (Mood.NEEDS_YOU, Mood.YOUR_TURN, Mood.WAITING, Mood.UNKNOWN, Mood.IN_PROGRESS)


def overview(snapshot: Snapshot) -> list[RenderableType]:
    """The parts of the screen that tells of everything."""
    now, naming = snapshot.now, rows.plainly if snapshot.namespace else rows.with_namespace
    failovers = [each for each in snapshot.failovers if rows.concerns_now(each, now)]
    drills = [each for each in snapshot.drills if rows.concerns_now(each, now)]
    parts: list[RenderableType] = [_title(snapshot), _summary(snapshot, [*failovers, *drills])]
    parts += warnings(snapshot)
    if failovers:
        parts += paint.section("Failovers", rows.failovers(failovers, now, naming))
    if drills:
        parts += paint.section("Drills", rows.drills(drills, now, naming))
    if snapshot.servers:
        parts += paint.section("Servers", rows.servers(snapshot.servers, now, naming))
    elif snapshot.pairs:
        parts += paint.section(
            "Servers", None, "none is protected yet: lifeboat inventory <pair> lists those that may be"
        )
    if snapshot.pairs:
        parts += paint.section("Site pairs", rows.pairs(snapshot.pairs, naming))
    earlier = len(snapshot.failovers) + len(snapshot.drills) - len(failovers) - len(drills)
    if earlier:
        ended = paint.count(earlier, "earlier drill or failover has", "earlier drills and failovers have")
        parts += [Text(""), paint.quiet(f"{ended} ended: lifeboat status <server> shows them")]
    return parts


def warnings(snapshot: Snapshot) -> list[RenderableType]:
    """What makes the rest of the screen doubtful."""
    found = [Text(paint.clean(problem), style=Mood.NEEDS_YOU.style) for problem in snapshot.unreadable]
    if snapshot.operator_silent is not None:
        found.insert(
            0,
            Text(
                f"▲ No operator has been there for {paint.span(snapshot.operator_silent.total_seconds())}: what "
                "follows is what it last saw, and nothing is acted on. Start it, or find out why its pod does not run",
                style=Mood.NEEDS_YOU.style,
            ),
        )
    return list(found)


def _title(snapshot: Snapshot) -> Text:
    where = f"namespace {snapshot.namespace}" if snapshot.namespace else "all namespaces"
    return Text.assemble(("Lifeboat", paint.HEADING), (f"  {where}  {snapshot.now:%Y-%m-%d %H:%M:%S} UTC", paint.QUIET))


def _summary(snapshot: Snapshot, recoveries: Iterable[Resource]) -> Text:
    """One sentence for whoever reads no further."""
    if not (snapshot.pairs or snapshot.servers or snapshot.failovers or snapshot.drills):
        hint = "; -A looks in all namespaces" if snapshot.namespace else ""
        return Text(f"Nothing is here yet: create a SitePair, then a ProtectedServer for each server{hint}")
    moods = Counter(map(rows.mood, (*snapshot.pairs, *snapshot.servers, *recoveries)))
    line = Text()
    for each in _URGENT:
        if moods[each]:
            line.append(f"{each.mark} {moods[each]} {each.word}", style=each.style)
            line.append("   ")
    if not line.plain:
        line.append(f"{Mood.OK.mark} All is well", style=Mood.OK.style)
        line.append("   ")
    replicating = sum(each.status.phase is ProtectedServerPhase.REPLICATING for each in snapshot.servers)
    line.append(f"{paint.count(len(snapshot.servers), 'server')}, {replicating} replicating", style=paint.QUIET)
    return line
