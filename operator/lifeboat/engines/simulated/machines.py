"""The verbs of started machines: launch, halt, move an address, remove, cut loose from the points."""

from __future__ import annotations

import ipaddress
from itertools import chain

from lifeboat.engines.contract import Refused, Retry
from lifeboat.engines.facts import MachineState
from lifeboat.engines.simulated.state import Disks, MachineRecord, Model, Track, ZoneRecord
from lifeboat.engines.verbs import Halt, Launch, MakeIndependent, MoveElasticIP, RemoveMachine, Shape

_FIRST_DHCP_HOST = 15


def launch(model: Model, track: Track, verb: Launch) -> None:
    """Start a machine, on new disks that stand on a point or on kept ones; a running one is left alone."""
    existing = track.machines.get(verb.machine)
    if existing is not None and existing.state is MachineState.RUNNING:
        return
    _check_shape(track.recovery, _user(track, verb.machine), verb.shape)
    disks = _kept_disks(track, verb, existing) or _new_disks(track, verb)
    address = _take_address(track, verb)
    model.instances += 1
    machine = track.machines[verb.machine] = MachineRecord(
        name=verb.machine,
        instance_id=existing.instance_id if existing else f"i-{model.instances:06d}",
        shape=verb.shape,
        disks=disks,
        address=address,
        elastic_ip=None,
        agent_due=model.now + model.boot,
    )
    _give_elastic_ip(track, machine, verb.shape.elastic_ip)


def halt(track: Track, verb: Halt) -> None:
    """Stop a machine and keep its disks; one that does not exist does not run either."""
    if (machine := track.machines.get(verb.machine)) is not None:
        _down(track, machine, MachineState.HALTED, "")


def fail(track: Track, name: str, reason: str) -> None:
    """Let a machine die by itself."""
    _down(track, track.machine(name), MachineState.FAILED, reason)


def move_elastic_ip(track: Track, verb: MoveElasticIP) -> None:
    """Give a running machine another elastic IP, or none."""
    machine = track.machine(verb.machine)
    if machine.state is not MachineState.RUNNING:
        raise Retry(f"{verb.machine} does not run")
    _check_elastic_ip(track.recovery, _user(track, verb.machine), verb.elastic_ip)
    _give_elastic_ip(track, machine, verb.elastic_ip)


def remove(track: Track, verb: RemoveMachine) -> None:
    """Stop a machine and forget it; its disks go with the last machine that is known to have run on them."""
    machine = track.machines.pop(verb.machine, None)
    if machine is None:
        return
    _down(track, machine, MachineState.HALTED, "")
    if not any(other.disks is machine.disks for other in track.machines.values()):
        track.recovery.used_bytes -= machine.disks.size


def make_independent(model: Model, track: Track, verb: MakeIndependent) -> None:
    """Start to copy what a machine's disks still read from a point."""
    machine = track.machine(verb.machine)
    if machine.disks.point is None or machine.disks.merging is not None:
        return
    if machine.state is not MachineState.RUNNING:
        raise Retry(f"{verb.machine} does not run: its disks are copied while it does")
    hardware = track.hardware
    size = sum(disk.allocated_bytes for disk in hardware.disks) if hardware else 0
    track.recovery.need(size)
    track.recovery.used_bytes += size
    machine.disks.size = size
    machine.disks.merging = model.now.timestamp() + size / model.copy_rate


def progress(model: Model, track: Track) -> None:
    """Let boots and copies that are over by now take effect."""
    for machine in track.machines.values():
        if machine.agent_due is not None and machine.agent_due <= model.now:
            machine.agent, machine.agent_due = True, None
        disks = machine.disks
        if disks.merging is not None and disks.merging <= model.now.timestamp():
            disks.point, disks.merging = None, None


def _user(track: Track, machine: str) -> str:
    return f"{track.server_id}/{machine}"


def _kept_disks(track: Track, verb: Launch, existing: MachineRecord | None) -> Disks | None:
    """The disks that are there already: those of `disks_of`, or those of the machine that is started again."""
    if verb.disks_of is None:
        return existing.disks if existing else None
    owner = track.machines.get(verb.disks_of) or existing
    if owner is None:
        raise Refused(f"the disks of {verb.disks_of} are not there any more")
    for other in track.machines.values():
        if other.disks is owner.disks and other.state is MachineState.RUNNING:
            raise Retry(f"{other.name} still runs on these disks")
    return owner.disks


