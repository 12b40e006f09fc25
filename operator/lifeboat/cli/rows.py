"""The lines that tell of one pair, server, drill or failover, alike in the overview and in the detail of a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeVar

from rich.text import Text

from lifeboat.api.common import ActiveSite, Condition, RecoveryStatus, Resource, Result
from lifeboat.api.drill import Drill, DrillPhase
from lifeboat.api.failover import Failover, FailoverPhase, FailoverType
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair
from lifeboat.cli import paint
from lifeboat.cli.paint import Mood, Row, Rows, cell
from lifeboat.lifecycle.conditions import READY, find

R = TypeVar("R", bound=Resource)
Naming = Callable[[Resource], str]

_ENDED_WELL: Final = (FailoverPhase.COMMITTED, FailoverPhase.COMPLETED, FailoverPhase.ROLLED_BACK)
_FRESH: Final = timedelta(hours=1)
_FRESH_FAILURE: Final = timedelta(hours=24)
UNSEEN: Final = "no operator has looked at this yet; if that lasts, Lifeboat is not running or serves other namespaces"
LATE: Final = "the operator has not yet taken in the last edit"


def plainly(resource: Resource) -> str:
    """The name alone, where everything is of one namespace."""
    return resource.metadata.name


def with_namespace(resource: Resource) -> str:
    """The name with its namespace."""
    return f"{resource.metadata.namespace}/{resource.metadata.name}"


def mood(resource: Resource) -> Mood:
    """What the object asks of the reader."""
    match resource:
        case Failover():
            return _mood_of_recovery(resource, resource.status.phase, _ENDED_WELL)
        case Drill():
            return _mood_of_recovery(resource, resource.status.phase, (DrillPhase.CLEANED_UP,))
        case SitePair() | ProtectedServer():
            return paint.mood_of(resource.status.conditions)
        case _:
            return Mood.UNKNOWN


def _mood_of_recovery(resource: Drill | Failover, phase: object, ended_well: Sequence[object]) -> Mood:
    found = paint.mood_of(resource.status.conditions)
    if found is not Mood.OK:
        return found
    if phase in ended_well:
        return Mood.ENDED
    return Mood.YOUR_TURN if phase in (FailoverPhase.AWAITING_COMMIT, DrillPhase.RUNNING) else found


def urgent_first(resources: Iterable[R]) -> list[R]:
    """The objects in the order in which a person should look at them."""
    return sorted(resources, key=lambda each: (mood(each).urgency, with_namespace(each)))


def concerns_now(resource: Drill | Failover, now: datetime) -> bool:
    """Whether a drill or failover is under way, or ended so lately that somebody will look for it."""
    found, status = mood(resource), resource.status
    failed = status.phase in (DrillPhase.FAILED, FailoverPhase.FAILED)
    if found is not Mood.ENDED and not failed:
        return True
    ready = find(status.conditions, READY)
    moment = ready.last_transition_time if ready is not None else now
    return now - moment < (_FRESH_FAILURE if failed else _FRESH) or _may_still_serve(resource)


def _may_still_serve(resource: Drill | Failover) -> bool:
    """Whether the source of a confirmed failover is not known to be stopped, which stays news."""
    if not isinstance(resource, Failover) or resource.status.phase is not FailoverPhase.COMMITTED:
        return False
    fenced = find(resource.status.conditions, "SourceFenced")
    return resource.spec.type is FailoverType.FAILOVER and fenced is not None and fenced.status != "True"


def pairs(found: Iterable[SitePair], naming: Naming) -> Rows:
    """The table of site pairs."""
    headings = ("SITE PAIR", "STATE", "ZONES", "ENGINE", "SERVERS", "WORST LAG")
    return Rows(headings, [_pair(pair, naming) for pair in urgent_first(found)], droppable=("ENGINE", "WORST LAG"))


def _pair(pair: SitePair, naming: Naming) -> Row:
    servers, lag = pair.status.servers, pair.status.worst_lag_seconds
    return Row(
        (
            cell(naming(pair), paint.HEADING),
            mood(pair).text(),
            cell(f"{pair.spec.primary.zone} → {pair.spec.recovery.zone}"),
            cell(pair.status.engine or pair.spec.engine_name),
            cell(_counts(servers.total, servers.replicating, servers.failed_over, servers.faulty) if servers else None),
            cell(paint.span(lag) if lag is not None else None),
        ),
        notes=_notes(pair, pair.status.conditions, pair.status.observed_generation),
        brief=_brief(pair),
    )


def _counts(total: int, replicating: int, failed_over: int, faulty: int) -> str:
    parts = [(replicating, "replicating"), (failed_over, "failed over"), (faulty, "faulty")]
    told = ", ".join(f"{number} {what}" for number, what in parts if number)
    return f"{total}: {told}" if told else str(total)


def servers(found: Iterable[ProtectedServer], now: datetime, naming: Naming) -> Rows:
    """The table of servers."""
    headings = ("SERVER", "ID", "STATE", "PHASE", "LAG", "POINTS", "ACTIVE", "FAILOVER")
    return Rows(headings, [_server(server, now, naming) for server in urgent_first(found)], droppable=("ID",))


def _server(server: ProtectedServer, now: datetime, naming: Naming) -> Row:
    status = server.status
    notes = [copying] if (copying := progress(server)) is not None else []
    return Row(
        (
            cell(naming(server), paint.HEADING),
            cell(server.spec.server_id),
            mood(server).text(),
            cell(status.phase),
            cell(paint.span(status.lag_seconds) if status.lag_seconds is not None else None),
            cell(points_summary(server, now)),
            served_from(server),
            failover_ready(server),
        ),
        notes=[*notes, *_notes(server, status.conditions, status.observed_generation)],
        brief=_brief(server),
    )


def points_summary(server: ProtectedServer, now: datetime) -> str | None:
    """How many recovery points there are, and how old the newest is: what an unplanned failover would lose at most."""
    number, newest = server.status.recovery_point_count, server.status.latest_recovery_point_time
    if number is None:
        return None
    return f"{number}, {paint.ago(newest, now)} old" if newest is not None else str(number or "none")


def served_from(server: ProtectedServer) -> Text:
    """The site that serves the workload."""
    site = server.status.active_site
    match site:
        case ActiveSite.RECOVERY:
            return cell("recovery", "magenta")
        case ActiveSite.PRIMARY:
            return cell("primary")
        case ActiveSite.NONE:
            return cell("nowhere", "bold red")
        case ActiveSite.UNKNOWN:
            return cell("unknown", "yellow")
        case None:
            return cell(None)


def failover_ready(server: ProtectedServer) -> Text:
    """Whether a failover would be accepted now: the question of the bad day."""
    found = find(server.status.conditions, "FailoverReady")
    if found is None or server.status.active_site is ActiveSite.RECOVERY:
        return cell(None)
    words = {"True": ("ready", "green"), "False": ("not ready", "yellow"), "Unknown": ("unknown", "yellow")}
    return cell(*words[found.status])


def progress(server: ProtectedServer) -> Text | None:
    """How far a copy is, how fast it goes and how long it still takes, while there is one."""
    found = server.status.progress
    if found is None or found.percent is None or found.percent >= 100:
        return None
    parts = [f"{found.percent} %"]
    if found.seconds_left is not None:
        parts.append(f"{paint.span(found.seconds_left)} left")
    if found.copied_bytes is not None and found.total_bytes is not None:
        parts.append(f"{paint.size(found.copied_bytes)} of {paint.size(found.total_bytes)}")
    if found.bytes_per_second:
        parts.append(f"{paint.size(found.bytes_per_second)}/s")
    return Text.assemble(paint.bar(found.percent), (f"  {'  '.join(parts)}", "cyan"))


def drills(found: Iterable[Drill], now: datetime, naming: Naming) -> Rows:
    """The table of drills."""
    return _recoveries("DRILL", urgent_first(found), now, naming)


def failovers(found: Iterable[Failover], now: datetime, naming: Naming) -> Rows:
    """The table of failovers."""
    return _recoveries("FAILOVER", urgent_first(found), now, naming)


def _recoveries(what: str, found: Iterable[Drill | Failover], now: datetime, naming: Naming) -> Rows:
    headings = (what, "SERVER", "STATE", "PHASE", "POINT", "POINT AGE", "CHECKS", "RTO", "ADDRESS")
    return Rows(headings, [_recovery(each, now, naming) for each in found], droppable=("POINT",))


def _recovery(each: Drill | Failover, now: datetime, naming: Naming) -> Row:
    status, point = each.status, each.status.recovery_point
    age = point.age_seconds if point is not None else None
    failback = isinstance(each, Failover) and each.spec.type is FailoverType.FAILBACK
    return Row(
        (
            cell(naming(each), paint.HEADING),
            cell(each.spec.server_ref.name),
            mood(each).text(),
            cell(f"{status.phase} (failback)" if status.phase and failback else status.phase),
            cell((point.name if point is not None else None) or each.spec.recovery_point),
            cell(paint.span(age) if age is not None else None),
            checks_summary(each),
            rto(each, now),
            address(status),
        ),
        notes=_notes(each, status.conditions, status.observed_generation),
        brief=_brief(each),
    )


def checks_summary(each: Drill | Failover) -> Text:
    """What the checks have proved."""
    asked, found = len(each.spec.checks), each.status.checks
    passed = sum(check.result is Result.PASSED for check in found)
    match each.status.result:
        case Result.PASSED:
            return cell(f"passed {passed}/{len(found)}" if found else "passed", "green")
        case Result.FAILED:
            return cell(f"failed, {passed}/{len(found)} passed" if found else "failed", "bold red")
        case None:
            return (
                cell(f"{passed} of {asked} so far", "cyan") if asked and mood(each) is Mood.IN_PROGRESS else cell(None)
            )


def rto(each: Drill | Failover, now: datetime) -> Text:
    """The recovery time: as measured, or how long it has taken so far."""
    timings = each.status.timings
    if timings is None:
        return cell(None)
    if timings.rto_seconds is not None:
        return cell(paint.precise(timings.rto_seconds))
    if timings.accepted_at is None or mood(each) not in (Mood.IN_PROGRESS, Mood.WAITING):
        return cell(None)
    return cell(f"{paint.ago(timings.accepted_at, now)} so far", "cyan")


def address(status: RecoveryStatus) -> Text:
    """Where to look at the recovered server: its link, else its elastic IP, else its address."""
    found = status.instance
    return cell((found.url or found.elastic_ip or found.ip_address) if found is not None else None)


def _brief(resource: Resource) -> bool:
    return mood(resource) in (Mood.IN_PROGRESS, Mood.OK, Mood.ENDED)


def _notes(resource: Resource, conditions: Sequence[Condition], observed: int | None) -> list[Text]:
    """Why an object is not ready, or what is to be done next; nothing where all is well."""
    found, ready = mood(resource), find(conditions, READY)
    if ready is None:
        return [Text(UNSEEN, style=Mood.UNKNOWN.style)]
    notes = []
    warns = isinstance(resource, Failover) and _may_still_serve(resource)
    if found is Mood.YOUR_TURN:
        message = Text(paint.clean(ready.message))
        message.highlight_regex(r"(?s)Take care:.*", "yellow")
        notes.append(message)
    elif found not in (Mood.OK, Mood.ENDED) or warns:
        style = found.style.removeprefix("bold ") if found is not Mood.IN_PROGRESS else ""
        notes.append(paint.told(ready.reason, ready.message, "yellow" if warns else style))
    if (observed or 0) < resource.metadata.generation:
        notes.append(Text(LATE, style=Mood.WAITING.style))
    return notes
