"""The addresses of a zone on this host: who has which, and which a new machine gets."""

from __future__ import annotations

import ipaddress

from lifeboat.engines.ceph.compute import Order
from lifeboat.engines.ceph.compute.host.records import MachineRecord, Zone, all_machines
from lifeboat.engines.contract import Refused
from lifeboat.host import machine
from lifeboat.host.inventory import NetworkSpec, ServerSpec, address_problem
from lifeboat.host.records import Wanted


def own(zone: Zone, server: ServerSpec) -> str:
    """The address that a server of the inventory has: its own, or one by its place in there."""
    if server.ip_address is not None:
        return server.ip_address
    network = zone.network(server.network)
    fixed = {each.ip_address for each in zone.inventory.servers}
    unfixed = [each.id for each in zone.inventory.servers if each.ip_address is None and each.network == server.network]
    free = [str(host) for host in network.net.hosts() if str(host) not in network.reserved() and str(host) not in fixed]
    place = unfixed.index(server.id)
    if place >= len(free):
        raise Refused(f"network {network.name} has no address left for server {server.id}")
    return free[place]


def taken(zone: Zone, network: str, besides: str = "") -> dict[str, str]:
    """The addresses of a network that somebody has, with whom."""
    found = {own(zone, server): server.id for server in _running(zone) if server.network == network}
    found |= {
        each.address: each.user
        for each in _using(zone)
        if each.network == network and not each.isolated and each.user != besides
    }
    return found


def elastic_ips(zone: Zone) -> dict[str, str]:
    """The elastic IPs that somebody has, with whom."""
    found = {server.elastic_ip: server.id for server in _running(zone) if server.elastic_ip is not None}
    return found | {each.elastic_ip: each.user for each in _using(zone) if each.elastic_ip is not None}


def check_elastic_ip(zone: Zone, user: str, elastic_ip: str | None) -> None:
    """Refuse an elastic IP that the zone has not, or that somebody else has."""
    if elastic_ip is None:
        return
    if elastic_ip not in zone.inventory.elastic_ips:
        raise Refused(f"{elastic_ip} is not an elastic IP of zone {zone.name}")
    holder = elastic_ips(zone).get(elastic_ip)
    if holder is not None and holder != user:
        raise Refused(f"elastic IP {elastic_ip} is in use by {holder}")


def choose(zone: Zone, order: Order) -> str:
    """The address of a machine: what was asked for, what its server has here or had there, or the first free one.

    Raises:
        Refused: it is not to be had.
    """
    shape = order.shape
    network = zone.network(shape.network)
    used = {} if shape.isolated else taken(zone, network.name, f"{order.server_id}/{order.name}")
    if shape.ip_address is not None:
        problem = _problem(network, shape.ip_address)
        if problem is None and shape.ip_address in used:
            problem = f"{shape.ip_address} is taken by {used[shape.ip_address]}"
        if problem is not None:
            raise Refused(problem)
        return shape.ip_address
    own = zone.inventory.server(order.server_id)
    fixed: tuple[str, ...] = () if own is None or own.ip_address is None else (own.ip_address,)
    for address in (*fixed, *order.had, *(str(host) for host in network.net.hosts())):
        if _problem(network, address) is None and address not in used:
            return address
    raise Refused(f"network {network.name} has no free address")


def _problem(network: NetworkSpec, address: str) -> str | None:
    try:
        return address_problem(network, address)
    except ipaddress.AddressValueError:
        return f"{address} is not an IPv4 address"


def _running(zone: Zone) -> tuple[ServerSpec, ...]:
    return tuple(
        server for server in zone.inventory.servers if machine.running(zone.server_folder(server.id)) is not None
    )


def _using(zone: Zone) -> tuple[MachineRecord, ...]:
    """The launched machines that run or are being started: two that start at once must not get one address."""
    return tuple(
        record
        for record in all_machines(zone)
        if record.wanted is Wanted.STARTING
        or machine.running(zone.machine_folder(record.server_id, record.name)) is not None
    )
