"""The addresses of a zone: who may have which, and who has it while it runs."""

from __future__ import annotations

import ipaddress
from itertools import chain

from lifeboat.engines.contract import Refused, Retry
from lifeboat.engines.simulated.state import InventoryServer, MachineRecord, ServerRecord, ZoneRecord
from lifeboat.engines.verbs import Shape

_FIRST_DHCP_HOST = 15


def check_shape(zone: ZoneRecord, user: str, shape: Shape) -> None:
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
        if not shape.isolated:
            _check_address(zone, user, shape.network, address)
    check_elastic_ip(zone, user, shape.elastic_ip)


def check_elastic_ip(zone: ZoneRecord, user: str, elastic_ip: str | None) -> None:
    """Refuse an elastic IP that the zone has not, or that somebody else has."""
    if elastic_ip is None:
        return
    if elastic_ip not in zone.elastic_ips:
        raise Refused(f"{elastic_ip} is not in the pool of {zone.name}")
    if (holder := zone.elastic_ips[elastic_ip]) not in {None, user}:
        raise Refused(f"{elastic_ip} is taken by {holder}")


def choose_address(zone: ZoneRecord, server_id: str, shape: Shape) -> str:
    """The asked address, else the one that the zone's own server of that id had, else a free one."""
    if shape.ip_address is not None:
        return shape.ip_address
    taken = zone.taken[shape.network]
    network = ipaddress.ip_network(zone.networks[shape.network])
    own = zone.server(server_id)
    before = [each for each in own.hardware.addresses if ipaddress.ip_address(each) in network] if own else []
    first, last = min(_FIRST_DHCP_HOST, network.num_addresses // 2), network.num_addresses - 1
    # Starting where earlier leases probably end keeps thousands of launches from searching the same addresses.
    order = chain(range(min(first + len(taken), last), last), range(first, last))
    address = next((free for free in chain(before, (str(network[host]) for host in order)) if free not in taken), None)
    if address is None:
        raise Retry(f"{shape.network} has no free address")
    return address


def join(server: ServerRecord) -> None:
    """Give a server that starts its addresses; refuses, and gives none, where somebody else has one meanwhile."""
    zone = server.zone
    match server:
        case InventoryServer():
            wanted = [(name, each) for each in server.hardware.addresses if (name := zone.network_of(each)) is not None]
        case MachineRecord():
            wanted = [] if server.shape.isolated else [(server.shape.network, server.address)]
            check_elastic_ip(zone, server.user, server.shape.elastic_ip)
    for network, address in wanted:
        _check_address(zone, server.user, network, address)
    for network, address in wanted:
        zone.taken[network][address] = server.user
    if isinstance(server, MachineRecord):
        give_elastic_ip(server, server.shape.elastic_ip)


def leave(server: ServerRecord) -> None:
    """Take the addresses of a server that ended, whatever ended it."""
    for taken in server.zone.taken.values():
        for address in server.hardware.addresses:
            if taken.get(address) == server.user:
                del taken[address]
    if isinstance(server, MachineRecord):
        give_elastic_ip(server, None)


def give_elastic_ip(machine: MachineRecord, elastic_ip: str | None) -> None:
    """Let a machine have this elastic IP, or none, instead of the one that it has."""
    pool = machine.zone.elastic_ips
    if machine.elastic_ip is not None:
        pool[machine.elastic_ip] = None
    machine.elastic_ip = elastic_ip
    if elastic_ip is not None:
        pool[elastic_ip] = machine.user


def _check_address(zone: ZoneRecord, user: str, network: str, address: str) -> None:
    if (holder := zone.taken[network].get(address)) not in {None, user}:
        raise Refused(f"{address} is taken by {holder}")
