"""What `lifeboat status` shows, from recorded objects: the right thing first, in words that need no colour."""

import io
from dataclasses import replace
from datetime import timedelta

import pytest
from rich.console import Console

from lifeboat import kube
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair
from lifeboat.cli import client, paint, rows
from lifeboat.cli.client import Failure, Snapshot
from lifeboat.cli.detail import how_to_ask
from lifeboat.cli.paint import Mood
from lifeboat.cli.status import find_server, screen
from lifeboat.lifecycle.operations import Operation
from tests.unit import cli_world as day


def plain(snapshot: Snapshot, name: str | None = None) -> str:
    """What goes into a pipe."""
    stream = io.StringIO()
    paint.show(paint.console_for(stream), screen(snapshot, name))
    return stream.getvalue()


def terminal(snapshot: Snapshot, name: str | None = None, width: int = 120, *, color: bool = False) -> str:
    """What is seen in a terminal."""
    stream = io.StringIO()
    console = Console(
        file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8"),
        width=width,
        force_terminal=True,
        color_system="256" if color else None,
        highlight=False,
    )
    with console.capture() as captured:
        paint.show(console, screen(snapshot, name))
    stream.write(captured.get())
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


OVERVIEW = """\
Lifeboat  namespace shop  2026-01-31 12:00:00 UTC
▶ 1 your turn   ○ 1 unknown   ◐ 2 in progress   3 servers, 1 replicating

Failovers
  FAILOVER  SERVER  STATE        PHASE           POINT  POINT AGE  CHECKS      RTO    ADDRESS
  fire      db      ▶ your turn  AwaitingCommit  tip-2  4 s        passed 2/2  7.2 s  http://127.0.10.5:8080/
      the server runs from point tip-2, 4 s old when it was chosen; verify it, then set commit: true, or change
      recoveryPoint, or set rollback: true. Take care: the source may still be serving: zone zone-a does not answer; it
      is fenced first thing when its site answers

Drills
  DRILL   SERVER  STATE          PHASE      POINT   POINT AGE  CHECKS         RTO          ADDRESS
  monday  web     ◐ in progress  Verifying  p-1000  12 min     0 of 1 so far  41 s so far  10.2.0.10
      InProgress: the server runs; its script and checks are under way

Servers
  SERVER  ID     STATE          PHASE        LAG  POINTS         ACTIVE    FAILOVER
  files   nas-3  ◐ in progress  FullSync     -    none           primary   not ready
      ━━━━━━━━━━━━━━──────────  62 %  2 min 1 s left  12.4 GiB of 20.0 GiB  64.0 MiB/s
      Copying: all data is being copied
  db      db-1   ● ok           FailedOver   -    24, 4 min old  recovery  -
  web     web-1  ● ok           Replicating  0 s  3, 12 min old  primary   ready

Site pairs
  SITE PAIR  STATE      ZONES            ENGINE  SERVERS                          WORST LAG
  north      ○ unknown  zone-a → zone-b  qemu    3: 1 replicating, 1 failed over  0 s
      SiteSilent: zone zone-a: zone zone-a does not answer. A failover needs the recovery zone only

1 earlier drill or failover has ended: lifeboat status <server> shows them"""


def test_the_overview_of_the_bad_day() -> None:
    assert terminal(day.DAY) == OVERVIEW


def test_without_a_terminal_it_is_text_that_any_program_reads() -> None:
    shown = plain(day.DAY)
    assert shown.isascii()
    assert "\x1b" not in shown
    rows_shown = shown.splitlines()
    assert rows_shown[1] == "1 your turn   1 unknown   2 in progress   3 servers, 1 replicating"
    heading = next(line for line in rows_shown if line.startswith("  SERVER"))
    web = next(line for line in rows_shown if line.startswith("  web"))
    assert web[heading.index("PHASE") :].startswith("Replicating")
    assert "##############..........  62 %" in shown
    assert max(map(len, rows_shown)) > 200  # a message is one line, whatever its length


def test_a_terminal_gets_colour() -> None:
    assert "\x1b[" in terminal(day.DAY, color=True)


def test_in_a_narrow_terminal_less_important_columns_go_and_nothing_else_is_lost() -> None:
    shown = terminal(day.DAY, width=80)
    assert max(map(len, shown.splitlines())) <= 80
    assert "  web     ● ok           Replicating  0 s  3, 12 min old  primary   ready" in shown
    together = " ".join(shown.split())
    assert "fire server db state ▶ your turn phase AwaitingCommit point tip-2" in together
    assert "address http://127.0.10.5:8080/" in together
    assert "it is fenced first thing when its site answers" in together


