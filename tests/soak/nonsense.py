"""What people ask for that is not allowed or makes no sense, what undoes it, and the table of all operations."""

from __future__ import annotations

from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from tests.soak.operations import (
    Ask,
    Operation,
    change_instance,
    change_point,
    change_policy,
    clear_drill,
    commit,
    delete_drill,
    delete_ended_failover,
    drill,
    fail_back,
    fail_over,
    failover_spec,
    first_attempt_again,
    forget_failover,
    go_on,
    goes_back,
    instance,
    let_go,
    limit_bandwidth,
    replication,
    restart,
    roll_back,
    set_forward,
    switch,
    take_back,
    turn_back,
    turn_forward,
    undecided,
)
from tests.soak.people import tend
from tests.soak.world import Stored


def second_failover(ask: Ask) -> str | None:
    """Fail over what is failed over already."""
    if not ask.life.of(Failover, "AwaitingCommit", "Launching", "Verifying", "StoppingReplication"):
        return None
    name = ask.life.name("f")
    ask.world.create(Failover, name, failover_spec(ask, "latest"))
    return name


def two_failovers_at_once(ask: Ask) -> str | None:
    """Ask twice in one breath."""
    if ask.life.phase != "Replicating":
        return None
    names = [ask.life.name("f"), ask.life.name("f")]
    for name in names:
        ask.world.create(Failover, name, failover_spec(ask, "current"))
    return " and ".join(names)


def nonsense_drill(ask: Ask) -> str | None:
    """A drill that cannot be."""
    instance, point = ask.chance.choice(
        [
            ({"network": "nowhere"}, "latest"),
            ({"ipAddress": "10.99.0.1"}, "latest"),
            ({"memory": "64Gi"}, "latest"),
            ({"elasticIP": "127.0.99.1"}, "latest"),
            ({}, "no-such-point"),
            ({}, "current"),
            ({"cpu": 0}, "latest"),
            ({"memory": "a lot"}, "latest"),
        ]
    )
    name = ask.life.name("d")
    ask.world.create(
        Drill, name, {"serverRef": {"name": ask.life.server}, "instance": instance, "recoveryPoint": point}
    )
    return f"{name} {instance} {point}"


def nonsense_failover(ask: Ask) -> str | None:
    """A failover that cannot be."""
    more: Stored = ask.chance.choice(
        [
            {"commit": True},
            {"rollback": True},
            {"commit": True, "rollback": True},
            {"type": "Failback"},
            {"recoveryPoint": "1999-12-31T23:59:59Z"},
            {"recoveryPoint": "attempt-7"},
            {"instance": {"memory": "64Gi"}},
            {"instance": {"network": "vpc-a"}},
            {"startDeadline": "soon"},
            {"serverRef": {"name": "nobody"}},
        ]
    )
    name = ask.life.name("f")
    ask.world.create(Failover, name, {**failover_spec(ask, "latest"), **more})
    return f"{name} {more}"


def nonsense_edit(ask: Ask) -> str | None:
    """An edit of a failover under way that cannot be followed."""
    if not (found := undecided(ask, "AwaitingCommit", "Launching", "Verifying")):
        return None
    edit: Stored = ask.chance.choice(
        [
            {"instance": {"memory": "64Gi"}},
            {"instance": {"ipAddress": "10.99.0.1"}},
            {"recoveryPoint": "no-such-point"},
            {"recoveryPoint": "current"},
            {"serverRef": {"name": "nobody"}},
            {"commit": True, "rollback": True},
            {"commit": True, "recoveryPoint": "latest"},
        ]
    )
    ask.world.edit(Failover, found[0], {"spec": edit})
    return f"{found[0]} {edit}"


def sensible_again(ask: Ask) -> str | None:
    """Undo what `nonsense_edit` asked for."""
    if not (found := undecided(ask, "AwaitingCommit", "Launching", "Verifying")):
        return None
    like = instance(ask.life.server, back=goes_back(ask, found[0]))
    ask.world.edit(Failover, found[0], {"spec": {"recoveryPoint": "latest", "instance": {"memory": None, **like}}})
    return found[0]


def nonsense_server(ask: Ask) -> str | None:
    """An edit of a ProtectedServer that cannot be."""
    edit: Stored = ask.chance.choice(
        [
            {"serverId": "other"},
            {"sitePairRef": {"name": "other"}},
            {"replication": {"recoveryPoints": [{"every": "1s", "for": "1m"}]}},
            {"replication": {"bandwidthLimit": -1}},
        ]
    )
    ask.world.edit(ProtectedServer, ask.life.server, {"spec": edit})
    return str(edit)


