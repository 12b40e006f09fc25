"""One server with all that is known of it, and what may be asked of it now, with the words to ask it in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from rich.console import RenderableType
from rich.text import Text

from lifeboat.api.common import Condition, Result
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover, FailoverPhase
from lifeboat.api.names import RESTARTED_AT
from lifeboat.api.protectedserver import Consistency, PointState, ProtectedServer, RecoveryPoint
from lifeboat.cli import overview, paint, rows
from lifeboat.cli.client import Snapshot
from lifeboat.cli.paint import Mood, Row, Rows, cell
from lifeboat.lifecycle.conditions import READY, find
from lifeboat.lifecycle.operations import Operation

_TWINS: Final = frozenset({"Reconciling", "Stalled"})
"""Conditions that say why Ready is false, in Ready's words; all is well while they are not true."""

_ENDED: Final = (FailoverPhase.COMMITTED, FailoverPhase.COMPLETED, FailoverPhase.ROLLED_BACK, FailoverPhase.FAILED)


def detail(snapshot: Snapshot, server: ProtectedServer) -> list[RenderableType]:
    """The parts of the screen that tells of one server."""
    now, metadata = snapshot.now, server.metadata
    mine = (metadata.namespace, metadata.name)
    drills = [each for each in snapshot.drills if (each.metadata.namespace, each.spec.server_ref.name) == mine]
    failovers = [each for each in snapshot.failovers if (each.metadata.namespace, each.spec.server_ref.name) == mine]
    parts = [*_head(snapshot, server), *overview.warnings(snapshot)]
    if failovers:
        parts += paint.section("Failovers", rows.failovers(failovers, now, rows.plainly))
        for failover in failovers:
            parts += _history(failover)
    if drills:
        parts += paint.section("Drills", rows.drills(drills, now, rows.plainly))
    for failover in failovers:
        parts += _proof(failover)
    for drill in drills:
        parts += _proof(drill)
    points = server.status.recovery_points
    parts += paint.section(
        f"Recovery points ({len(points)})",
        _points(points, now),
        "none",
    )
    parts += paint.section("Conditions", _conditions(server.status.conditions, now), rows.UNSEEN)
    return [*parts, *_operations(server, failovers)]


def _head(snapshot: Snapshot, server: ProtectedServer) -> list[RenderableType]:
    status, reference = server.status, server.spec.site_pair_ref.name
    pair = next(
        (
            each
            for each in snapshot.pairs
            if (each.metadata.namespace, each.metadata.name) == (server.metadata.namespace, reference)
        ),
        None,
    )
    zones = f"{pair.spec.primary.zone} → {pair.spec.recovery.zone}" if pair else "which does not exist"
    ready = find(status.conditions, READY)
    facts: list[tuple[str, Text | None]] = [
        ("State", _state(server, ready)),
        ("Copy", rows.progress(server)),
        ("Lag", cell(paint.span(status.lag_seconds)) if status.lag_seconds is not None else None),
        ("Active site", rows.served_from(server)),
        ("Recovered as", _recovered(server)),
        ("Failover", _failover(server)),
        ("Points", cell(rows.points_summary(server, snapshot.now))),
        ("Server", _hardware(server)),
        ("Site pair", cell(f"{reference}, {zones}")),
    ]
    lines: list[RenderableType] = [
        Text.assemble(
            (server.metadata.name, paint.HEADING),
            (f"  server {server.spec.server_id}  namespace {server.metadata.namespace}", paint.QUIET),
            (f"  {snapshot.now:%Y-%m-%d %H:%M:%S} UTC", paint.QUIET),
        )
    ]
    for title, value in facts:
        if value is not None:
            lines.append(paint.indented(Text.assemble((f"{title:<14}", paint.QUIET), value)))
    return lines


