"""What a zone on this host is made of: its `inventory.yaml`, checked at the edge.

Whoever runs a zone writes this file by hand, so every complaint names the file and the line. What is here is the same
whatever the machines' disks are; an engine adds those.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeAlias, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lifeboat.engines.contract import Refused, Retry

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
LONG_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,198}[A-Za-z0-9])?")
_UNITS = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(k|M|G|T|Ki|Mi|Gi|Ti)?")
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class InventoryError(Retry):
    """Raised when a zone's inventory cannot be used; the message names file and line."""


def checked_name(name: str, what: str, pattern: re.Pattern[str] = NAME) -> str:
    """A name that is safe as part of a path and of a QEMU option.

    Raises:
        Refused: it is not.
    """
    if not pattern.fullmatch(name) or ".." in name:
        raise Refused(f"{name!r} is not a valid {what}: letters, digits, '.', '_' and '-' only")
    return name


def parse_quantity(value: object) -> int:
    """Bytes from a Kubernetes quantity: `512Mi`, `20G`, `1073741824`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _QUANTITY.fullmatch(str(value))
    if not match:
        raise ValueError(f"{value!r} is not a quantity such as 512Mi")
    return int(float(match[1]) * _UNITS[match[2] or ""])


def _valid_name(value: str) -> str:
    if not NAME.fullmatch(value) or ".." in value:
        raise ValueError(
            f"{value!r} may hold letters, digits, '.', '_' and '-' only, and begins and ends with the first two"
        )
    return value


def _loopback(value: str) -> str:
    if not ipaddress.IPv4Address(value).is_loopback:
        raise ValueError(f"{value} is not a loopback address (127.0.0.0/8)")
    return value


def _address(value: str) -> str:
    return str(ipaddress.IPv4Address(value))


def _cidr(value: str) -> str:
    network = ipaddress.IPv4Network(value)
    if network.prefixlen > 28:
        raise ValueError(f"{value} has no room: the prefix is 28 at most")
    return str(network)


Name: TypeAlias = Annotated[str, AfterValidator(_valid_name)]
Bytes: TypeAlias = Annotated[int, BeforeValidator(parse_quantity), Field(gt=0)]
Loopback: TypeAlias = Annotated[str, AfterValidator(_loopback)]
Address: TypeAlias = Annotated[str, AfterValidator(_address)]
Place: TypeAlias = tuple[int | str, ...]
Port: TypeAlias = Annotated[int, Field(ge=1, le=65535)]


class Part(BaseModel):
    """A part of a zone's file: no more fields than it has."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class NetworkSpec(Part):
    """A network of the zone. `address` is the loopback address that stands for it on this host.

    `reached_at` is the one at which the other zone reaches it, where something stands between.
    """

    name: Name
    cidr: Annotated[str, AfterValidator(_cidr)]
    address: Loopback
    reached_at: Loopback | None = Field(default=None, alias="reachedAt")

    @property
    def reached(self) -> str:
        """Where the other zone connects to."""
        return self.reached_at or self.address

    @property
    def net(self) -> ipaddress.IPv4Network:
        """The network's addresses."""
        return ipaddress.IPv4Network(self.cidr)

    def reserved(self) -> dict[str, str]:
        """Addresses that QEMU's user networking keeps for itself."""
        first = self.net.network_address
        return {
            str(first): "network address",
            str(first + 2): "network gateway",
            str(first + 3): "network name server",
            str(self.net.broadcast_address): "network broadcast address",
        }


class LimitsSpec(Part):
    """What one machine of the zone may use at most; the host's own where absent."""

    cpu: Annotated[int, Field(ge=1)] | None = None
    memory: Bytes | None = None


class ServerSpec(Part):
    """A server of the zone: the machine that replication protects, without its disks."""

    id: Name
    cpu: Annotated[int, Field(ge=1, le=255)] = 1
    memory: Bytes
    network: Name
    ip_address: Address | None = Field(default=None, alias="ipAddress")
    elastic_ip: Loopback | None = Field(default=None, alias="elasticIP")
    ports: tuple[Port, ...] = ()


