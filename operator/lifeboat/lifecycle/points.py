"""The recovery point policy: when a point is due, which ones have to go, and which one a string means.

Tiers divide time into slots of `every`, counted from the epoch, so an hourly tier takes its point on the hour. A tier
keeps the first point of each of its slots for `for`. Age is counted from the newest point, not from now: when no new
points can be taken, the old ones stay.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lifeboat.api import values
from lifeboat.api.names import ATTEMPT_PREFIX, CURRENT, LATEST, LATEST_APPLICATION_CONSISTENT
from lifeboat.api.protectedserver import Tier
from lifeboat.engines.facts import Fact, Known, Point, Replica
from lifeboat.engines.ledger import FailoverRecord, Ledger
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.view import Notice


def _slot(time: datetime, every: timedelta) -> int:
    return math.floor(time.timestamp() / every.total_seconds())


def finest(tiers: Sequence[Tier]) -> timedelta:
    """How often a point is taken."""
    return min(tier.every for tier in tiers)


def due(tiers: Sequence[Tier], points: Sequence[Point], now: datetime) -> bool:
    """Whether a point has to be taken now: the newest one is of an earlier slot of the finest tier."""
    every = finest(tiers)
    return all(_slot(point.time, every) < _slot(now, every) for point in points)


def wants_application_consistency(tiers: Sequence[Tier], points: Sequence[Point], now: datetime) -> bool:
    """Whether the point that is due now starts a slot of a tier that asks for frozen file systems."""
    frozen = [point for point in points if point.application_consistent]
    return any(
        tier.application_consistent and all(_slot(p.time, tier.every) < _slot(now, tier.every) for p in frozen)
        for tier in tiers
    )


def name_for(now: datetime) -> str:
    """The name of a point taken now: a DNS label that sorts by time and says it."""
    return now.strftime("rp-%Y%m%d-%H%M%S")


def surplus(tiers: Sequence[Tier], points: Sequence[Point], wanted: Collection[str] = ()) -> tuple[str, ...]:
    """The names of the points that no tier keeps and nothing uses, oldest first. The newest point always stays.

    `wanted` are those that a drill was promised and does not stand on yet.
    """
    ordered = sorted(points, key=lambda point: point.time)
    if not ordered:
        return ()
    newest = ordered[-1]
    kept = {newest.name, *wanted}
    for tier in tiers:
        slots = max(1, math.floor(tier.keep_for / tier.every))
        oldest_slot = _slot(newest.time, tier.every) - slots + 1
        taken: set[int] = set()
        for point in ordered:
            slot = _slot(point.time, tier.every)
            if tier.application_consistent and not point.application_consistent:
                continue
            if slot >= oldest_slot and slot not in taken:
                taken.add(slot)
                kept.add(point.name)
    return tuple(p.name for p in ordered if p.name not in kept and not p.used_by and not p.held)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a recoveryPoint string means now: a point, or the kept disks of attempt `disks_of`."""

    point: str
    time: datetime
    application_consistent: bool = False
    disks_of: int | None = None
    current: bool = False


def resolve(requested: str, points: Sequence[Point]) -> Resolved | Notice:
    """Find the point that `latest`, `latest-application-consistent`, a name or an RFC 3339 time means."""
    usable = sorted((p for p in points if p.problem is None), key=lambda p: p.time)
    if requested == LATEST:
        if not usable:
            return _none_yet("there is no recovery point yet")
        return _resolved(usable[-1])
    if requested == LATEST_APPLICATION_CONSISTENT:
        frozen = [p for p in usable if p.application_consistent]
        if not frozen:
            return _none_yet(
                "there is no application-consistent recovery point; ask for 'latest', or for a point's name"
            )
        return _resolved(frozen[-1])
    moment = _time(requested)
    if moment is not None:
        earlier = [p for p in usable if p.time <= moment]
        if not earlier:
            oldest = f"the oldest is of {usable[0].time:%Y-%m-%dT%H:%M:%SZ}" if usable else "there are none yet"
            return Notice(
                reasons.UNKNOWN_POINT, f"no recovery point is as old as {requested}: {oldest}; ask for a later time"
            )
        return _resolved(earlier[-1])
    named = next((p for p in points if p.name == requested), None)
    if named is None:
        names = ", ".join(p.name for p in reversed(usable[-5:])) or "none"
        return Notice(
            reasons.UNKNOWN_POINT,
            f"there is no recovery point {requested!r}; the newest are: {names} (see status.recoveryPoints)",
        )
    if named.problem is not None:
        return Notice(reasons.POINT_UNUSABLE, f"recovery point {named.name} cannot be used: {named.problem}")
    return _resolved(named)


def resolve_for_failover(
    requested: str, replica: Replica, ledger: Ledger, record: FailoverRecord | None, now: datetime
) -> Resolved | Notice:
    """Like `resolve`, and also `current` (once, only of a consistent replica) and `attempt-<n>`."""
    if requested == CURRENT:
        if record is not None:
            if record.current_used or record.tip is None:
                return Notice(
                    reasons.CURRENT_USED,
                    "'current' can be used once in a failover, at its start; "
                    f"ask for the frozen tip by its name ({record.tip}), or for another point"
                    if record.tip
                    else "the replica was not consistent when this failover began, so there is no 'current'; "
                    "ask for 'latest' or for a point's name",
                )
            return _current_of(record, replica.points)
        if not replica.consistent:
            return Notice(
                reasons.NOT_CONSISTENT,
                "the replica is not consistent now, 'current' would be broken data; ask for 'latest' (the newest "
                "consistent state that is kept), for a point's name or for a time",
            )
        return Resolved(tip_name(ledger), now, current=True)
    if requested.startswith(ATTEMPT_PREFIX) and requested.removeprefix(ATTEMPT_PREFIX).isdigit():
        number = int(requested.removeprefix(ATTEMPT_PREFIX))
        earlier = next((a for a in record.attempts if a.number == number), None) if record else None
        if earlier is None:
            return Notice(reasons.UNKNOWN_ATTEMPT, f"there is no attempt {number}; status.history lists them")
        if earlier.launched_at is None:
            return Notice(reasons.UNKNOWN_ATTEMPT, f"attempt {number} was never started, so it has no disks")
        return Resolved(earlier.point, earlier.point_time, earlier.application_consistent, disks_of=earlier.disks_of)
    return resolve(requested, replica.points)


def consistent(replica: Fact[Replica]) -> bool:
    """Whether what is on the replica now is known to be a state that the source's disks really had."""
    return isinstance(replica, Known) and replica.value.consistent


def tip_name(ledger: Ledger) -> str:
    """The name under which the replica is frozen at the next failover."""
    return f"tip-{ledger.epoch + 1}"


def minus(moment: datetime, seconds: float) -> datetime:
    """The moment so many seconds earlier."""
    return moment - timedelta(seconds=seconds)


def _current_of(record: FailoverRecord, points: Sequence[Point]) -> Resolved | Notice:
    tip = next((p for p in points if p.name == record.tip), None)
    if tip is None or tip.problem is not None:
        return Notice(reasons.POINT_UNUSABLE, "the frozen tip cannot be read; ask for another point")
    return Resolved(tip.name, tip.time, current=True)


def _resolved(point: Point) -> Resolved:
    return Resolved(point.name, point.time, point.application_consistent)


def _none_yet(message: str) -> Notice:
    return Notice(reasons.NO_RECOVERY_POINT, message, stalled=False)


def _time(text: str) -> datetime | None:
    try:
        return values.parse_time(text)
    except ValueError:
        return None
