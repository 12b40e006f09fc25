"""What is written down about what runs in a zone on this host, so that nothing needs to be remembered.

A record says what was decided; what runs is read from processes. Records are replaced atomically, so a reader sees one
state or the next.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lifeboat.engines.contract import Retry
from lifeboat.host import files
from lifeboat.host.zones import Zone

FENCE = "fence.json"
REGISTERED = "registered.json"
WIPED = "wiped.json"


class Record(BaseModel):
    """A record: no more fields than it has, and never changed in place."""

    model_config = ConfigDict(extra="forbid", frozen=True)


RecordT = TypeVar("RecordT", bound=Record)


class Wanted(StrEnum):
    """What a launched machine was last told to do."""

    STARTING = "Starting"
    RUNNING = "Running"
    HALTED = "Halted"


class FenceOrder(Record):
    """The order to keep a server from serving, beside its process. `was_running`: lifting the order starts it again.

    An orderly end takes several steps, each of them recorded: `asked_at` is when the guest was asked to shut down,
    `drained` that it stood still and the replica held its last write.
    """

    at: datetime | None = None
    was_running: bool = False
    asked_at: datetime | None = None
    drained: bool = False


class Registration(Record):
    """Which launched machine is the server of its zone."""

    machine: str


class Wiped(Record):
    """That a server's disks were given up for the replica of a run: it is not started any more."""

    run: int


def load_fence(folder: Path) -> FenceOrder | None:
    """The order that keeps the server in a folder from serving, or None.

    Raises:
        Retry: there is one, and it cannot be read.
    """
    return load(folder / FENCE, FenceOrder)


def save_fence(zone: Zone[Any], folder: Path, order: FenceOrder) -> FenceOrder:
    """Write an order durably into a server's folder."""
    return save(zone, folder / FENCE, order)


def is_fenced(folder: Path) -> bool:
    """Whether a fence keeps what runs in this folder from starting."""
    return (folder / FENCE).exists()


def load_registration(zone: Zone[Any], server_id: str) -> str | None:
    """The machine that is registered as a server of a zone, or None."""
    found = load(zone.server_folder(server_id) / REGISTERED, Registration)
    return None if found is None else found.machine


def save_registration(zone: Zone[Any], server_id: str, machine: str | None) -> None:
    """Register a machine as a server of a zone, or none, durably."""
    path = zone.server_folder(server_id) / REGISTERED
    if machine is not None:
        save(zone, path, Registration(machine=machine))
    elif path.exists():
        files.remove(path)
        files.sync_folder(path.parent)


def registrations(zone: Zone[Any]) -> tuple[str, ...]:
    """The ids of the servers as which machines are registered in a zone."""
    return tuple(sorted(path.parent.name for path in (zone.folder / "servers").glob(f"*/{REGISTERED}")))


def save_wiped(zone: Zone[Any], folder: Path, wiped: Wiped) -> Wiped:
    """Write durably that the disks of the server in a folder are given up."""
    return save(zone, folder / WIPED, wiped)


def load(path: Path, kind: type[RecordT]) -> RecordT | None:
    """Read a record, None where there is none.

    Raises:
        Retry: there is one, and it cannot be read.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise Retry(f"{path} cannot be read: {error.errors()[0]['msg']}") from error


def save(zone: Zone[Any], path: Path, record: RecordT) -> RecordT:
    """Write a record durably."""

    def write() -> None:
        files.make_folder(path.parent)
        files.write_atomically(path, record.model_dump_json(indent=1).encode())

    with files.disk_errors(zone.name):
        files.with_room(zone.folder, write)
    return record