def test_what_needs_a_person_comes_first() -> None:
    broken = day.server(
        "zeta", phase="InstallingAgent", conditions=day.stalled("UnknownServer", "zone-a has no zeta-1")
    )
    held = day.server("alpha", phase="Interrupted", conditions=day.busy("Interrupted", "replication is interrupted"))
    shown = plain(replace(day.DAY, servers=(held, day.WEB, broken), failovers=(), drills=()))
    assert "1 needs you" in shown
    assert shown.index("zeta") < shown.index("alpha") < shown.index("\n  web")
    assert "UnknownServer: zone-a has no zeta-1" in shown


def test_all_is_well_is_said_in_one_line() -> None:
    shown = plain(Snapshot(day.NOW, "shop", pairs=(day.pair(),), servers=(day.WEB,)))
    assert shown.splitlines()[1] == "All is well   1 server, 1 replicating"
    assert ": every write" not in shown


def test_nothing_yet_says_how_to_begin() -> None:
    assert "create a SitePair" in plain(Snapshot(day.NOW, "shop"))
    assert "-A looks in all namespaces" in plain(Snapshot(day.NOW, "shop"))
    assert "-A" not in plain(Snapshot(day.NOW, None))
    assert "lifeboat inventory <pair>" in plain(Snapshot(day.NOW, "shop", pairs=(day.pair(),)))


def test_all_namespaces_are_told_apart() -> None:
    shown = plain(replace(day.DAY, namespace=None, servers=(day.WEB, day.server("web", namespace="bank"))))
    assert "shop/web" in shown
    assert "bank/web" in shown


def test_an_operator_that_is_not_there_is_said_before_all_else() -> None:
    shown = plain(replace(day.DAY, operator_silent=timedelta(hours=3)))
    assert shown.splitlines()[2].startswith("No operator has been there for 3 h: what follows is what it last saw")


def test_an_object_that_no_operator_has_looked_at() -> None:
    fresh = day.failover("fire", "db", observedGeneration=None)
    shown = plain(Snapshot(day.NOW, "shop", failovers=(fresh,)))
    assert rows.UNSEEN in shown


def test_an_edit_that_was_not_taken_in_yet() -> None:
    edited = day.WEB.model_copy(update={"metadata": day.WEB.metadata.model_copy(update={"generation": 2})})
    assert rows.LATE in plain(Snapshot(day.NOW, "shop", servers=(edited,)))


def test_what_a_guest_printed_does_not_steer_the_terminal() -> None:
    evil = day.drill("evil", "web", phase="Failed", conditions=day.stalled("ChecksFailed", "page: \x1b[2J\x9b1mgone\r"))
    shown = terminal(Snapshot(day.NOW, "shop", drills=(evil,)))
    assert "page: [2J1mgone" in shown


@pytest.mark.parametrize(
    ("failover", "shown"),
    [
        (day.failover("a", "db", phase="Committed", conditions=day.ready("Committed", "confirmed", days=2)), False),
        (day.failover("a", "db", phase="Committed", conditions=day.ready("Committed", "confirmed", minutes=2)), True),
        (day.failover("a", "db", phase="RolledBack", conditions=day.ready("RolledBack", "given up", days=2)), False),
        (day.failover("a", "db", phase="Failed", conditions=day.stalled("NotAccepted", "too late", hours=20)), True),
        (day.failover("a", "db", phase="Failed", conditions=day.stalled("NotAccepted", "too late", days=3)), False),
        (day.failover("a", "db", phase="Launching", conditions=day.busy("InProgress", "starts")), True),
        (
            day.failover(
                "a",
                "db",
                phase="Committed",
                conditions=[
                    *day.ready("Committed", "confirmed. Take care: the source may still be serving", days=9),
                    day.condition("SourceFenced", "Unknown", "FencePending", "the source may still be serving"),
                ],
            ),
            True,
        ),
    ],
)
def test_ended_failovers_leave_the_overview_unless_they_are_still_news(failover: Failover, *, shown: bool) -> None:
    assert rows.concerns_now(failover, day.NOW) is shown


def test_a_confirmed_failover_whose_source_may_still_serve_says_so() -> None:
    conditions = [
        *day.ready("Committed", "confirmed. Take care: the source may still be serving", days=9),
        day.condition("SourceFenced", "Unknown", "FencePending", "the source may still be serving"),
    ]
    committed = day.failover("fire", "db", phase="Committed", conditions=conditions)
    assert "Take care: the source may still be serving" in plain(Snapshot(day.NOW, "shop", failovers=(committed,)))


