"""What a zone of this engine is made of besides what every zone on this host is: storage folders, and disks in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lifeboat.host import inventory
from lifeboat.host.inventory import Bytes, Name, Part, Place


class StorageSpec(Part):
    """The folders of the zone's storage tiers."""

    standard: Path
    ssd: Path | None = None


class DiskSpec(Part):
    """A disk of a server: an image file, created empty in `size` where it does not exist.

    The format is said here and never taken from the file: what a raw one begins with is its guest's to write.
    """

    name: Name
    file: Path
    format: Literal["qcow2", "raw"] = "qcow2"
    size: Bytes | None = None


class ServerSpec(inventory.ServerSpec):
    """A server of the zone: the machine that replication protects."""

    disks: Annotated[tuple[DiskSpec, ...], Field(min_length=1, max_length=16)]


class Inventory(inventory.Inventory[ServerSpec]):
    """A zone's file as a whole."""

    storage: StorageSpec

    def server_misfits(self, place: Place, server: ServerSpec) -> Iterator[tuple[Place, str]]:
        """Disks of one name."""
        names = [disk.name for disk in server.disks]
        for number, name in enumerate(names):
            if name in names[:number]:
                yield (*place, "disks", number, "name"), f"disk {name} is there twice"


def load(path: Path) -> Inventory:
    """Read and check a zone's inventory. Blocking.

    Raises:
        InventoryError: the file cannot be used, with file and line.
    """
    return inventory.load(path, Inventory)
