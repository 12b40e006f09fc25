"""Zones on this host: folders that stand for availability zones, and whether each of them answers.

A file named `DOWN` in a zone's folder says that its control plane is unreachable: nothing of that zone is read or
changed through the engine then, while its machines may go on running or not, as in a real disaster.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from lifeboat.engines.contract import Refused, Unreachable
from lifeboat.engines.facts import Storage
from lifeboat.engines.qemu import files
from lifeboat.engines.qemu.inventory import (
    LONG_NAME,
    Inventory,
    InventoryError,
    NetworkSpec,
    ServerSpec,
    checked_name,
    load,
)

INVENTORY = "inventory.yaml"
DOWN = "DOWN"


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone that answers, and where its things lie."""

    folder: Path
    inventory: Inventory

    @property
    def name(self) -> str:
        """The zone's name."""
        return self.inventory.zone

    def server_folder(self, server_id: str) -> Path:
        """Where a server of the inventory runs."""
        return self.folder / "servers" / checked_name(server_id, "server id")

    def replica_folder(self, server_id: str) -> Path:
        """Where the records of a replica lie."""
        return self.folder / "replicas" / checked_name(server_id, "server id")

    def machines_folder(self, server_id: str) -> Path:
        """Where the machines that were launched for a server lie."""
        return self.folder / "machines" / checked_name(server_id, "server id")

    def machine_folder(self, server_id: str, machine: str) -> Path:
        """Where one launched machine lies."""
        return self.machines_folder(server_id) / checked_name(machine, "machine name", LONG_NAME)

    def has_ssd(self) -> bool:
        """Whether there is an SSD tier."""
        return self.inventory.storage.ssd is not None

    def tier(self, use_ssd: bool) -> Path:
        """The folder of a storage tier.

        Raises:
            Refused: the zone has no SSD tier.
        """
        storage = self.inventory.storage
        if use_ssd and storage.ssd is None:
            raise Refused(f"zone {self.name} has no SSD storage")
        folder = storage.ssd if use_ssd and storage.ssd is not None else storage.standard
        return self.folder / folder

    def disk_file(self, server: ServerSpec, index: int) -> Path:
        """The image file of a server's disk."""
        return self.folder / server.disks[index].file

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

    def free_bytes(self, *, use_ssd: bool = False) -> int:
        """How much room a storage tier has left. Blocking."""
        return self.storage(use_ssd=use_ssd).free_bytes

    def storage(self, *, use_ssd: bool = False) -> Storage:
        """The file system on which a storage tier lies, or is going to. Blocking."""
        folder = self.tier(use_ssd)
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        usage = os.statvfs(folder)
        return Storage(usage.f_blocks * usage.f_frsize, usage.f_bavail * usage.f_frsize)


class Zones:
    """The folder that holds the zones. Inventories are read again when they change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._read: dict[Path, tuple[tuple[int, int, int], Inventory | InventoryError]] = {}

    def folder(self, name: str) -> Path:
        """A zone's folder, there or not."""
        return self._folder / checked_name(name, "zone")

    def zone(self, name: str, *, at_hand: bool = False) -> Zone:
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
                known = (stamp, load(path))
            except InventoryError as error:
                known = (stamp, error)
            self._read[path] = known
        if isinstance(known[1], InventoryError):
            raise InventoryError(str(known[1]))
        return Zone(folder, known[1])