def _state(server: ProtectedServer, ready: Condition | None) -> Text:
    found = rows.mood(server)
    line = Text.assemble(found.text(), "  ", (str(server.status.phase or ""), paint.HEADING))
    if ready is not None and found is not Mood.OK:
        line = Text.assemble(line, "  ", paint.told(ready.reason, ready.message))
    return line


def _recovered(server: ProtectedServer) -> Text | None:
    found = server.status.recovered_server
    if found is None:
        return None
    zone = f" in {found.zone}" if found.zone else ""
    return cell(f"{found.id}{zone}{', ' if found.addresses else ''}{', '.join(found.addresses)}")


def _failover(server: ProtectedServer) -> Text | None:
    found = find(server.status.conditions, "FailoverReady")
    if found is None or not rows.failover_ready(server).plain.strip("-"):
        return None
    why = "" if found.status == "True" else f": {paint.clean(found.message)}"
    return Text.assemble(rows.failover_ready(server), why)


def _hardware(server: ProtectedServer) -> Text:
    found = server.status.server
    if found is None:
        return cell(None)
    disks = ", ".join(
        f"{disk.name} {paint.size(disk.size_bytes)}" if disk.size_bytes else disk.name for disk in found.disks
    )
    parts = [
        paint.count(found.cpu, "CPU") if found.cpu else "",
        f"{paint.size(found.memory)} memory" if found.memory else "",
        f"disks {disks}" if disks else "",
        f"addresses {', '.join(found.addresses)}" if found.addresses else "",
    ]
    return cell("; ".join(part for part in parts if part))


def _points(points: Iterable[RecoveryPoint], now: datetime) -> Rows:
    states = {PointState.AVAILABLE: "", PointState.IN_USE: "cyan", PointState.UNUSABLE: "yellow"}
    newest_first = sorted(points, key=lambda point: point.time, reverse=True)
    return Rows(
        ("POINT", "TIME (UTC)", "AGE", "CONSISTENCY", "STATE", "TESTED BY"),
        [
            Row(
                (
                    cell(point.name, paint.HEADING),
                    cell(f"{point.time:%Y-%m-%d %H:%M:%S}"),
                    cell(paint.ago(point.time, now)),
                    cell(point.consistency.lower(), "green" if point.consistency is Consistency.APPLICATION else ""),
                    cell(f"{point.state}: {point.reason}" if point.reason else point.state, states[point.state]),
                    cell(point.tested_by, "green"),
                )
            )
            for point in newest_first
        ],
        droppable=("AGE",),
    )


def _history(failover: Failover) -> list[RenderableType]:
    """The points that a failover tried; the one in use alone is no history."""
    if len(failover.status.history) < 2:
        return []
    return paint.section(
        f"Attempts of {failover.metadata.name}",
        Rows(
            ("ATTEMPT", "ASKED FOR", "POINT", "POINT TIME (UTC)", "STARTED", "ENDED"),
            [
                Row(
                    (
                        cell(each.attempt),
                        cell(each.recovery_point),
                        cell(each.point),
                        cell(f"{each.point_time:%Y-%m-%d %H:%M:%S}" if each.point_time else None),
                        cell(f"{each.started_at:%H:%M:%S}" if each.started_at else None),
                        cell(f"{each.ended_at:%H:%M:%S}" if each.ended_at else "in use"),
                    ),
                    notes=[paint.quiet(each.outcome)] if each.outcome else (),
                )
                for each in failover.status.history
            ],
        ),
    )


def _proof(each: Drill | Failover) -> list[RenderableType]:
    """What each check and the script found."""
    script = each.status.post_script
    lines = []
    for check in each.status.checks:
        words = {Result.PASSED: ("passed", "green"), Result.FAILED: ("failed", "bold red"), None: ("not yet", "cyan")}
        lines.append(Row((cell(check.name), cell(*words[check.result]), cell(check.message))))
    if script is not None:
        good, code = script.exit_code == 0, script.exit_code
        outcome = cell(f"exit code {code}" if code is not None else "runs", "green" if good else "yellow")
        output = (script.output or "").strip().splitlines()
        lines.append(Row((cell("(script)"), outcome, cell(output[-1] if output else None))))
    if not lines:
        return []
    return paint.section(f"Checks of {each.metadata.name}", Rows(("CHECK", "RESULT", "WHAT WAS SEEN"), lines))


