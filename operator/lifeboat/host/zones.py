"""Zones on this host: folders that stand for availability zones, and whether each of them answers.

A file named `DOWN` in a zone's folder says that its control plane is unreachable: nothing of that zone is read or
changed through the engine then, while its machines may go on running or not, as in a real disaster.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import psutil

from lifeboat.engines.contract import Refused, Unreachable
from lifeboat.host import files
from lifeboat.host.inventory import LONG_NAME, InventoryError, InventoryT, NetworkSpec, checked_name, load

INVENTORY = "inventory.yaml"
DOWN = "DOWN"


@dataclass(frozen=True, slots=True)
class Zone(Generic[InventoryT]):
    """One zone that answers, and where its machines run."""

    folder: Path
    inventory: InventoryT

    @property
    def name(self) -> str:
        """The zone's name."""
        return self.inventory.zone

    def server_folder(self, server_id: str) -> Path:
        """Where a server of the inventory runs."""
        return self.folder / "servers" / checked_name(server_id, "server id")

    def machines_folder(self, server_id: str) -> Path:
        """Where the machines that were launched for a server lie."""
        return self.folder / "machines" / checked_name(server_id, "server id")

    def machine_folder(self, server_id: str, machine: str) -> Path:
        """Where one launched machine lies."""
        return self.machines_folder(server_id) / checked_name(machine, "machine name", LONG_NAME)

    def network(self, name: str) -> NetworkSpec:
        """A network of the zone.

        Raises:
            Refused: the zone has no such network.
        """
        network = self.inventory.network(name)
        if network is None:
            raise Refused(f"zone {self.name} has no network {name!r}")
        return network

    def cpu(self) -> int:
        """How many CPUs a machine may have."""
        return self.inventory.limits.cpu or os.cpu_count() or 1

    def memory_bytes(self) -> int:
        """How much memory a machine may have."""
        return self.inventory.limits.memory or int(psutil.virtual_memory().total)


ZoneT = TypeVar("ZoneT", bound=Zone[Any])


class Zones(Generic[InventoryT, ZoneT]):
    """The folder that holds the zones. Inventories are read again when they change."""

    def __init__(self, folder: Path, kind: type[InventoryT], make: Callable[[Path, InventoryT], ZoneT]) -> None:
        self._folder = folder.resolve()
        self._kind = kind
        self._make = make
        self._read: dict[Path, tuple[tuple[int, int, int], InventoryT | InventoryError]] = {}

    def folder(self, name: str) -> Path:
        """A zone's folder, there or not."""
        return self._folder / checked_name(name, "zone")

    def zone(self, name: str, *, at_hand: bool = False) -> ZoneT:
        """A zone that answers. Blocking, but short: one `stat` or two unless the inventory changed.

        `at_hand`: for whoever is at its host, and reaches it while it answers nobody else.

        Raises:
            Unreachable: it does not.
            InventoryError: its inventory cannot be used.
        """
        folder = self.folder(name)
        path = folder / INVENTORY
        try:
            with files.disk_errors(name):
                if not at_hand and (folder / DOWN).exists():
                    raise Unreachable(f"zone {name} does not answer")
                found = path.stat()
        except FileNotFoundError as error:
            raise Unreachable(f"zone {name} does not answer: {path} is not there") from error
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        known = self._read.get(path)
        if known is None or known[0] != stamp:
            try:
                known = (stamp, load(path, self._kind))
            except InventoryError as error:
                known = (stamp, error)
            self._read[path] = known
        if isinstance(known[1], InventoryError):
            raise InventoryError(str(known[1]))
        return self._make(folder, known[1])
