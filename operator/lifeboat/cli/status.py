"""`lifeboat status`: how everything stands, or one server in detail.

It only reads the four kinds, so whoever may `kubectl get` them may use it. With `--watch` the screen stays through an
outage of the API server, and says since when it is old: a disaster is when both go at once.
"""

from __future__ import annotations

import asyncio
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from lifeboat import clock
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.cli import client, paint
from lifeboat.cli.client import Connection, Failure, Snapshot
from lifeboat.cli.detail import detail
from lifeboat.cli.overview import overview
from lifeboat.cli.paint import Mood

WATCH_SECONDS: Final = 1.0

Screen = Sequence[RenderableType]


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> ArgumentParser:
    """Declare the subcommand."""
    made = subparsers.add_parser(
        "status", help="show how everything stands, or one server in detail", description=(__doc__ or "").split("\n")[0]
    )
    made.add_argument("name", nargs="?", help="a ProtectedServer, by its name or its server's id")
    client.add_arguments(made)
    made.add_argument("-A", "--all-namespaces", action="store_true", help="look in all namespaces")
    made.add_argument("-w", "--watch", action="store_true", help="stay, and show every change")
    return made


def run(arguments: Namespace) -> int:
    """Show it; with `--watch`, until interrupted."""
    console = paint.console_for(sys.stdout)
    last: list[Screen] = []
    try:
        asyncio.run(_run(arguments, console, last))
    except Failure as failure:
        sys.stderr.write(f"lifeboat status: {failure}\n")
        return failure.code
    except KeyboardInterrupt:
        if last and console.is_terminal:
            paint.show(console, last[-1])  # what was on the screen stays in the scrollback
    return client.FINE


async def _run(arguments: Namespace, console: Console, last: list[Screen]) -> None:
    async with client.connect(arguments) as connection:
        namespace = None if arguments.all_namespaces else connection.namespace
        if arguments.watch:
            await _watch(connection, namespace, arguments.name, console, last)
        else:
            paint.show(console, screen(await connection.snapshot(namespace), arguments.name))


def screen(snapshot: Snapshot, name: str | None) -> Screen:
    """What is shown of a snapshot.

    Raises:
        Failure: there is no server of that name.
    """
    return overview(snapshot) if name is None else detail(snapshot, find_server(snapshot, name))


def find_server(snapshot: Snapshot, name: str) -> ProtectedServer:
    """The server that a person means: by its object's name, else by its id at the site.

    Raises:
        Failure: there is none, or more than one.
    """
    tests: tuple[Callable[[ProtectedServer], bool], ...] = (
        lambda server: server.metadata.name == name,
        lambda server: server.spec.server_id == name,
    )
    for test in tests:
        found = [server for server in snapshot.servers if test(server)]
        if len(found) == 1:
            return found[0]
        if found:
            where = paint.listed(f"{each.metadata.name} (-n {each.metadata.namespace})" for each in found)
            raise Failure(f"more than one ProtectedServer is meant by {name}: {where}. Choose one by name and with -n")
    recoveries: list[Drill | Failover] = [*snapshot.failovers, *snapshot.drills]
    for each in recoveries:
        if each.metadata.name == name:
            of = each.spec.server_ref.name
            raise Failure(f"{name} is a {each.kind}, of server {of}: lifeboat status {of} shows it")
    present = [server.metadata.name for server in snapshot.servers]
    raise Failure(client.missing(ProtectedServer, name, snapshot.namespace, present))


async def _watch(
    connection: Connection, namespace: str | None, name: str | None, console: Console, last: list[Screen]
) -> None:
    """Show it again and again; only the first look may fail."""
    snapshot = await connection.snapshot(namespace)
    last.append(screen(snapshot, name))
    if not console.is_terminal:
        await _print_changes(connection, snapshot, name, console)
        return
    with Live(Group(*last[-1]), console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(Group(*last[-1]), refresh=True)
            await asyncio.sleep(WATCH_SECONDS)
            try:
                snapshot = await connection.snapshot(namespace)
                last[:] = [screen(snapshot, name)]
            except Failure as failure:
                last[:] = [[_old(snapshot, failure), *_safely(snapshot, name)]]


async def _print_changes(connection: Connection, snapshot: Snapshot, name: str | None, console: Console) -> None:
    """Print everything anew when something changed, for whoever keeps a log."""
    shown, doubt = snapshot, ""
    paint.show(console, screen(snapshot, name))
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        try:
            snapshot = await connection.snapshot(snapshot.namespace)
            current = screen(snapshot, name)
        except Failure as failure:
            if str(failure) != doubt:
                doubt = str(failure)
                paint.show(console, [Text(""), _old(shown, failure)])
            continue
        if doubt or _content(snapshot) != _content(shown):
            shown, doubt = snapshot, ""
            paint.show(console, [Text(""), *current])


def _content(snapshot: Snapshot) -> tuple[object, ...]:
    silent = snapshot.operator_silent is not None
    return snapshot.pairs, snapshot.servers, snapshot.drills, snapshot.failovers, snapshot.unreadable, silent


def _old(snapshot: Snapshot, failure: Failure) -> Text:
    return Text(
        f"{Mood.NEEDS_YOU.mark} {clock.now():%H:%M:%S} UTC: {paint.clean(str(failure))}. "
        f"What is shown is of {snapshot.now:%H:%M:%S} UTC",
        style=Mood.NEEDS_YOU.style,
    )


def _safely(snapshot: Snapshot, name: str | None) -> Screen:
    """The last screen that could be shown; nothing where its server is gone."""
    try:
        return screen(snapshot, name)
    except Failure:
        return []
