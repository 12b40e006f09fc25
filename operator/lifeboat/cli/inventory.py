"""`lifeboat inventory`: what the two sites of a pair have to choose from, before a manifest is written.

It reads what the operator told in the pair's status, so it needs no access to the zones.
"""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import MAX_TAKEN, Site, SiteInventory, SiteNetwork, SitePair
from lifeboat.cli import client, paint, rows
from lifeboat.cli.client import Failure
from lifeboat.cli.paint import Mood, Row, Rows, cell
from lifeboat.lifecycle.conditions import READY, find

NEXT_FREE: Final = 3
KEPT: Final = "network "
"""How the user of an address begins that the network itself keeps."""


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> ArgumentParser:
    """Declare the subcommand."""
    made = subparsers.add_parser(
        "inventory",
        help="list the servers, networks and addresses that a site pair has to choose from",
        description=(__doc__ or "").split("\n")[0],
    )
    made.add_argument("pair", help="the name of the SitePair")
    client.add_arguments(made)
    return made


def run(arguments: Namespace) -> int:
    """Show it."""
    try:
        parts = asyncio.run(_read(arguments))
    except Failure as failure:
        sys.stderr.write(f"lifeboat inventory: {failure}\n")
        return failure.code
    paint.show(paint.console_for(sys.stdout), parts)
    return client.FINE


async def _read(arguments: Namespace) -> Sequence[RenderableType]:
    async with client.connect(arguments) as connection:
        pair = await connection.read(SitePair, connection.namespace, arguments.pair)
        return inventory(pair, await connection.every(ProtectedServer, connection.namespace))


def inventory(pair: SitePair, servers: Iterable[ProtectedServer]) -> list[RenderableType]:
    """The parts of the screen; `servers` are the ProtectedServers of the pair's namespace.

    Raises:
        Failure: nothing is known of the sites.
    """
    found, ready = pair.status.inventory, find(pair.status.conditions, READY)
    if found is None:
        why = f"{ready.reason}: {ready.message}" if ready is not None else rows.UNSEEN
        raise Failure(f"nothing is known yet of what {pair.metadata.name} has to choose from. {why}")
    name = pair.metadata.name
    parts: list[RenderableType] = [
        Text.assemble(
            (name, paint.HEADING),
            (f"  site pair  namespace {pair.metadata.namespace}  ", paint.QUIET),
            rows.mood(pair).text(),
        )
    ]
    if ready is not None and rows.mood(pair) is not Mood.OK:
        parts.append(paint.told(ready.reason, ready.message, Mood.WAITING.style))
        parts.append(Text("What a silent site has is shown as it was last seen.", style=Mood.WAITING.style))
    protected = {each.spec.server_id: each.metadata.name for each in servers if each.spec.site_pair_ref.name == name}
    parts += _site("Primary site", pair.spec.primary, found.primary)
    parts += _servers(pair.spec.primary, found.primary, protected)
    parts += _site("Recovery site", pair.spec.recovery, found.recovery)
    return parts


def _site(title: str, site: Site, found: SiteInventory | None) -> list[RenderableType]:
    parts: list[RenderableType] = [
        Text(""),
        Text.assemble((title, paint.HEADING), (f"  zone {site.zone}", paint.QUIET)),
    ]
    if found is None:
        return [
            *parts,
            _quiet_line("nothing is known of it: it has not answered yet, or this namespace may not use it"),
        ]
    parts.append(_limits(found))
    networks = [_network(network, site) for network in found.networks]
    parts += [Text(""), Rows(("NETWORK", "CIDR", "USED FOR", "TAKEN", "NEXT FREE"), networks)]
    if found.elastic_ips:
        free = sum(each.used_by is None for each in found.elastic_ips)
        addresses = [
            Row(
                (
                    cell(each.address, paint.HEADING),
                    cell(f"used by {each.used_by}") if each.used_by else cell("free", "green"),
                )
            )
            for each in found.elastic_ips
        ]
        parts += [Text(""), Rows(("ELASTIC IP", f"{free} OF {len(found.elastic_ips)} FREE"), addresses)]
    return parts


def _quiet_line(text: str) -> RenderableType:
    return paint.indented(paint.quiet(text))


def _limits(found: SiteInventory) -> RenderableType:
    parts = [
        f"at most {paint.count(found.cpu, 'CPU')}" if found.cpu is not None else "",
        f"{paint.size(found.memory)} memory" if found.memory is not None else "",
        {True: "SSD storage", False: "no SSD storage"}.get(found.ssd, "") if found.ssd is not None else "",
        paint.count(found.server_count, "server") if found.server_count is not None else "",
    ]
    return paint.indented(Text(", ".join(part for part in parts if part)))


def _network(network: SiteNetwork, site: Site) -> Row:
    roles = {"workload": site.network, "replication": site.replication_network, "recovery": site.recovery_network}
    used = [(each.address, each.by) for each in network.taken if not each.by.startswith(KEPT)]
    free = list(islice(free_addresses(network), NEXT_FREE))
    return Row(
        (
            cell(network.name, paint.HEADING),
            cell(network.cidr),
            cell(", ".join(role for role, name in roles.items() if name == network.name)),
            cell(f"{len(used)}{' or more' if len(network.taken) >= MAX_TAKEN else ''}"),
            cell(", ".join(free) or "none", "green" if free else "yellow"),
        ),
        notes=[paint.quiet("   ".join(f"{address} {by}" for address, by in used))] if used else (),
    )


def free_addresses(network: SiteNetwork) -> Iterable[str]:
    """The addresses of the network that nobody has, lowest first, as far as is known.

    Where the list of taken addresses is full, nothing is known beyond its last.
    """
    taken = {each.address for each in network.taken}
    last = ipaddress.ip_address(network.taken[-1].address) if len(network.taken) >= MAX_TAKEN else None
    for host in ipaddress.ip_network(network.cidr).hosts():
        if last is not None and int(host) > int(last):
            return
        if str(host) not in taken:
            yield str(host)


def _servers(site: Site, found: SiteInventory | None, protected: Mapping[str, str]) -> list[RenderableType]:
    if found is None:
        return []
    if not found.servers:
        return [Text(""), _quiet_line(f"zone {site.zone} has no servers: its inventory lists none")]
    lines = [
        Row(
            (
                cell(server, paint.HEADING),
                cell(f"protected as {protected[server]}") if server in protected else cell("may be protected", "green"),
            )
        )
        for server in found.servers
    ]
    parts: list[RenderableType] = [Text(""), Rows(("SERVER", "PROTECTION"), lines)]
    more = (found.server_count or 0) - len(found.servers)
    if more > 0:
        parts.append(_quiet_line(f"and {more} more: ask whoever runs the zone for their ids"))
    return parts