@pytest.mark.parametrize(
    ("conditions", "mood"),
    [
        (day.ready(), Mood.OK),
        (day.busy("Copying", "it goes on"), Mood.IN_PROGRESS),
        (day.busy("NoSpace", "the disk is full"), Mood.WAITING),
        (day.stalled("TooLarge", "choose less"), Mood.NEEDS_YOU),
        ([day.condition("Ready", "Unknown", "SiteSilent", "nobody knows")], Mood.UNKNOWN),
        ([], Mood.UNKNOWN),
    ],
)
def test_moods(conditions: list[dict[str, object]], mood: Mood) -> None:
    assert rows.mood(day.server("web", conditions=conditions)) is mood


def test_one_server_in_detail() -> None:
    shown = terminal(day.DAY, "web")
    assert "  State         ● ok  Replicating" in shown
    assert "2 CPUs; 2.0 GiB memory; disks system 20.0 GiB, data 10.0 GiB; addresses 10.0.0.10" in shown
    points = shown[shown.index("Recovery points (3)") : shown.index("Conditions")].splitlines()
    assert [line.split()[0] for line in points[2:5]] == ["p-1148", "p-1100", "p-1000"]
    assert "p-1100  2026-01-31 11:00:00  1 h     application  Available            monday" in shown
    assert "InUse: drill monday" in shown
    assert "last-week" in shown  # ended drills are part of the record
    assert "monday" in shown
    assert "fire" not in shown  # of another server


def test_the_history_and_the_proof_of_a_failover() -> None:
    shown = terminal(day.DAY, "db")
    assert "  1        p-1100     p-1100  2026-01-31 11:00:00  11:51:00  11:55:00" in shown
    assert "ask for attempt-1 to return" in shown
    assert "  2        current    tip-2   2026-01-31 11:56:00  11:56:00  in use" in shown
    assert "  (script)  exit code 0  addresses changed" in shown
    assert "Recovered as  db-1-fire in zone-b, 10.2.0.20" in shown


def test_commands_are_not_broken_by_the_width() -> None:
    shown = terminal(day.DAY, "db", width=60)
    commit = (
        """kubectl patch -n shop failover fire --type merge -p '{"spec":{"commit":true}}'  # cannot be taken back"""
    )
    assert commit in shown


@pytest.mark.parametrize("operation", Operation)
def test_each_operation_is_told_how_to_ask_for_it(operation: Operation) -> None:
    assert how_to_ask(operation, day.WEB, "fire")


def test_a_server_is_found_by_its_name_or_its_id() -> None:
    assert find_server(day.DAY, "files") is day.FILES
    assert find_server(day.DAY, "nas-3") is day.FILES


@pytest.mark.parametrize(
    ("snapshot", "name", "words"),
    [
        (day.DAY, "wbe", "no ProtectedServer wbe in namespace shop. There are: db, files, web; look elsewhere with -n"),
        (Snapshot(day.NOW, None), "web", "no ProtectedServer web in any namespace. There is none"),
        (day.DAY, "fire", "fire is a Failover, of server db: lifeboat status db shows it"),
        (
            Snapshot(day.NOW, None, servers=(day.WEB, day.server("web", namespace="bank"))),
            "web",
            "more than one ProtectedServer is meant by web: web (-n bank), web (-n shop)",
        ),
    ],
)
def test_a_name_that_means_no_server(snapshot: Snapshot, name: str, words: str) -> None:
    with pytest.raises(Failure) as failure:
        find_server(snapshot, name)
    assert words in str(failure.value)
    assert failure.value.code == client.REFUSED


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (kube.NotFound("404"), client.REFUSED, "CRDs are not installed"),
        (kube.Rejected("403 forbidden"), client.REFUSED, "sitepairs.lifeboat.dev"),
        (kube.Unavailable("refused"), client.SILENT, "goes on without it"),
    ],
)
def test_errors_say_what_to_do(error: kube.KubeError, code: int, words: str) -> None:
    failure = client.explained(error, SitePair)
    assert failure.code == code
    assert words in str(failure)


def test_the_newest_lease_counts() -> None:
    old, new = ({"spec": {"renewTime": f"2026-01-31T{time}.000000Z"}} for time in ("09:00:00", "11:59:50"))
    assert client.lease_silence([old], day.NOW) == timedelta(hours=3)
    assert client.lease_silence([old, new], day.NOW) is None
    assert client.lease_silence([{"spec": {}}, {}], day.NOW) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (61, "1 min 1 s"),
        (3599, "59 min"),
        (3660, "1 h 1 min"),
        (200_000, "2 d"),
        (-5, "0 s"),
    ],
)
def test_spans(seconds: float, words: str) -> None:
    assert paint.span(seconds) == words


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**31, "2.0 GiB"), (2**43, "8.0 TiB")]
)
def test_sizes(number: int, words: str) -> None:
    assert paint.size(number) == words


def test_missing_lists_what_is_there() -> None:
    assert client.missing(ProtectedServer, "x", "shop", ["b", "a"]).endswith("There are: a, b; look elsewhere with -n")
