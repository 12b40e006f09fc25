"""What whoever is in charge does about what the operator leaves to people: start, edit, carry on, give up."""

from __future__ import annotations

from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.engines.ledger import FailoverRecord, FailoverStage
from tests.soak import places
from tests.soak.operations import Ask, failover_spec, instance
from tests.soak.world import Stored


def tend(ask: Ask) -> str | None:
    """Do the one thing that is a person's to do now, None where there is none."""
    world, server = ask.world, ask.life.server
    ledger = world.ledger(server)
    if server not in ask.life.objects[ProtectedServer]:
        world.protect(server)
        return "protected again"
    claim = ledger.claim.name if ledger is not None and ledger.claim is not None else server
    if claim != server and claim in ask.life.objects[ProtectedServer]:
        world.delete(ProtectedServer, claim)
        return f"{claim}, which is in the way, is deleted"
    record = ledger.failover if ledger is not None else None
    if record is not None and record.stage is not FailoverStage.COMMITTED:
        return _carry_on(ask, record)
    place = places.serving(world, server, ledger)
    if place is None or not world.answers(place.zone) or not places.stands(world, server, place):
        return None
    return _start(ask, place)


def _carry_on(ask: Ask, record: FailoverRecord) -> str | None:
    """See to a failover under way."""
    world, server = ask.world, ask.life.server
    failover = ask.life.objects[Failover].get(record.name)
    if failover is None and ask.life.of(Failover, "", "Pending"):
        return None  # an heir was made already
    if failover is None:
        heir = ask.life.name("f")
        world.create(Failover, heir, failover_spec(ask, "latest", back=record.failback))
        return f"{heir} carries on for {record.name}"
    if failover["spec"].get("rollback"):
        return None
    if record.stage is FailoverStage.STOPPING_REPLICATION and stalled(failover):
        world.edit(Failover, record.name, {"spec": {"rollback": True}})
        return f"{record.name} is given up"
    if record.stage is not FailoverStage.AWAITING_COMMIT and not stalled(failover):
        return None
    place = places.serving(world, server, world.ledger(server))
    if place is not None and not places.stands(world, server, place):
        return None
    if place is not None and (failover["spec"].get("commit") or ask.chance.random() < 0.5):
        return _start(ask, place)
    memory = ask.chance.choice([size for size in ("192Mi", "208Mi", "224Mi", "240Mi") if size != _memory(failover)])
    like: Stored = {**instance(server, back=record.failback), "memory": memory}
    world.edit(Failover, record.name, {"spec": {"instance": like}})
    return f"{record.name} is started anew with {memory}"


def _start(ask: Ask, place: places.Place) -> str:
    refused = ask.world.owner_starts(ask.life.server, place.zone)
    return f"{place.machine} is started in {place.zone}{f': {refused}' if refused else ''}"


def stalled(each: Stored) -> bool:
    """Whether an object says that it needs a person."""
    return any(c["type"] == "Stalled" and c["status"] == "True" for c in each.get("status", {}).get("conditions", ()))


def _memory(failover: Stored) -> str | None:
    found: str | None = failover["spec"].get("instance", {}).get("memory")
    return found