ServerT = TypeVar("ServerT", bound=ServerSpec)


class Inventory(Part, Generic[ServerT]):
    """A zone's file as a whole."""

    zone: Name
    namespaces: tuple[str, ...] = ()
    networks: Annotated[tuple[NetworkSpec, ...], Field(min_length=1)]
    elastic_ips: tuple[Loopback, ...] = Field(default=(), alias="elasticIPs")
    limits: LimitsSpec = LimitsSpec()
    servers: tuple[ServerT, ...] = ()
    kind: Literal["Zone"] | None = None

    def network(self, name: str) -> NetworkSpec | None:
        """The network of that name."""
        return next((network for network in self.networks if network.name == name), None)

    def server(self, server_id: str) -> ServerT | None:
        """The server of that id."""
        return next((server for server in self.servers if server.id == server_id), None)

    def misfits(self) -> Iterator[tuple[Place, str]]:
        """What is right by itself and does not fit together, with its place."""
        for field, values in (
            ("networks", [network.name for network in self.networks]),
            ("servers", [server.id for server in self.servers]),
            ("elasticIPs", list(self.elastic_ips)),
        ):
            for index, value in enumerate(values):
                if value in values[:index]:
                    yield (field, index), f"{value} is there twice"
        addresses = set()
        for index, server in enumerate(self.servers):
            place = ("servers", index)
            network = self.network(server.network)
            if network is None:
                yield (*place, "network"), f"the zone has no network {server.network}"
                continue
            if server.ip_address is not None:
                problem = address_problem(network, server.ip_address)
                if problem is None and (network.name, server.ip_address) in addresses:
                    problem = f"{server.ip_address} is there twice"
                if problem is not None:
                    yield (*place, "ipAddress"), problem
                addresses.add((network.name, server.ip_address))
            if server.elastic_ip is not None and server.elastic_ip not in self.elastic_ips:
                yield (*place, "elasticIP"), f"{server.elastic_ip} is not among elasticIPs"
            yield from self.server_misfits(place, server)

    def server_misfits(self, place: Place, server: ServerT) -> Iterator[tuple[Place, str]]:  # noqa: ARG002 - for engines
        """The same of one server's disks, where these are in the file."""
        yield from ()


InventoryT = TypeVar("InventoryT", bound=Inventory[Any])


def address_problem(network: NetworkSpec, address: str) -> str | None:
    """Why a machine cannot have this address in this network, or None when it can."""
    if ipaddress.IPv4Address(address) not in network.net:
        return f"{address} is not in network {network.name} ({network.cidr})"
    if address in network.reserved():
        return f"{address} is the {network.reserved()[address]} of {network.name}"
    return None


def load(path: Path, kind: type[InventoryT]) -> InventoryT:
    """Read and check a zone's inventory. Blocking.

    Raises:
        InventoryError: the file cannot be used, with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InventoryError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InventoryError(f"{path}: not UTF-8 text") from error
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            data = loader.construct_document(root) if root is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise InventoryError(f"{path}, line {mark.line + 1 if mark else 1}: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InventoryError(f"{path}: {error}") from error
    if root is None or not isinstance(data, dict):
        raise InventoryError(f"{path}, line 1: a mapping with zone, networks and storage is wanted")
    try:
        inventory = kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        line = _line(root, first["loc"])
        raise InventoryError(f"{path}, line {line}: {f'{place}: ' if place else ''}{first['msg']}{more}") from error
    for where, problem in inventory.misfits():
        place = ".".join(str(part) for part in where)
        raise InventoryError(f"{path}, line {_line(root, where)}: {place}: {problem}")
    if inventory.zone != path.parent.name:
        line = _line(root, ("zone",))
        raise InventoryError(f"{path}, line {line}: zone is {inventory.zone!r}, but its folder is {path.parent.name!r}")
    return inventory


def _line(node: yaml.Node, loc: Iterable[int | str]) -> int:
    """The line of the innermost node on the way to `loc` that is in the file."""
    line = node.start_mark.line
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == part), None)
            if found is None:
                break
            line, node = found[0].start_mark.line, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return int(line) + 1