def reverse_too_early(ask: Ask) -> str | None:
    """Ask for the way back before anything is committed, with or without the consent to wipe."""
    if ask.life.phase not in {"Initialized", "Replicating", "FailedOver", "FailingOver", "Stopped", "Interrupted"}:
        return None
    wanted: Stored = {"direction": "Reverse"}
    if ask.chance.random() < 0.5:
        wanted |= {"originalMachine": True, "confirmWipe": ask.life.server}
    ask.world.edit(ProtectedServer, ask.life.server, {"spec": {"replication": wanted}})
    return str(wanted)


def forward_too_early(ask: Ask) -> str | None:
    """Ask for the way out while the server is served from the recovery site."""
    return set_forward(ask) if ask.life.phase.startswith("Reverse") else None


def reverse_again(ask: Ask) -> str | None:
    """Undo `forward_too_early`."""
    if not ask.life.phase.startswith("Reverse") or replication(ask).get("direction") == "Reverse":
        return None
    ask.world.edit(ProtectedServer, ask.life.server, {"spec": {"replication": {"direction": "Reverse"}}})
    return ask.life.server


def wrong_consent(ask: Ask) -> str | None:
    """Consent to a wipe with the wrong name, with none, or in the wrong direction."""
    wanted: Stored = ask.chance.choice(
        [
            {"direction": "Reverse", "originalMachine": True, "confirmWipe": "other"},
            {"direction": "Reverse", "originalMachine": True, "confirmWipe": None},
            {"direction": "Forward", "originalMachine": True, "confirmWipe": ask.life.server},
        ]
    )
    ask.world.edit(ProtectedServer, ask.life.server, {"spec": {"replication": wanted}})
    return str(wanted)


def late_consent(ask: Ask) -> str | None:
    """Consent to the wipe of the original once the copy goes elsewhere already, or withdraw a consent that is spent."""
    if not ask.life.phase.startswith("Reverse") or replication(ask).get("direction") != "Reverse":
        return None
    wanted: Stored = {"originalMachine": True, "confirmWipe": ask.life.server}
    if replication(ask).get("originalMachine"):
        wanted = {"originalMachine": None, "confirmWipe": None}
    ask.world.edit(ProtectedServer, ask.life.server, {"spec": {"replication": wanted}})
    return str(wanted)


def failback_in_vain(ask: Ask) -> str | None:
    """Fail back what has not gone, or is not copied back yet."""
    if ask.life.phase in {"ReverseReplicating", "ReverseResyncing", "ReverseInterrupted", ""}:
        return None
    name = ask.life.name("b")
    ask.world.create(Failover, name, failover_spec(ask, "current", back=True))
    return f"{name} while {ask.life.phase}"


def failover_in_vain(ask: Ask) -> str | None:
    """Fail over what is served from the recovery site already."""
    if not ask.life.phase.startswith("Reverse") and ask.life.phase not in {"Committed", "FailedBack"}:
        return None
    name = ask.life.name("f")
    ask.world.create(Failover, name, failover_spec(ask, "latest", planned=False))
    return f"{name} while {ask.life.phase}"


def spent_name(ask: Ask) -> str | None:
    """Use a name that has ended."""
    found = ask.life.of(Failover, "RolledBack", "Failed", "Committed", "Completed")
    if not found:
        return None
    ask.world.delete(Failover, found[0])
    ask.world.create(Failover, found[0], failover_spec(ask, "current"))
    return found[0]


def claim_twice(ask: Ask) -> str | None:
    """Protect a server that another object protects."""
    name = ask.life.name("twin")
    ask.world.protect(ask.life.server, name)
    return name


# weight, whether it is legal, what it is
OPERATIONS: tuple[tuple[int, bool, Operation], ...] = (
    (40, True, go_on),
    (6, True, tend),
    (4, True, drill),
    (3, True, clear_drill),
    (1, True, delete_drill),
    (8, True, fail_over),
    (2, True, change_point),
    (1, True, first_attempt_again),
    (3, True, change_instance),
    (2, True, roll_back),
    (3, True, commit),
    (1, True, forget_failover),
    (1, True, delete_ended_failover),
    (1, True, change_policy),
    (1, True, limit_bandwidth),
    (1, True, switch),
    (1, True, restart),
    (1, True, let_go),
    (12, True, take_back),
    (3, True, sensible_again),
    (4, True, turn_back),
    (3, True, turn_forward),
    (3, True, fail_back),
    (2, True, reverse_again),
    (1, False, late_consent),
    (1, False, second_failover),
    (1, False, two_failovers_at_once),
    (2, False, nonsense_drill),
    (2, False, nonsense_failover),
    (2, False, nonsense_edit),
    (1, False, nonsense_server),
    (1, False, spent_name),
    (1, False, claim_twice),
    (1, False, reverse_too_early),
    (1, False, forward_too_early),
    (1, False, wrong_consent),
    (1, False, failback_in_vain),
    (1, False, failover_in_vain),
)