def _conditions(conditions: Iterable[Condition], now: datetime) -> Rows:
    return Rows(
        ("CONDITION", "STATUS", "SINCE", "REASON"),
        [
            Row(
                (
                    cell(each.type),
                    cell(each.status, _condition_style(each)),
                    cell(paint.ago(each.last_transition_time, now)),
                    cell(each.reason),
                ),
                notes=() if each.type in _TWINS else [paint.quiet(each.message)],
            )
            for each in conditions
        ],
    )


def _condition_style(condition: Condition) -> str:
    if condition.status == "Unknown":
        return "yellow"
    if condition.type in _TWINS or condition.type == "SourceFenced":
        return paint.QUIET if condition.status == "False" else ""
    return "green" if condition.status == "True" else "yellow"


def _operations(server: ProtectedServer, failovers: Iterable[Failover]) -> list[RenderableType]:
    allowed = server.status.allowed_operations
    parts = paint.section("What may be asked now", None, "" if allowed else "nothing, until the operator knows more")
    if not allowed:
        return parts
    open_one = next((each.metadata.name for each in failovers if each.status.phase not in _ENDED), "<failover>")
    width = max(map(len, allowed))
    for operation in allowed:
        line = Text(" " * paint.INDENT, no_wrap=True, overflow="ignore")  # a command that is broken cannot be copied
        line.append(f"{operation:<{width}}{paint.GAP}", style=paint.HEADING)
        line.append(paint.clean(how_to_ask(operation, server, open_one)))
        parts.append(line)
    note = "Where the manifests are in Git, make the edit there."
    return [*parts, paint.indented(paint.quiet(note))]


def how_to_ask(operation: str, server: ProtectedServer, failover: str) -> str:
    """The command, or the object, that asks for an operation."""
    name, namespace = server.metadata.name, server.metadata.namespace
    match operation:
        case Operation.START_REPLICATION:
            return _patch("protectedserver", name, namespace, {"replication": {"enabled": True}})
        case Operation.STOP_REPLICATION:
            return _patch("protectedserver", name, namespace, {"replication": {"enabled": False}})
        case Operation.RESTART:
            when = "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
            return f"kubectl annotate --overwrite -n {namespace} protectedserver {name} {RESTARTED_AT}={when}"
        case Operation.DRILL:
            return f"create a Drill with spec.serverRef.name: {name}"
        case Operation.FAILOVER:
            return f"create a Failover with spec.serverRef.name: {name}"
        case Operation.CHANGE_RECOVERY_POINT:
            return _patch("failover", failover, namespace, {"recoveryPoint": "<point>"})
        case Operation.COMMIT:
            return f"{_patch('failover', failover, namespace, {'commit': True})}  # cannot be taken back"
        case Operation.ROLLBACK:
            return _patch("failover", failover, namespace, {"rollback": True})
        case Operation.REVERSE_REGISTER:
            return _patch("protectedserver", name, namespace, {"replication": {"direction": "Reverse"}})
        case Operation.FAILBACK:
            return f"create a Failover with spec.type: Failback and spec.serverRef.name: {name}"
        case Operation.REGISTER:
            # What consented to a wipe on the way back has to go with it.
            forward = {"direction": "Forward", "originalMachine": None, "confirmWipe": None}
            return _patch("protectedserver", name, namespace, {"replication": forward})
        case _:
            return ""


def _patch(kind: str, name: str, namespace: str, spec: Mapping[str, Any]) -> str:
    patch = json.dumps({"spec": spec}, separators=(",", ":"))
    return f"kubectl patch -n {namespace} {kind} {name} --type merge -p '{patch}'"
