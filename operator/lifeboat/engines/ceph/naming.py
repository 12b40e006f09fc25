"""What images and snapshots are called, and what is written on them so that nobody has to guess by a name.

An image is a server's disk because its metadata says so. Metadata goes to the copy of an image as its data does, so the
copy says the same. What Lifeboat makes itself has names with a `+`, which no id has.
"""

from __future__ import annotations

SERVER = "lifeboat.dev/server"
DISK = "lifeboat.dev/disk"
ORDER = "lifeboat.dev/order"
"""Where a disk stands among the server's, the one to boot from first; without it they stand by their names."""
MACHINE = "lifeboat.dev/machine"
"""Which launched machine a disk was cloned for."""
KEPT = "lifeboat.dev/kept"
"""The run whose copy this image was, which was set aside with its points when a later one began."""
_POINT = "lifeboat.dev/point."
_SNAPSHOT = "lifeboat."


def snapshot(point: str) -> str:
    """The snapshot that a point has on each disk."""
    return f"{_SNAPSHOT}{point}"


def marker(point: str) -> str:
    """The metadata by which a point is told from snapshots that were left half taken."""
    return f"{_POINT}{point}"


def marked(key: str) -> str | None:
    """The point that metadata of this name marks, or None."""
    return key.removeprefix(_POINT) if key.startswith(_POINT) else None


def machine_disk(server_id: str, machine: str, disk: str) -> str:
    """The image of a launched machine's disk."""
    return f"lifeboat+{server_id}+{machine}+{disk}"


def set_aside(image: str, run: int) -> str:
    """The name of a copy that a later one replaces."""
    return f"{image}+run{run}"
