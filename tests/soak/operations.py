"""What people ask for: legal and illegal things, at any moment, of any server that lives.

Each operation is one function that asks for one thing and says what it asked, or None where it makes no sense now. To
add one, write it here, or in `nonsense` where it is not allowed, and give it a row in `OPERATIONS` there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from lifeboat.api.common import Resource
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.names import RESTARTED_AT
from lifeboat.api.protectedserver import ProtectedServer
from tests.soak.world import SoakWorld, Stored, primary_ip, recovery_ip

CHECK = {"name": "web", "httpGet": {"port": 80, "path": "/cgi-bin/rows"}, "timeoutSeconds": 120}
FAILING = {"name": "never", "tcpSocket": {"port": 81}, "timeoutSeconds": 5}
START_DEADLINE = "40s"
UNDER_WAY = ("StoppingReplication", "Launching", "Verifying", "AwaitingCommit", "ChangingRecoveryPoint")


@dataclass
class Life:
    """A server while it lives: which objects ask for what, as the API server told last."""

    server: str
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
        return [name for name, each in found.items() if each.get("status", {}).get("phase", "") in phases]

    def refresh(self, world: SoakWorld) -> None:
        """Look at the API server."""
        for kind in (ProtectedServer, Drill, Failover):
            self.objects[kind] = {
                name: each
                for name, each in world.all(kind).items()
                if self.server in (name, each["spec"].get("serverId"), each["spec"].get("serverRef", {}).get("name"))
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
    instance: Stored = {"elasticIP": "auto", "useSSD": ask.chance.random() < 0.3}
    if ask.chance.random() < 0.4:
        network = "10.10.2" if ask.life.status.get("direction") == "Reverse" else "10.20.2"
        instance["ipAddress"] = f"{network}.{ask.chance.randint(100, 200)}"
    if ask.chance.random() < 0.4:
        instance["postScript"] = {"inline": "echo soaked"}
    spec: Stored = {
        "serverRef": {"name": ask.life.server},
        "recoveryPoint": point,
        "instance": instance,
        "checks": [CHECK],
    }
    if ask.chance.random() < 0.7:
        spec["ttl"] = f"{ask.chance.randint(5, 30)}s"
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
    """Fail a server over, in a disaster or as planned."""
    if ask.life.phase not in {"Replicating", "Interrupted", "Resyncing", "Stopped"}:
        return None
    if not ask.life.status.get("recoveryPoints"):
        return None
    name = ask.life.name("f")
    if ask.life.phase == "Replicating" and ask.chance.random() < 0.3:
        ask.world.create(Failover, name, failover_spec(ask, "current", planned=True))
        return f"{name}, planned"
    point = "current" if ask.chance.random() < 0.6 else some_point(ask)
    ask.world.create(Failover, name, failover_spec(ask, point))
    return f"{name} at {point}"


def fail_back(ask: Ask) -> str | None:
    """Bring a server home."""
    if ask.life.phase != "ReverseReplicating":
        return None
    name, point = ask.life.name("b"), "current" if ask.chance.random() < 0.8 else some_point(ask)
    ask.world.create(Failover, name, failover_spec(ask, point, back=True))
    return f"{name} at {point}"


def failover_spec(ask: Ask, point: str, *, back: bool = False, **more: Any) -> Stored:
    """What a Failover or a failback asks for; sometimes with a check that never passes."""
    failing = [FAILING] if ask.chance.random() < 0.15 else []
    return {
        "serverRef": {"name": ask.life.server},
        "recoveryPoint": point,
        "startDeadline": START_DEADLINE,
        "instance": instance(ask.life.server, back=back),
        "checks": [CHECK, *failing],
        **({"type": "Failback"} if back else {}),
        **more,
    }


def instance(server: str, *, back: bool) -> Stored:
    """What a failed over server, or one that came back, is like."""
    last = 10 + int(server[1:])
    if back:
        return {"elasticIP": primary_ip(server), "network": "vpc-a", "ipAddress": f"10.10.1.{last}"}
    return {"elasticIP": recovery_ip(server), "ipAddress": f"10.20.2.{last}"}


def goes_back(ask: Ask, name: str) -> bool:
    """Whether a Failover is a failback."""
    return bool(ask.life.objects[Failover][name]["spec"].get("type") == "Failback")


def change_point(ask: Ask) -> str | None:
    """Try another point of a failover under way."""
    if not (found := undecided(ask, "AwaitingCommit", "Launching", "Verifying", "StoppingReplication")):
        return None
    point = some_point(ask)
    ask.world.edit(Failover, found[0], {"spec": {"recoveryPoint": point}})
    return f"{found[0]} to {point}"


def first_attempt_again(ask: Ask) -> str | None:
    """Go back to the disks of the first attempt."""
    if not (found := undecided(ask, "AwaitingCommit")):
        return None
    ask.world.edit(Failover, found[0], {"spec": {"recoveryPoint": "attempt-1"}})
    return found[0]


def change_instance(ask: Ask) -> str | None:
    """Start the recovered server in another shape."""
    if not (found := undecided(ask, "AwaitingCommit")):
        return None
    memory = ask.chance.choice(["192Mi", "208Mi", "224Mi"])
    ask.world.edit(Failover, found[0], {"spec": {"instance": {"memory": memory}}})
    return f"{found[0]} to {memory}"


def roll_back(ask: Ask) -> str | None:
    """Go back to the source."""
    found = undecided(ask, "AwaitingCommit", "Launching", "Verifying", "ChangingRecoveryPoint", "StoppingReplication")
    if not found:
        return None
    ask.world.edit(Failover, found[0], {"spec": {"rollback": True}})
    return found[0]


def commit(ask: Ask) -> str | None:
    """Stay where the server serves now."""
    if not (found := undecided(ask, "AwaitingCommit")):
        return None
    ask.world.edit(Failover, found[0], {"spec": {"commit": True}})
    return found[0]


def undecided(ask: Ask, *phases: str) -> list[str]:
    """The Failovers in one of these phases that are neither to be committed nor rolled back yet."""
    specs = {name: each["spec"] for name, each in ask.life.objects[Failover].items()}
    return [
        name
        for name in ask.life.of(Failover, *phases)
        if not specs[name].get("commit") and not specs[name].get("rollback")
    ]


def forget_failover(ask: Ask) -> str | None:
    """Delete a Failover under way, and let another one carry on."""
    if not (found := ask.life.of(Failover, "AwaitingCommit", "Launching", "Verifying")):
        return None
    back = goes_back(ask, found[0])
    ask.world.delete(Failover, found[0])
    heir = ask.life.name("f")
    ask.world.create(Failover, heir, failover_spec(ask, "current", back=back))
    return f"{found[0]}, {heir} carries on"


def delete_ended_failover(ask: Ask) -> str | None:
    """Delete a Failover that has ended."""
    if not (found := ask.life.of(Failover, "RolledBack", "Failed", "Committed", "Completed")):
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
    enabled = not replication(ask).get("enabled", False)
    if not enabled and ask.chance.random() < 0.5:
        return None
    ask.world.edit(ProtectedServer, ask.life.server, {"spec": {"replication": {"enabled": enabled}}})
    return "on" if enabled else "off"


def switch_on(ask: Ask) -> str | None:
    """Switch replication on where it is off."""
    if replication(ask).get("enabled", False):
        return None
    ask.world.edit(ProtectedServer, ask.life.server, {"spec": {"replication": {"enabled": True}}})
    return ask.life.server


def replication(ask: Ask) -> Stored:
    """What is asked of a server's replication."""
    spec: Stored = ask.life.objects[ProtectedServer].get(ask.life.server, {}).get("spec", {})
    found: Stored = spec.get("replication", {})
    return found


