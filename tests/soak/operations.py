"""What people ask for: legal and illegal things, at any moment, of any server that lives.

Each operation is one function that asks for one thing and says what it asked, or None where it makes no sense now. To
add one, write it and give it a row in `OPERATIONS`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from lifeboat.api.common import Resource
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.names import RESTARTED_AT
from lifeboat.api.protectedserver import ProtectedServer
from tests.soak.world import SoakWorld, Stored, recovery_ip

CHECK = {"name": "web", "httpGet": {"port": 80, "path": "/cgi-bin/rows"}, "timeoutSeconds": 120}
START_DEADLINE = "40s"


@dataclass
class Life:
    """A server while it lives: which objects ask for what, as the API server told last."""

    server: str
    born: float
    numbers: int = 0
    objects: dict[type[Resource], dict[str, Stored]] = field(default_factory=dict)

    def name(self, sort: str) -> str:
        """A name that no object had yet."""
        self.numbers += 1
        return f"{self.server}-{sort}{self.numbers}"

    @property
    def status(self) -> Mapping[str, Any]:
        """The status of its ProtectedServer."""
        found: Mapping[str, Any] = self.objects.get(ProtectedServer, {}).get(self.server, {}).get("status", {})
        return found

    @property
    def phase(self) -> str:
        """The phase of its ProtectedServer; empty where there is none."""
        return str(self.status.get("phase", ""))

    def of(self, kind: type[Resource], *phases: str) -> list[str]:
        """The objects of a kind that are in one of these phases."""
        found = self.objects.get(kind, {})
        return [name for name, each in found.items() if each.get("status", {}).get("phase") in phases]

    def refresh(self, world: SoakWorld) -> None:
        """Look at the API server."""
        for kind in (ProtectedServer, Drill, Failover):
            self.objects[kind] = {
                name: each
                for name, each in world.all(kind).items()
                if name == self.server or each["spec"].get("serverRef", {}).get("name") == self.server
            }


@dataclass(frozen=True)
class Ask:
    """What an operation has in hand."""

    world: SoakWorld
    life: Life
    chance: random.Random


Operation = Callable[[Ask], str | None]


def _point(ask: Ask) -> str:
    """Some way to say which point."""
    points: list[str] = [each["name"] for each in ask.life.status.get("recoveryPoints", ())]
    back = timedelta(seconds=ask.chance.randint(1, 60))
    choices = ["latest", (datetime.now(UTC) - back).strftime("%Y-%m-%dT%H:%M:%SZ")]
    return ask.chance.choice([*choices, *([ask.chance.choice(points)] * 2 if points else [])])


def drill(ask: Ask) -> str | None:
    """Rehearse from some point."""
    if len(ask.life.of(Drill, "Pending", "Launching", "Verifying", "Running")) >= 2:
        return None
    point, name = _point(ask), ask.life.name("d")
    instance: Stored = {"network": "vpc-b-recovery", "elasticIP": "auto", "useSSD": ask.chance.random() < 0.3}
    if ask.chance.random() < 0.4:
        instance["ipAddress"] = f"10.20.2.{ask.chance.randint(100, 200)}"
    if ask.chance.random() < 0.4:
        instance["postScript"] = {"inline": "echo soaked"}
    spec: Stored = {
        "serverRef": {"name": ask.life.server},
        "recoveryPoint": point,
        "instance": instance,
        "checks": [CHECK],
    }
    if ask.chance.random() < 0.5:
        spec["ttl"] = f"{ask.chance.randint(15, 60)}s"
    ask.world.create(Drill, name, spec)
    return f"{name} from {point}"


def clear_drill(ask: Ask) -> str | None:
    """Clear a drill."""
    if not (found := ask.life.of(Drill, "Pending", "Launching", "Verifying", "Running")):
        return None
    name = ask.chance.choice(found)
    ask.world.edit(Drill, name, {"spec": {"running": False}})
    return name


def delete_drill(ask: Ask) -> str | None:
    """Delete a drill in whatever state."""
    if not (found := list(ask.life.objects[Drill])):
        return None
    name = ask.chance.choice(found)
    ask.world.delete(Drill, name)
    return name


def fail_over(ask: Ask) -> str | None:
    """Fail a server over."""
    if ask.life.phase not in {"Replicating", "Interrupted", "Resyncing"} or not ask.life.status.get("recoveryPoints"):
        return None
    point = "current" if ask.chance.random() < 0.5 else _point(ask)
    name = ask.life.name("f")
    ask.world.create(Failover, name, _failover(ask, point))
    return f"{name} at {point}"


def _failover(ask: Ask, point: str, **more: Any) -> Stored:
    instance = {"elasticIP": recovery_ip(ask.life.server), "ipAddress": f"10.20.2.{10 + int(ask.life.server[1:])}"}
    return {
        "serverRef": {"name": ask.life.server},
        "recoveryPoint": point,
        "startDeadline": START_DEADLINE,
        "instance": instance,
        "checks": [CHECK],
        **more,
    }


def change_point(ask: Ask) -> str | None:
    """Try another point of a failover under way."""
    if not (found := ask.life.of(Failover, "AwaitingCommit", "Launching", "Verifying", "StoppingReplication")):
        return None
    point = _point(ask)
    ask.world.edit(Failover, found[0], {"spec": {"recoveryPoint": point}})
    return f"{found[0]} to {point}"


def first_attempt_again(ask: Ask) -> str | None:
    """Go back to the disks of the first attempt."""
    if not (found := ask.life.of(Failover, "AwaitingCommit")):
        return None
    ask.world.edit(Failover, found[0], {"spec": {"recoveryPoint": "attempt-1"}})
    return found[0]


def change_instance(ask: Ask) -> str | None:
    """Start the recovered server in another shape."""
    if not (found := ask.life.of(Failover, "AwaitingCommit")):
        return None
    memory = ask.chance.choice(["192Mi", "208Mi", "224Mi"])
    ask.world.edit(Failover, found[0], {"spec": {"instance": {"memory": memory}}})
    return f"{found[0]} to {memory}"


def roll_back(ask: Ask) -> str | None:
    """Go back to the source."""
    if not (found := ask.life.of(Failover, "AwaitingCommit", "Launching", "Verifying", "ChangingRecoveryPoint")):
        return None
    ask.world.edit(Failover, found[0], {"spec": {"rollback": True}})
    return found[0]


def commit(ask: Ask) -> str | None:
    """Stay at the recovery site."""
    if not (found := ask.life.of(Failover, "AwaitingCommit")):
        return None
    ask.world.edit(Failover, found[0], {"spec": {"commit": True}})
    return found[0]


def forget_failover(ask: Ask) -> str | None:
    """Delete a Failover under way, and let another one carry on."""
    if not (found := ask.life.of(Failover, "AwaitingCommit", "Launching", "Verifying")):
        return None
    ask.world.delete(Failover, found[0])
    heir = ask.life.name("f")
    ask.world.create(Failover, heir, _failover(ask, "current"))
    return f"{found[0]}, {heir} carries on"


def delete_ended_failover(ask: Ask) -> str | None:
    """Delete a Failover that has ended."""
    if not (found := ask.life.of(Failover, "RolledBack", "Failed")):
        return None
    ask.world.delete(Failover, found[0])
    return found[0]


def change_policy(ask: Ask) -> str | None:
    """Keep points longer, shorter, or more rarely."""
    tiers = ask.chance.choice(
        [
            [{"every": "10s", "for": "3m"}],
            [{"every": "10s", "for": "1m"}, {"every": "1m", "for": "5m"}],
            [{"every": "15s", "for": "2m"}],
        ]
    )
    ask.world.edit(ProtectedServer, ask.life.server, {"spec": {"replication": {"recoveryPoints": tiers}}})
    return str(tiers)


def limit_bandwidth(ask: Ask) -> str | None:
    """Limit the full copy, or do not any more."""
    limit = ask.chance.choice([None, 20_000_000, 100_000_000])
    ask.world.edit(ProtectedServer, ask.life.server, {"spec": {"replication": {"bandwidthLimit": limit}}})
    return str(limit)


def switch(ask: Ask) -> str | None:
    """Switch replication off, or on again."""
    spec = ask.life.objects[ProtectedServer].get(ask.life.server, {}).get("spec", {})
    enabled = not spec.get("replication", {}).get("enabled", False)
    ask.world.edit(ProtectedServer, ask.life.server, {"spec": {"replication": {"enabled": enabled}}})
    return "on" if enabled else "off"


def restart(ask: Ask) -> str | None:
    """Restart the source by annotation."""
    if ask.life.phase not in {"Replicating", "FullSync", "Initialized"}:
        return None
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ask.world.edit(ProtectedServer, ask.life.server, {"metadata": {"annotations": {RESTARTED_AT: now}}})
    return now


def let_go(ask: Ask) -> str | None:
    """Delete the ProtectedServer; it is created again by `take_back`."""
    if ask.life.phase not in {"Replicating", "Interrupted", "FailedOver", "Stopped"}:
        return None
    ask.world.delete(ProtectedServer, ask.life.server)
    return ask.life.server


def take_back(ask: Ask) -> str | None:
    """Create the ProtectedServer again."""
    if ask.life.server in ask.life.objects[ProtectedServer]:
        return None
    ask.world.protect(ask.life.server)
    return ask.life.server


# --- what is not allowed, or makes no sense


def second_failover(ask: Ask) -> str | None:
    """Fail over what is failed over already."""
    if not ask.life.of(Failover, "AwaitingCommit", "Launching", "Verifying", "StoppingReplication"):
        return None
    name = ask.life.name("f")
    ask.world.create(Failover, name, _failover(ask, "latest"))
    return name


def two_failovers_at_once(ask: Ask) -> str | None:
    """Ask twice in one breath."""
    if ask.life.phase != "Replicating":
        return None
    names = [ask.life.name("f"), ask.life.name("f")]
    for name in names:
        ask.world.create(Failover, name, _failover(ask, "current"))
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
    ask.world.create(Failover, name, {**_failover(ask, "latest"), **more})
    return f"{name} {more}"


def nonsense_edit(ask: Ask) -> str | None:
    """An edit of a failover under way that cannot be followed."""
    if not (found := ask.life.of(Failover, "AwaitingCommit", "Launching", "Verifying")):
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
    if not (found := ask.life.of(Failover, "AwaitingCommit", "Launching", "Verifying")):
        return None
    instance = _failover(ask, "latest")["instance"]
    ask.world.edit(Failover, found[0], {"spec": {"recoveryPoint": "latest", "instance": {"memory": None, **instance}}})
    return found[0]


def nonsense_server(ask: Ask) -> str | None:
    """An edit of a ProtectedServer that cannot be."""
    edit: Stored = ask.chance.choice(
        [
            {"serverId": "other"},
            {"sitePairRef": {"name": "other"}},
            {"replication": {"direction": "Reverse"}},
            {"replication": {"recoveryPoints": [{"every": "1s", "for": "1m"}]}},
            {"replication": {"bandwidthLimit": -1}},
        ]
    )
    ask.world.edit(ProtectedServer, ask.life.server, {"spec": edit})
    return str(edit)


def forward_again(ask: Ask) -> str | None:
    """Undo `direction: Reverse`."""
    ask.world.edit(ProtectedServer, ask.life.server, {"spec": {"replication": {"direction": "Forward"}}})
    return ask.life.server


def spent_name(ask: Ask) -> str | None:
    """Use a name that has ended."""
    found = ask.life.of(Failover, "RolledBack", "Failed")
    if not found:
        return None
    ask.world.delete(Failover, found[0])
    ask.world.create(Failover, found[0], _failover(ask, "current"))
    return found[0]


def claim_twice(ask: Ask) -> str | None:
    """Protect a server that another object protects."""
    name = ask.life.name("twin")
    ask.world.protect(ask.life.server, name)
    return name


# weight, whether it is legal, what it is
OPERATIONS: tuple[tuple[int, bool, Operation], ...] = (
    (6, True, drill),
    (3, True, clear_drill),
    (2, True, delete_drill),
    (12, True, fail_over),
    (4, True, change_point),
    (2, True, first_attempt_again),
    (3, True, change_instance),
    (5, True, roll_back),
    (1, True, commit),
    (1, True, forget_failover),
    (1, True, delete_ended_failover),
    (1, True, change_policy),
    (1, True, limit_bandwidth),
    (1, True, switch),
    (1, True, restart),
    (1, True, let_go),
    (6, True, take_back),
    (4, True, sensible_again),
    (2, True, forward_again),
    (1, False, second_failover),
    (1, False, two_failovers_at_once),
    (2, False, nonsense_drill),
    (2, False, nonsense_failover),
    (2, False, nonsense_edit),
    (1, False, nonsense_server),
    (1, False, spent_name),
    (1, False, claim_twice),
)
