"""The rows of the matrix: how a server is brought into a phase and kept there, and what its end is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from demo.world import phase_is, ready
from lifeboat.engines.ledger import Direction, DrillStage, FailoverStage
from lifeboat.host import processes
from tests.e2e.conftest import Site
from tests.faults.faultworld import SLOW, Base, FaultWorld
from tests.faults.places import RECOVERED, SOURCE


@dataclass(frozen=True)
class Row:
    """A phase to hit.

    Args:
        base: Where the server stands before.
        enter: Brings it into the phase and keeps it there, by a held operator or by what the phase waits for.
        settle: Waits for the end, with what a person does on the way, and says what was lost.
        ends: Where the server stands afterwards.
        tells: The kind of the object whose message explains, and so whose phase is shown as the end.
        moves: Whether the workload is on its way to another machine, so that writes have to wait anyhow.
        cure: What a person does where only a person can help, and the end that it leads to.
        target: The zone that is copied to.
    """

    name: str
    base: Base
    enter: Callable[[FaultWorld], None]
    settle: Callable[[FaultWorld], None]
    ends: Base
    tells: str = "ps"
    moves: bool = False
    cure: Callable[[FaultWorld], None] | None = None
    target: str = "zone-b"


# --- Ends ---


def replicates(world: FaultWorld) -> None:
    """Every write reaches the replica, which is the source's disks bit by bit, with every acknowledged row in them."""
    whole = {"Replicating", "ReverseReplicating"}
    world.until("ps", world.server, lambda ps: ready(ps) and ps["status"]["phase"] in whole)
    world.writer.aim(world.serving)
    world.writer.until_acknowledged(60)
    world.writer.pause()
    _has_all(world, world.serving)
    differences = world.differences()
    assert not differences, f"the replica is not what the source is: {differences}"
    world.writer.aim(world.serving)


def serves_from_recovery(world: FaultWorld) -> None:
    """The recovered server has every acknowledged row, and takes more."""
    world.writer.pause()
    world.until("fo", world.failover, lambda fo: ready(fo) and fo["status"]["phase"] in {"AwaitingCommit", "Committed"})
    _takes_more(world, RECOVERED)


def _takes_more(world: FaultWorld, host: str) -> None:
    _has_all(world, host)
    world.writer.aim(host)
    world.writer.until_acknowledged(60)


def _has_all(world: FaultWorld, host: str) -> None:
    """Look for every acknowledged row."""
    rows = set(Site(host).rows())
    world.judged = world.writer.numbers()
    world.lost = [number for number in world.judged if number not in rows]
    assert not world.lost, f"acknowledged rows that {host} does not have: {world.lost}"


def commits(world: FaultWorld) -> None:
    """The recovered server is independent and has every acknowledged row."""
    world.until("fo", world.failover, phase_is("Committed"))
    world.until("ps", world.server, lambda ps: ready(ps) and ps["status"]["phase"] == "Committed")
    world.writer.pause()
    _takes_more(world, RECOVERED)


def starts_again(world: FaultWorld) -> None:
    """What was stopped, and stays so, is started again."""
    world.until("ps", world.server, lambda ps: ready(ps) and ps["status"]["phase"] == "Stopped")
    _enable(world, enabled=True)
    replicates(world)


def copies_at_full_speed(world: FaultWorld) -> None:
    """A copy that was slowed down so that it could be hit ends."""
    world.patch("ps", world.server, {"replication": {"bandwidthLimit": None}})
    replicates(world)


def drills(world: FaultWorld) -> None:
    """The drill's server runs with its checks passed; cleared, it leaves nothing, and replication went on."""
    world.until("dr", world.drill, lambda dr: ready(dr) and dr["status"]["phase"] == "Running")
    assert world.watcher.get("dr", world.drill)["status"]["result"] == "Passed"  # type: ignore[index]
    world.patch("dr", world.drill, {"running": False})
    clears(world)


def clears(world: FaultWorld) -> None:
    """The drill leaves nothing, and replication went on."""
    world.until("dr", world.drill, lambda dr: ready(dr) and dr["status"]["phase"] == "CleanedUp")
    replicates(world)
    world.kubectl("delete", "dr", world.drill, "--timeout=30s")


def changes_back(world: FaultWorld) -> None:
    """It serves from the older point; asked to, it goes back to the data of before."""
    serves = lambda fo: ready(fo) and fo["status"]["phase"] == "AwaitingCommit"  # noqa: E731
    world.until("fo", world.failover, serves)
    first = world.ledger().failover
    assert first is not None
    kept = next(a.number for a in first.attempts if a.requested == "current")
    world.patch("fo", world.failover, {"recoveryPoint": f"attempt-{kept}"})
    world.until("fo", world.failover, serves)
    _takes_more(world, RECOVERED)


