"""What people type: each subcommand is a module here with `add_parser` and `run`, and a row in the table."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, _SubParsersAction
from typing import Protocol, TypeAlias

from lifeboat.cli import inventory, machine, operator, status

Subparsers: TypeAlias = "_SubParsersAction[ArgumentParser]"


class Command(Protocol):
    """A subcommand: a module."""

    def add_parser(self, subparsers: Subparsers) -> ArgumentParser:
        """Declare the subcommand and its options."""
        ...

    def run(self, arguments: Namespace) -> int:
        """Do it; the answer is the exit code."""
        ...


COMMANDS: tuple[Command, ...] = (status, inventory, machine, operator)


def parser() -> ArgumentParser:
    """The whole command line."""
    made = ArgumentParser(prog="lifeboat", description="Disaster recovery of servers, declared in Kubernetes.")
    subparsers = made.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers).set_defaults(run=command.run)
    return made