def turn_back(ask: Ask) -> str | None:
    """Replicate a committed server back: onto a new machine or the original one, at once or only registered."""
    if ask.life.phase != "Committed" or replication(ask).get("direction") == "Reverse":
        return None
    wanted: Stored = {"direction": "Reverse", "enabled": ask.chance.random() < 0.8}
    if ask.chance.random() < 0.5:
        wanted |= {"originalMachine": True, "confirmWipe": ask.life.server}
    ask.world.edit(ProtectedServer, ask.life.server, {"spec": {"replication": wanted}})
    return str(wanted)


def turn_forward(ask: Ask) -> str | None:
    """Protect a server that came home as at the start; undoes a `Reverse` that came too early as well."""
    if ask.life.phase.startswith("Reverse") or replication(ask).get("direction") != "Reverse":
        return None
    return set_forward(ask)


def set_forward(ask: Ask, **more: object) -> str:
    """Ask for the forward direction."""
    wanted = {"direction": "Forward", "originalMachine": None, "confirmWipe": None, **more}
    ask.world.edit(ProtectedServer, ask.life.server, {"spec": {"replication": wanted}})
    return str(wanted)


def go_on(ask: Ask) -> str | None:
    """Do what comes next in the life of a server, wherever it is."""
    steps: dict[str, Sequence[Operation]] = {
        "Initialized": (switch_on,),
        "Stopped": (switch_on,),
        "Replicating": (fail_over,),
        "FailedOver": (commit, commit, commit, roll_back),
        "Committed": (turn_back, turn_back, turn_back, turn_forward),
        "ReverseRegistered": (switch_on,),
        "ReverseReplicating": (fail_back,),
        "FailingBack": (commit, roll_back),
        "FailedBack": (turn_forward,),
    }
    if ask.life.phase not in steps:
        return None
    step = ask.chance.choice(steps[ask.life.phase])
    said = step(ask)
    return f"{step.__name__}: {said}" if said is not None else None


def restart(ask: Ask) -> str | None:
    """Restart the source by annotation."""
    if ask.life.phase not in {"Replicating", "FullSync", "Initialized", "ReverseReplicating", "ReverseRegistered"}:
        return None
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ask.world.edit(ProtectedServer, ask.life.server, {"metadata": {"annotations": {RESTARTED_AT: now}}})
    return now


def let_go(ask: Ask) -> str | None:
    """Delete the ProtectedServer; it is created again by `take_back`."""
    if ask.life.phase in {"", "InstallingAgent"}:
        return None
    ask.world.delete(ProtectedServer, ask.life.server)
    return ask.life.server


def take_back(ask: Ask) -> str | None:
    """Create the ProtectedServer again."""
    if ask.life.server in ask.life.objects[ProtectedServer]:
        return None
    ask.world.protect(ask.life.server)
    return ask.life.server