def heals(world: FaultWorld) -> None:
    """The link is there again: what changed meanwhile is copied."""
    world.join_link()
    replicates(world)


def serves_at_home(world: FaultWorld) -> None:
    """The server serves from its primary site with every acknowledged row, and takes more."""
    world.writer.pause()
    world.until("fo", world.failover, lambda fo: ready(fo) and fo["status"]["phase"] == "Completed")
    world.until("ps", world.server, phase_is("FailedBack"))
    _takes_more(world, SOURCE)


def registers(world: FaultWorld) -> None:
    """Protected as at the start, with nothing left at the recovery site but its replica."""
    replicates(world)
    machines = world.zones / "zone-b" / "machines" / world.server
    world.until("ps", world.server, lambda _: not list(machines.rglob("machine.json")))


# --- Cures ---


def gives_up_drill(world: FaultWorld) -> None:
    """A drill whose server is gone is cleared."""
    world.patch("dr", world.drill, {"running": False})
    clears(world)


def starts_anew(world: FaultWorld) -> None:
    """The recovered server is started anew, on its own disks, by an edit of what it is to be."""
    world.patch("fo", world.failover, {"instance": {"memory": "160Mi"}})
    serves_from_recovery(world)


def starts_by_hand(world: FaultWorld) -> None:
    """The zone's owner starts a server that is independent."""
    world.start_server(world.server, "zone-b")
    commits(world)


# --- Ways in ---


def nothing(_: FaultWorld) -> None:
    """It is there already."""


def starts(world: FaultWorld) -> None:
    """Held when the replica's process runs and the copy has not begun."""
    _stop(world)

    def begins() -> bool:
        record = world.replica()
        return (
            record is not None
            and record.replicating
            and not record.mirrored
            and processes.find(world.daemon) is not None
        )

    with world.held(begins):
        _enable(world, enabled=True)


def copies(world: FaultWorld) -> None:
    """Held by a bandwidth limit that makes the copy take half a minute."""
    _stop(world)
    limited = {"replication": {"enabled": True, "bandwidthLimit": SLOW}}
    world.patch("ps", world.server, limited)
    world.until("ps", world.server, phase_is("FullSync"))


def interrupted(world: FaultWorld) -> None:
    """Stays until the link is there again."""
    world.cut_link()
    world.until("ps", world.server, phase_is("Interrupted"))
    world.writer.until_acknowledged(60)


def resyncs(world: FaultWorld) -> None:
    """Held when the link is there again, what was whole is kept as a point, and the resync is about to begin."""
    before = world.ledger().resyncs
    interrupted(world)
    with world.held(lambda: world.ledger().resyncs > before):
        world.join_link()


def goes_home(world: FaultWorld) -> None:
    """A failback held when it has begun: its server is to be shut down, and drained."""
    with world.held(_at(world, FailoverStage.STOPPING_REPLICATION)):
        world.begin_failback()


def turns_forward(world: FaultWorld) -> None:
    """Held when the server at the primary site is registered again and its client has not been asked."""
    forward = {"direction": None, "originalMachine": None, "confirmWipe": None}
    with world.held(lambda: world.ledger().direction is Direction.FORWARD):
        world.patch("ps", world.server, {"replication": forward})


def stopped(world: FaultWorld) -> None:
    """Stays until replication is enabled again."""
    _stop(world)


def drill_in(stage: DrillStage) -> Callable[[FaultWorld], None]:
    """A drill held at a stage."""

    def enter(world: FaultWorld) -> None:
        def there() -> bool:
            record = world.ledger().drill(world.drill)
            return record is not None and record.stage is stage

        with world.held(there):
            world.begin_drill()

    return enter


def drill_runs(world: FaultWorld) -> None:
    """A drill that runs."""
    world.begin_drill()
    world.until("dr", world.drill, lambda dr: ready(dr) and dr["status"]["phase"] == "Running")


def drill_is_cleared(world: FaultWorld) -> None:
    """A drill held when it is being cleared."""
    drill_runs(world)

    def clearing() -> bool:
        record = world.ledger().drill(world.drill)
        return record is not None and record.stage is DrillStage.CLEANING_UP

    with world.held(clearing):
        world.patch("dr", world.drill, {"running": False})


def _at(world: FaultWorld, stage: FailoverStage) -> Callable[[], bool]:
    def there() -> bool:
        record = world.ledger().failover
        return record is not None and record.stage is stage

    return there


def fails_over(stage: FailoverStage) -> Callable[[FaultWorld], None]:
    """A failover held at a stage; its source lives, and is fenced."""

    def enter(world: FaultWorld) -> None:
        with world.held(_at(world, stage)):
            world.begin_failover()
        if stage is not FailoverStage.STOPPING_REPLICATION:
            world.writer.pause()

    return enter


