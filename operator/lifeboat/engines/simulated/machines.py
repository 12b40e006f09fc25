"""The verbs of started machines: launch, halt, move an address, remove, cut loose from the points."""

from __future__ import annotations

from dataclasses import replace

from lifeboat.engines.contract import Refused, Retry
from lifeboat.engines.facts import MachineState
from lifeboat.engines.simulated import networks, power
from lifeboat.engines.simulated.state import Disks, MachineRecord, Model, Track
from lifeboat.engines.verbs import Continue, Halt, Launch, MakeIndependent, MoveElasticIP, RemoveMachine


def launch(model: Model, track: Track, verb: Launch) -> None:
    """Start a machine, on new disks that stand on a point or on kept ones; a running one is left alone."""
    existing = track.machines.get(verb.machine)
    if existing is not None and existing.running:
        return
    networks.check_shape(track.target_zone, f"{track.server_id}/{verb.machine}", verb.shape)
    disks = _kept_disks(track, verb, existing) or _new_disks(track, verb)
    address = networks.choose_address(track.target_zone, track.server_id, verb.shape)
    if existing is None:
        model.instances += 1
        machine = track.machines[verb.machine] = MachineRecord(
            server_id=track.server_id,
            zone=track.target_zone,
            name=verb.machine,
            instance_id=f"i-{model.instances:06d}",
            shape=verb.shape,
            disks=disks,
            address=address,
        )
    else:
        machine = existing
        machine.shape, machine.disks, machine.address = verb.shape, disks, address
    power.boot(model, machine)


def halt(model: Model, track: Track, verb: Halt) -> None:
    """Stop a machine and keep its disks; one that does not exist does not run either."""
    machine = track.machines.get(verb.machine)
    if machine is not None and machine.state is not MachineState.HALTED:
        power.end(model, machine, MachineState.HALTED)


def go_on(track: Track, verb: Continue) -> None:
    """Let a machine go on that stands still since its zone was full."""
    machine = track.machine(verb.machine)
    if not machine.running:
        raise Retry(f"{verb.machine} does not run")
    machine.zone.need(0)
    machine.out_of_space = False


def move_elastic_ip(track: Track, verb: MoveElasticIP) -> None:
    """Give a running machine another elastic IP, or none."""
    machine = track.machine(verb.machine)
    if not machine.running:
        raise Retry(f"{verb.machine} does not run")
    networks.check_elastic_ip(machine.zone, machine.user, verb.elastic_ip)
    networks.give_elastic_ip(machine, verb.elastic_ip)
    machine.shape = replace(machine.shape, elastic_ip=verb.elastic_ip)


def remove(model: Model, track: Track, verb: RemoveMachine) -> None:
    """Stop a machine and forget it, also as the server that it was registered as.

    Its disks go with the last machine that is known to have run on them.
    """
    machine = track.machines.pop(verb.machine, None)
    if machine is None:
        return
    power.end(model, machine, MachineState.HALTED)
    zone = machine.zone
    if zone.registered.get(machine.server_id) is machine:
        del zone.registered[machine.server_id]
    if not any(other.disks is machine.disks for other in track.machines.values()):
        zone.used_bytes -= machine.disks.size


def make_independent(model: Model, track: Track, verb: MakeIndependent) -> None:
    """Start to copy what a machine's disks still read from a point."""
    machine = track.machine(verb.machine)
    if machine.disks.point is None or machine.disks.merging is not None:
        return
    if not machine.running:
        raise Retry(f"{verb.machine} does not run: its disks are copied while it does")
    size = sum(disk.allocated_bytes for disk in machine.disks.layout)
    machine.zone.need(size)
    machine.zone.used_bytes += size
    machine.disks.size = size
    machine.disks.merging = model.now.timestamp() + size / model.copy_rate


def progress(model: Model, track: Track) -> None:
    """Let copies that are over by now take effect."""
    for machine in track.machines.values():
        disks = machine.disks
        if disks.merging is not None and disks.merging <= model.now.timestamp():
            disks.point, disks.merging = None, None


def _kept_disks(track: Track, verb: Launch, existing: MachineRecord | None) -> Disks | None:
    """The disks that are there already: those of `disks_of`, or those of the machine that is started again."""
    if verb.disks_of is None and existing is None:
        return None
    owner = track.machines.get(verb.disks_of or verb.machine) or existing
    if owner is None or owner.disks.given_up:
        raise Refused(f"the disks of {verb.disks_of or verb.machine} are not there any more")
    if owner.fenced:
        raise Refused(f"{owner.user} is fenced, and nothing starts on its disks")
    for other in track.machines.values():
        if other.disks is owner.disks and other.running:
            raise Retry(f"{other.name} still runs on these disks")
    return owner.disks


def _new_disks(track: Track, verb: Launch) -> Disks:
    point = track.points.get(verb.point)
    if point is None:
        raise Refused(f"{track.target_zone.name} has no point {verb.point} of {track.server_id}")
    if point.problem is not None or point.held is None:
        raise Refused(f"point {verb.point} cannot be used: {point.problem}")
    track.target_zone.need(0)
    return Disks(track.hardware.disks if track.hardware else (), point.held, point)
