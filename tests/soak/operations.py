"""What people ask for: legal and illegal things, at any moment, of any server that lives.

Each operation is one function that asks for one thing and says what it asked, or None where it makes no sense now. To
add one, write it here, or in `nonsense` where it is not allowed, and give it a row in `OPERATIONS` there.
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


def some_point(ask: Ask) -> str:
    """Some way to say which point."""
    points: list[str] = [each["name"] for each in ask.life.status.get("recoveryPoints", ())]
    back = timedelta(seconds=ask.chance.randint(1, 60))
    choices = ["latest", (datetime.now(UTC) - back).strftime("%Y-%m-%dT%H:%M:%SZ")]
    return ask.chance.choice([*choices, *([ask.chance.choice(points)] * 2 if points else [])])


def drill(ask: Ask) -> str | None:
    """Rehearse from some point."""
    if len(ask.life.of(Drill, "Pending", "Launching", "Verifying", "Running")) >= 2:
        return None
    point, name = some_point(ask), ask.life.name("d")
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
    point = "current" if ask.chance.random() < 0.5 else some_point(ask)
    name = ask.life.name("f")
    ask.world.create(Failover, name, failover_spec(ask, point))
    return f"{name} at {point}"


def failover_spec(ask: Ask, point: str, **more: Any) -> Stored:
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
    point = some_point(ask)
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
    ask.world.create(Failover, heir, failover_spec(ask, "current"))
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
