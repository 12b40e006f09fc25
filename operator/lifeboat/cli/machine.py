"""`lifeboat machine`: start, stop and list the servers of a zone, for whoever runs the zone of the qemu engine.

It works on the zone's folder and needs no cluster. It stops where the engine stops: a fenced server, whose work another
zone has taken over, is not started by anybody. Neither is one of a zone that is cut off, which another zone may have
taken over without being able to say so; to stop one there is what its owner has to be able to do.
"""

from __future__ import annotations

import asyncio
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from lifeboat import clock
from lifeboat.cli import client, paint
from lifeboat.cli.paint import Mood, Row, Rows, cell
from lifeboat.engines.contract import EngineError, Retry
from lifeboat.engines.facts import Source
from lifeboat.engines.qemu import site_server
from lifeboat.engines.qemu.servers import Servers
from lifeboat.engines.qemu.site_server import SiteServer
from lifeboat.engines.qemu.zones import Zone, Zones
from lifeboat.host.guest import Guests
from lifeboat.host.qmp import Monitors


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> ArgumentParser:
    """Declare the subcommand and its own."""
    made = subparsers.add_parser(
        "machine", help="start, stop and list the servers of a qemu zone", description=(__doc__ or "").split("\n")[0]
    )
    verbs = made.add_subparsers(title="verbs", required=True, dest="verb", metavar="VERB")
    for verb, what in (
        ("start", "start a server, or see that it runs"),
        ("stop", "cut a server's power, or see that it does not run"),
        ("list", "list the zone's servers, or show one"),
    ):
        each = verbs.add_parser(verb, help=what, description=what)
        each.add_argument(
            "zone", type=Path, metavar="ZONE_FOLDER", help="the folder that holds the zone's inventory.yaml"
        )
        each.add_argument("server", nargs="?" if verb == "list" else None, help="the server's id")
    return made


def run(arguments: Namespace) -> int:
    """Do it, and say what was done."""
    try:
        asyncio.run(_run(arguments))
    except EngineError as error:
        sys.stderr.write(f"lifeboat machine: {error}\n")
        return client.SILENT if isinstance(error, Retry) else client.REFUSED
    except OSError as error:
        sys.stderr.write(f"lifeboat machine: {error}\n")
        return client.REFUSED
    return client.FINE


async def _run(arguments: Namespace) -> None:
    folder: Path = arguments.zone.resolve()
    zone = Zones(folder.parent).zone(folder.name, at_hand=arguments.verb != "start")
    servers = Servers(Monitors(), Guests(), clock.now)
    match arguments.verb:
        case "start":
            await servers.start(site_server.to_start(zone, arguments.server))
            sys.stdout.write(f"server {arguments.server} runs in zone {zone.name}\n")
        case "stop":
            await servers.stop(site_server.present(zone, arguments.server))
            sys.stdout.write(f"server {arguments.server} does not run in zone {zone.name}\n")
        case _:
            one = (site_server.present(zone, arguments.server),) if arguments.server else None
            found = [(server, await servers.source(server)) for server in one or site_server.everyone(zone)]
            paint.show(paint.console_for(sys.stdout), listing(zone, found))


def listing(zone: Zone, found: list[tuple[SiteServer, Source]]) -> list[RenderableType]:
    """The parts of the screen that lists servers."""
    if not found:
        return [paint.quiet(f"zone {zone.name} has no servers: its inventory lists none")]
    return [
        Rows(
            ("SERVER", "STATE", "CLIENT", "CPU", "MEMORY", "NETWORK", "ADDRESS", "ELASTIC IP", "MACHINE"),
            [
                Row(
                    (
                        cell(server.server_id, paint.HEADING),
                        _state(source),
                        cell(("answers" if source.agent_connected else "silent") if source.running else None),
                        cell(server.what.cpu),
                        cell(paint.size(server.memory_bytes)),
                        cell(server.what.network),
                        cell(server.address),
                        cell(server.what.elastic_ip),
                        cell(server.machine),
                    )
                )
                for server, source in found
            ],
            indent=0,
        )
    ]


def _state(source: Source) -> Text:
    """What the server does; a fence is told before all else."""
    if source.fenced:
        return cell("fenced" if not source.running else "fenced, still running", Mood.WAITING.style)
    return cell("running", "green") if source.running else cell("stopped", paint.QUIET)
