"""The original: the server that the target zone has under the id of the one that is copied back to it.

Its disks can be given up for the replica. That cannot be undone, so it is written down beside the server before the
first disk goes: it is never started again, and a call that finds the note goes on where an earlier one died.
"""

from __future__ import annotations

import asyncio
import contextlib

from lifeboat.engines.contract import Refused
from lifeboat.engines.qemu import files, images, machine, site_server
from lifeboat.engines.qemu.records import MachineRecord, Wiped, machines, save_wiped
from lifeboat.engines.qemu.site_server import SiteServer
from lifeboat.engines.qemu.zones import Zone


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


async def give_up(original: SiteServer, run: int) -> None:
    """Wipe the original's disks for the copy of that run, or see that it is done."""
    with files.disk_errors(original.zone.name):
        await asyncio.to_thread(save_wiped, original.zone, original.folder, Wiped(run=run))
        for path in original.disk_files():
            await asyncio.to_thread(files.remove, path)