def changes_point(world: FaultWorld) -> None:
    """A change of the point held when it has begun."""
    points = world.watcher.get("ps", world.server)["status"]["recoveryPoints"]  # type: ignore[index]
    oldest = min((point for point in points if point["state"] != "Unusable"), key=lambda point: str(point["time"]))
    world.writer.pause()
    with world.held(_at(world, FailoverStage.CHANGING_RECOVERY_POINT)):
        world.patch("fo", world.failover, {"recoveryPoint": oldest["name"]})


def rolls_back(world: FaultWorld) -> None:
    """A rollback held when it has begun."""
    world.writer.pause()
    with world.held(_at(world, FailoverStage.ROLLING_BACK)):
        world.patch("fo", world.failover, {"rollback": True})


def is_committed(world: FaultWorld) -> None:
    """A commit held when it has begun."""
    with world.held(_at(world, FailoverStage.COMMITTING)):
        world.patch("fo", world.failover, {"commit": True})


def rolled_back(world: FaultWorld) -> None:
    """The source serves again and is protected."""
    world.rolled_back()
    replicates(world)


def _enable(world: FaultWorld, *, enabled: bool) -> None:
    world.patch("ps", world.server, {"replication": {"enabled": enabled, "bandwidthLimit": None}})


def _stop(world: FaultWorld) -> None:
    _enable(world, enabled=False)
    world.until("ps", world.server, phase_is("Stopped"))


ROWS: Final[Mapping[str, Row]] = {
    row.name: row
    for row in (
        Row("StartingReplication", Base.REPLICATING, starts, replicates, Base.REPLICATING),
        Row("FullSync", Base.REPLICATING, copies, copies_at_full_speed, Base.REPLICATING),
        Row("Replicating", Base.REPLICATING, nothing, replicates, Base.REPLICATING),
        Row("Interrupted", Base.REPLICATING, interrupted, heals, Base.REPLICATING),
        Row("Resyncing", Base.REPLICATING, resyncs, replicates, Base.REPLICATING),
        Row("Stopped", Base.REPLICATING, stopped, starts_again, Base.REPLICATING),
        Row("DrillLaunching", Base.REPLICATING, drill_in(DrillStage.LAUNCHING), drills, Base.REPLICATING, "dr"),
        Row("DrillVerifying", Base.REPLICATING, drill_in(DrillStage.VERIFYING), drills, Base.REPLICATING, "dr"),
        Row("DrillRunning", Base.REPLICATING, drill_runs, drills, Base.REPLICATING, "dr", cure=gives_up_drill),
        Row("DrillCleaningUp", Base.REPLICATING, drill_is_cleared, clears, Base.REPLICATING, "dr"),
        Row(
            "StoppingReplication",
            Base.REPLICATING,
            fails_over(FailoverStage.STOPPING_REPLICATION),
            serves_from_recovery,
            Base.FAILED_OVER,
            "fo",
            moves=True,
        ),
        Row(
            "Launching",
            Base.REPLICATING,
            fails_over(FailoverStage.LAUNCHING),
            serves_from_recovery,
            Base.FAILED_OVER,
            "fo",
            moves=True,
        ),
        Row(
            "Verifying",
            Base.REPLICATING,
            fails_over(FailoverStage.VERIFYING),
            serves_from_recovery,
            Base.FAILED_OVER,
            "fo",
            moves=True,
        ),
        Row(
            "AwaitingCommit",
            Base.FAILED_OVER,
            nothing,
            serves_from_recovery,
            Base.FAILED_OVER,
            "fo",
            cure=starts_anew,
        ),
        Row("ChangingRecoveryPoint", Base.FAILED_OVER, changes_point, changes_back, Base.FAILED_OVER, "fo", moves=True),
        Row("RollingBack", Base.FAILED_OVER, rolls_back, rolled_back, Base.REPLICATING, "fo", moves=True),
        Row("Committing", Base.FAILED_OVER, is_committed, commits, Base.COMMITTED, "fo"),
        Row("Committed", Base.COMMITTED, nothing, commits, Base.COMMITTED, "fo", cure=starts_by_hand),
        Row(
            "ReverseReplicating",
            Base.REVERSE_REPLICATING,
            nothing,
            replicates,
            Base.REVERSE_REPLICATING,
            target="zone-a",
        ),
        Row(
            "FailingBack",
            Base.REVERSE_REPLICATING,
            goes_home,
            serves_at_home,
            Base.FAILED_BACK,
            "fo",
            moves=True,
            target="zone-a",
        ),
        Row("FailedBack", Base.FAILED_BACK, nothing, serves_at_home, Base.FAILED_BACK),
        # What it leads to is a server that is a launched machine: the next cell begins with a fresh one.
        Row("Registering", Base.FAILED_BACK, turns_forward, registers, Base.NONE),
    )
}
