"""Where a server serves, by what is written: its ledger, and the records of the machines in the zones."""

from __future__ import annotations

from dataclasses import dataclass

from lifeboat.engines.ledger import FailoverStage, Ledger
from lifeboat.engines.qemu import site_server
from lifeboat.engines.qemu.records import load_machine
from lifeboat.host import machine
from lifeboat.lifecycle.machines import failover_machine, was_launched
from tests.soak.world import SoakWorld, primary_ip

OWN = "own"
"""What the inventory's own server is called here, and its disks; all others have the name they were launched under."""

_SERVES = (FailoverStage.AWAITING_COMMIT, FailoverStage.COMMITTING, FailoverStage.COMMITTED)


@dataclass(frozen=True, slots=True)
class Place:
    """A machine that serves, or should: its zone, the address it answers at, and whose disks it runs on."""

    zone: str
    machine: str
    host: str
    disks: str


def zone_of(name: str) -> str:
    """The zone that a machine was launched in, if it is not a drill's."""
    return "zone-b" if name.startswith("failover-") else "zone-a"


def source(world: SoakWorld, server: str, ledger: Ledger | None) -> Place | None:
    """The machine that is copied from; None where it has no address that a client could reach."""
    if ledger is None or ledger.registered is None:
        return Place("zone-a", OWN, primary_ip(server), OWN)
    zone = zone_of(ledger.registered)
    record = load_machine(world.zone(zone), server, ledger.registered)
    if record is None or record.elastic_ip is None:
        return None
    return Place(zone, record.name, record.elastic_ip, record.disks_owner)


def serving(world: SoakWorld, server: str, ledger: Ledger | None) -> Place | None:
    """Where the server serves by its ledger, None while it is between two places."""
    record = ledger.failover if ledger is not None else None
    if ledger is None or record is None or record.stage is FailoverStage.STOPPING_REPLICATION:
        return source(world, server, ledger)
    attempt = record.attempts[-1]
    if record.stage not in _SERVES or attempt.shape.elastic_ip is None:
        return None
    name, disks = (failover_machine(ledger, number) for number in (attempt.number, attempt.disks_of))
    return Place(zone_of(name), name, attempt.shape.elastic_ip, disks)


def pid(world: SoakWorld, server: str, place: Place) -> int | None:
    """The process of the machine there, None where it does not run."""
    return _running(world, server).get(place.machine)


def stands(world: SoakWorld, server: str, place: Place) -> bool:
    """Whether the machine there is down, or stands still because its disk was full: its owner has to start it."""
    if pid(world, server, place) is None:
        return True
    zone = world.zone(place.zone)
    folder = zone.server_folder(server) if place.machine == OWN else zone.machine_folder(server, place.machine)
    return world.stands_still(folder)


def able_to_serve(world: SoakWorld, server: str) -> dict[str, int]:
    """All machines of a server that run and are not a drill's, with their processes."""
    return {name: pid for name, pid in _running(world, server).items() if name == OWN or was_launched(name)}


def _running(world: SoakWorld, server: str) -> dict[str, int]:
    own = machine.running(world.zone("zone-a").server_folder(server))
    return {**({OWN: own} if own is not None else {}), **world.launched(server)}


def registered(world: SoakWorld, server: str) -> set[str]:
    """The launched machines that are the server of their zone, and those whose disks they run on."""
    found = (
        site_server.find(world.zone(zone), server, registered_only=zone == "zone-b") for zone in ("zone-a", "zone-b")
    )
    names: set[str] = set()
    for each in found:
        if each is not None and each.machine is not None:
            record = load_machine(each.zone, server, each.machine)
            names |= {each.machine, record.disks_owner} if record is not None else {each.machine}
    return names
