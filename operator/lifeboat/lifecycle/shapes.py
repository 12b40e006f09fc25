"""From an `instance` block to the machine that is started: defaults, and what can be checked before anything is.

Each check is a named function that returns a notice or None; `SHAPE_CHECKS` is their order.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from lifeboat.api.common import Instance
from lifeboat.api.names import AUTO
from lifeboat.engines.facts import Hardware, SiteFacts
from lifeboat.engines.verbs import Shape
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.view import Notice


@dataclass(frozen=True, slots=True)
class ShapeRequest:
    """What a shape is made from.

    `owners` are users of addresses that give way to the machine: itself, by any name. `promised` are elastic IPs that
    were given to drills which do not run yet.
    """

    instance: Instance
    hardware: Hardware
    default_network: str | None
    site: SiteFacts
    isolated: bool
    owners: frozenset[str]
    elastic_ip_now: str | None = None
    promised: frozenset[str] = frozenset()


def fingerprint(instance: Instance) -> str:
    """The block as it was asked for, without its script: what an edit changes."""
    return instance.model_dump_json(by_alias=True, exclude_none=True, exclude={"post_script"})


def same_but_elastic_ip(asked: str, instance: Instance) -> bool:
    """Whether only the elastic IP differs between what was asked and this block: that moves without a restart."""
    return fingerprint(Instance.model_validate_json(asked).model_copy(update={"elastic_ip": None})) == fingerprint(
        instance.model_copy(update={"elastic_ip": None})
    )


def shape(request: ShapeRequest) -> Shape | Notice:
    """The machine to start, or the first reason why it cannot be."""
    for check in SHAPE_CHECKS:
        if notice := check(request):
            return notice
    network = _network_name(request)
    assert network is not None  # noqa: S101 - network_named has seen it
    instance = request.instance
    return Shape(
        cpu=instance.cpu or request.hardware.cpu,
        memory_bytes=instance.memory or request.hardware.memory_bytes,
        network=network,
        name=instance.name,
        ip_address=instance.ip_address,
        use_ssd=bool(instance.use_ssd),
        elastic_ip=_elastic_ip(request),
        isolated=request.isolated,
    )


def _network_name(request: ShapeRequest) -> str | None:
    return request.instance.network or request.default_network


def _elastic_ip(request: ShapeRequest) -> str | None:
    wanted = request.instance.elastic_ip
    if wanted != AUTO:
        return wanted
    now = request.elastic_ip_now
    if now is not None and request.site.elastic_ips.get(now) in (None, *request.owners):
        return now
    free = (ip for ip, user in sorted(request.site.elastic_ips.items()) if user is None)
    return next((ip for ip in free if ip not in request.promised), None)


def network_named(request: ShapeRequest) -> Notice | None:
    """A network is named, here or by the server or site."""
    if _network_name(request) is None:
        return Notice(
            reasons.NETWORK_MISSING,
            "no recovery network is named: set spec.instance.network, or recoveryNetwork on the ProtectedServer or "
            "on the SitePair's recovery site",
        )
    return None


def network_exists(request: ShapeRequest) -> Notice | None:
    """The site has the network."""
    name = _network_name(request) or ""
    if request.site.network(name) is None:
        known = ", ".join(sorted(network.name for network in request.site.networks)) or "none"
        return Notice(reasons.UNKNOWN_NETWORK, f"zone {request.site.zone} has no network {name!r}; it has: {known}")
    return None


def address_in_network(request: ShapeRequest) -> Notice | None:
    """The address asked for is one of the network's, and not one that the network needs itself."""
    address = request.instance.ip_address
    network = request.site.network(_network_name(request) or "")
    if address is None or network is None:
        return None
    cidr = ipaddress.ip_network(network.cidr)
    if ipaddress.ip_address(address) not in cidr:
        return Notice(
            reasons.ADDRESS_OUTSIDE_NETWORK,
            f"{address} is not in network {network.name} ({network.cidr}); choose an address of it, or leave "
            "spec.instance.ipAddress out",
        )
    return None


def address_free(request: ShapeRequest) -> Notice | None:
    """Nobody else has the address. An isolated machine meets nobody, so it may have any."""
    address = request.instance.ip_address
    network = request.site.network(_network_name(request) or "")
    if address is None or network is None:
        return None
    user = network.taken.get(address)
    if user is None or user in request.owners or (request.isolated and not user.startswith("network ")):
        return None
    return Notice(
        reasons.ADDRESS_TAKEN, f"{address} in network {network.name} is taken by {user}; choose another address"
    )


def elastic_ip_available(request: ShapeRequest) -> Notice | None:
    """The elastic IP is one of the pool's, and free."""
    wanted = request.instance.elastic_ip
    pool = request.site.elastic_ips
    if wanted is None:
        return None
    free = ", ".join(sorted(ip for ip, user in pool.items() if user is None)) or "none"
    if wanted == AUTO:
        if _elastic_ip(request) is None:
            return Notice(
                reasons.ELASTIC_IP_UNAVAILABLE,
                f"no elastic IP of zone {request.site.zone} is free; clear a drill, or leave elasticIP out",
            )
        return None
    if wanted not in pool:
        return Notice(
            reasons.ELASTIC_IP_UNAVAILABLE,
            f"zone {request.site.zone} has no elastic IP {wanted}; free are: {free}",
        )
    user = pool[wanted]
    if user is not None and user not in request.owners:
        return Notice(reasons.ELASTIC_IP_UNAVAILABLE, f"elastic IP {wanted} is used by {user}; free are: {free}")
    return None


def fits(request: ShapeRequest) -> Notice | None:
    """The site has that much CPU and memory."""
    cpu = request.instance.cpu or request.hardware.cpu
    memory = request.instance.memory or request.hardware.memory_bytes
    if memory > request.site.memory_bytes:
        return Notice(
            reasons.TOO_LARGE,
            f"{_mib(memory)} of memory are asked for and zone {request.site.zone} gives at most "
            f"{_mib(request.site.memory_bytes)}; set spec.instance.memory to less",
        )
    if cpu > request.site.cpu:
        return Notice(
            reasons.TOO_LARGE,
            f"{cpu} CPUs are asked for and zone {request.site.zone} gives at most {request.site.cpu}; "
            "set spec.instance.cpu to less",
        )
    return None


def tier_exists(request: ShapeRequest) -> Notice | None:
    """The site has an SSD tier where one is asked for."""
    if request.instance.use_ssd and request.site.ssd is None:
        return Notice(reasons.NO_SSD, f"zone {request.site.zone} has no SSD tier; leave useSSD out")
    return None


def space_left(request: ShapeRequest) -> Notice | None:
    """The storage tier has room for what the machine writes at its start."""
    site, instance = request.site, request.instance
    free = (site.ssd if instance.use_ssd and site.ssd is not None else site.standard).free_bytes
    if free < MACHINE_RESERVE_BYTES:
        tier = "SSD storage" if instance.use_ssd else "disk"
        return Notice(
            reasons.NO_SPACE,
            f"the {tier} of zone {site.zone} has {_mib(free)} left, too little to start a server; "
            f"free at least {_mib(MACHINE_RESERVE_BYTES)}",
        )
    return None


# What a guest writes while it boots and recovers its journals, with room to spare.
MACHINE_RESERVE_BYTES = 64 * 1024 * 1024

SHAPE_CHECKS: tuple[Callable[[ShapeRequest], Notice | None], ...] = (
    network_named,
    network_exists,
    address_in_network,
    address_free,
    elastic_ip_available,
    fits,
    tier_exists,
    space_left,
)


def _mib(size: int) -> str:
    return f"{size / 1024**2:.0f} MiB"
