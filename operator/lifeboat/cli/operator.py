"""`lifeboat operator`: run the operator until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction

from lifeboat import logs, settings
from lifeboat.engines import registry
from lifeboat.engines.contract import Engine, Secrets
from lifeboat.service import Service

_log = logging.getLogger(__name__)


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> ArgumentParser:
    """Declare the subcommand."""
    made = subparsers.add_parser("operator", help="run the operator", description=__doc__)
    settings.add_arguments(made)
    return made


def run(arguments: Namespace) -> int:
    """Run until SIGTERM or SIGINT."""
    try:
        chosen = settings.from_arguments(arguments)
    except ValueError as error:
        sys.stderr.write(f"lifeboat operator: {error}\n")
        return 2
    logs.configure(chosen.log_format, chosen.log_level)

    def engine(name: str, secrets: Secrets) -> Engine:
        return registry.create(name, zones=chosen.zones, secrets=secrets)

    try:
        asyncio.run(_serve(Service(chosen, engine)))
    except Exception as error:  # noqa: BLE001 - the last line is a log line as well, for whoever reads logs by machine
        _log.critical("the operator cannot go on: %s", error, exc_info=error)
        return 1
    return 0


async def _serve(service: Service) -> None:
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, service.stop)
    await service.run()
