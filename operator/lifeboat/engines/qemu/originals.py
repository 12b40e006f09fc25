"""The original: the server that the target zone has under the id of the one that is copied back to it.

Its disks can be given up for the replica. That cannot be undone, so it is written down beside the server before the
first disk goes: it is never started again, and a call that finds the note goes on where an earlier one died.

Disks that are fit become the lowest layer of the replica as they are, and the copy writes over what differs. Others are
deleted, and everything is copied.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import stat
from collections.abc import Mapping
from pathlib import Path

from lifeboat.engines.contract import Refused
from lifeboat.engines.qemu import images, site_server
from lifeboat.engines.qemu.records import MachineRecord, machines
from lifeboat.engines.qemu.site_server import SiteServer
from lifeboat.engines.qemu.zones import Zone
from lifeboat.host import files, machine
from lifeboat.host.records import Wiped, save_wiped


def find(zone: Zone, server_id: str) -> SiteServer:
    """The original, once its disks may be given up.

    Raises:
        Refused: there is none, it is not known to serve nobody, or another machine runs on its disks.
    """
    original = site_server.present(zone, server_id)
    who = f"the server {server_id} of zone {zone.name}"
    if machine.running(original.folder) is not None:
        raise Refused(f"{who} runs: its disks are not given up")
    if not original.fenced:
        raise Refused(f"{who} is not fenced: its disks are not given up")
    if isinstance(original.what, MachineRecord):
        for other in machines(zone, server_id):
            shared = other.disks_owner == original.what.disks_owner and other.ssd == original.what.ssd
            if shared and machine.running(zone.machine_folder(server_id, other.name)) is not None:
                raise Refused(f"machine {other.name} runs on the disks of {who}: they are not given up")
    return original


def room(original: SiteServer, *, use_ssd: bool) -> int:
    """How many bytes the original's disks give back to a storage tier. Blocking, but short."""
    found = 0
    tier = original.zone.tier(use_ssd)
    while not tier.exists():
        tier = tier.parent
    for path in original.disk_files():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_dev == tier.stat().st_dev:
                found += images.look(path).allocated_bytes
    return found


async def give_up(original: SiteServer, run: int, bases: Mapping[str, tuple[Path, int]]) -> str:
    """Give the original's disks up for the copy of that run, or see that it is done.

    `bases` says by the names of the disks where the copy's lowest layer lies, and its size. Returns why the disks could
    not become that layer; empty where they have.
    """
    with files.disk_errors(original.zone.name):
        await asyncio.to_thread(save_wiped, original.zone, original.folder, Wiped(run=run))
        why = await asyncio.to_thread(_move, original, bases)
        places = [path for path, _ in bases.values()] if why else []
        for path in (*original.disk_files(), *places):
            await asyncio.to_thread(files.remove, path)
    return why


def _move(original: SiteServer, bases: Mapping[str, tuple[Path, int]]) -> str:
    """Let the disks be the layer's files. An earlier call may have moved some of them."""
    disks = dict(zip(original.disk_names, original.disk_files(), strict=True))
    if disks.keys() != bases.keys():
        return "the original has other disks"
    for (name, path), raw in zip(disks.items(), original.raw_disks, strict=True):
        place, size = bases[name]
        if raw:
            return f"disk {name} of the original is no plain qcow2 image"
        if why := unfit(path if path.is_symlink() or path.exists() else place, size):
            return f"disk {name} of the original {why}"
    for name, path in disks.items():
        place = bases[name][0]
        files.make_folder(place.parent)
        with contextlib.suppress(FileNotFoundError):
            try:
                path.rename(place)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                return f"disk {name} of the original lies on another file system than the replica"
        files.sync_folder(place.parent)
    return ""


def unfit(path: Path, size: int) -> str:
    """Why an image cannot be written to as a layer of a replica; empty where it can."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            return "is no file of its own"
        if not images.is_plain(path):
            return "is no plain qcow2 image"
        found = images.look(path).size_bytes
    except FileNotFoundError:
        return "is not there any more"
    return "" if found == size else f"has {found} bytes, and the recovered server's {size}"