def _new_disks(track: Track, verb: Launch) -> Disks:
    point = track.points.get(verb.point)
    if point is None:
        raise Refused(f"{track.recovery.name} has no point {verb.point} of {track.server_id}")
    if point.problem is not None or point.held is None:
        raise Refused(f"point {verb.point} cannot be used: {point.problem}")
    track.recovery.need(0)
    return Disks(point.held, point, 0)


def _check_shape(zone: ZoneRecord, user: str, shape: Shape) -> None:
    """Refuse what the zone cannot give."""
    if shape.cpu < 1 or shape.cpu > zone.cpu:
        raise Refused(f"{zone.name} gives a machine 1 to {zone.cpu} CPUs, {shape.cpu} are asked for")
    if shape.memory_bytes < 1 or shape.memory_bytes > zone.memory_bytes:
        raise Refused(f"{zone.name} has {zone.memory_bytes} bytes of memory, {shape.memory_bytes} are asked for")
    if shape.use_ssd and not zone.ssd:
        raise Refused(f"{zone.name} has no SSD storage")
    if (cidr := zone.networks.get(shape.network)) is None:
        raise Refused(f"{zone.name} has no network {shape.network}")
    if (address := shape.ip_address) is not None:
        if ipaddress.ip_address(address) not in ipaddress.ip_network(cidr):
            raise Refused(f"{address} is not in {shape.network} ({cidr})")
        holder = zone.taken[shape.network].get(address)
        if holder not in {None, user} and not shape.isolated:
            raise Refused(f"{address} is taken by {holder}")
    _check_elastic_ip(zone, user, shape.elastic_ip)


def _check_elastic_ip(zone: ZoneRecord, user: str, elastic_ip: str | None) -> None:
    if elastic_ip is None:
        return
    if elastic_ip not in zone.elastic_ips:
        raise Refused(f"{elastic_ip} is not in the pool of {zone.name}")
    if (holder := zone.elastic_ips[elastic_ip]) not in {None, user}:
        raise Refused(f"{elastic_ip} is taken by {holder}")


def _take_address(track: Track, verb: Launch) -> str:
    """The asked address, or a free one; an isolated machine takes none from the others."""
    zone, shape = track.recovery, verb.shape
    taken = zone.taken[shape.network]
    address = shape.ip_address
    if address is None:
        network = ipaddress.ip_network(zone.networks[shape.network])
        first, last = min(_FIRST_DHCP_HOST, network.num_addresses // 2), network.num_addresses - 1
        # Starting where earlier leases probably end keeps thousands of launches from searching the same addresses.
        order = chain(range(min(first + len(taken), last), last), range(first, last))
        address = next((free for free in (str(network[host]) for host in order) if free not in taken), None)
        if address is None:
            raise Retry(f"{shape.network} has no free address")
    if not shape.isolated:
        taken[address] = _user(track, verb.machine)
    return address


def _give_elastic_ip(track: Track, machine: MachineRecord, elastic_ip: str | None) -> None:
    if machine.elastic_ip is not None:
        track.recovery.elastic_ips[machine.elastic_ip] = None
    machine.elastic_ip = elastic_ip
    if elastic_ip is not None:
        track.recovery.elastic_ips[elastic_ip] = _user(track, machine.name)


def _down(track: Track, machine: MachineRecord, state: MachineState, reason: str) -> None:
    """Take a machine off the networks, whatever brought it down."""
    if machine.state is MachineState.HALTED and state is MachineState.HALTED:
        return
    taken = track.recovery.taken[machine.shape.network]
    if taken.get(machine.address) == _user(track, machine.name):
        del taken[machine.address]
    _give_elastic_ip(track, machine, None)
    machine.state, machine.reason = state, reason
    machine.agent, machine.agent_due = False, None
    if machine.disks.merging is not None:
        track.recovery.used_bytes -= machine.disks.size
        machine.disks.merging, machine.disks.size = None, 0
