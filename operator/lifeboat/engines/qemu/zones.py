"""The zones of this engine: where the files of replicas and disks lie in a zone's folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lifeboat.engines.contract import Refused
from lifeboat.engines.facts import Storage
from lifeboat.engines.qemu.inventory import Inventory, ServerSpec
from lifeboat.host import zones
from lifeboat.host.inventory import checked_name


@dataclass(frozen=True, slots=True)
class Zone(zones.Zone[Inventory]):
    """One zone that answers, and where its things lie."""

    def replica_folder(self, server_id: str) -> Path:
        """Where the records of a replica lie."""
        return self.folder / "replicas" / checked_name(server_id, "server id")

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


class Zones(zones.Zones[Inventory, Zone]):
    """The folder that holds the zones."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Inventory, Zone)
