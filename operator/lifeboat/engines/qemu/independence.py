"""Cutting a machine loose from its point: its disks take over what they still read from layers below.

QEMU copies in the background and then removes the backing file from the image's header. It does not write out the
image's tables first, so a crash right after would leave an image that names nothing below it and does not know what it
has got. The copy therefore waits at its end until the image was flushed, and only then lets go of what is below.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from lifeboat.engines.contract import EngineError, NoSpace
from lifeboat.engines.qemu import images
from lifeboat.engines.qemu.records import MachineRecord, machine_disk
from lifeboat.engines.qemu.zones import Zone
from lifeboat.host import machine
from lifeboat.host.qmp import Monitors, Session

logger = logging.getLogger(__name__)

_STREAM = "independent-"


class Independence:
    """The copies that make machines independent."""

    def __init__(self, monitors: Monitors) -> None:
        self._monitors = monitors
        self._finishing: dict[Path, asyncio.Task[None]] = {}

    async def start(self, zone: Zone, record: MachineRecord) -> None:
        """Start the copies that do not run, and let those go on that ran into a full disk.

        Raises:
            NoSpace: some had; whether they still do, the next look says.
        """
        folder = zone.machine_folder(record.server_id, record.name)
        async with self._monitors.session(machine.socket(folder)) as session:
            jobs = await _jobs(session)
            full = [name for name, job in jobs.items() if job["io-status"] == "nospace"]
            for name in full:
                await session.run("block-job-resume", {"device": name})
            if full:
                raise NoSpace(f"the disk of zone {zone.name} is full: machine {record.name} cannot take over its data")
            for index in range(len(record.disks)):
                job = f"{_STREAM}{index}"
                if job not in jobs and images.look(machine_disk(zone, record, index)).backing is not None:
                    stream = {"job-id": job, "device": machine.node(index), "on-error": "enospc"}
                    await session.run("block-stream", {**stream, "auto-finalize": False})

    async def look(self, zone: Zone, record: MachineRecord, session: Session) -> bool:
        """Whether copies are under way. One that waits at its end is helped over it, beside whoever is looking."""
        jobs = await _jobs(session)
        folder = zone.machine_folder(record.server_id, record.name)
        if any(_pending(job) for job in jobs.values()) and folder not in self._finishing:
            self._finishing[folder] = asyncio.create_task(self._finish(zone, record, folder))
        return bool(jobs)

    async def close(self) -> None:
        """Leave what is under way to the next engine."""
        tasks = list(self._finishing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _finish(self, zone: Zone, record: MachineRecord, folder: Path) -> None:
        try:
            async with self._monitors.session(machine.socket(folder)) as session:
                ended = [name for name, job in (await _jobs(session)).items() if _pending(job)]
            for job in ended:
                index = int(job.removeprefix(_STREAM))
                # The bulk first and from here, so that the machine stands still for the tables only.
                await asyncio.to_thread(_sync, machine_disk(zone, record, index))
                async with self._monitors.session(machine.socket(folder), 30.0) as session:
                    said = await session.human(f"qemu-io {machine.node(index)} flush")
                    if not said:
                        await session.run("job-finalize", {"id": job})
                    else:
                        logger.warning("machine %s: disk %s cannot be flushed: %s", record.name, index, said)
        except (EngineError, OSError) as error:
            logger.warning("machine %s is not independent yet: %s", record.name, error)
        finally:
            self._finishing.pop(folder, None)


def is_independent(zone: Zone, record: MachineRecord) -> bool:
    """Whether a machine's disks need no point any more. Blocking, but short: the headers of its images are read."""
    if not record.disks_ready:
        return False
    try:
        return all(images.look(machine_disk(zone, record, i)).backing is None for i in range(len(record.disks)))
    except OSError:
        # Disks that are gone stand on nothing.
        return True


async def _jobs(session: Session) -> dict[str, Mapping[str, object]]:
    """Our copies under way, as QEMU tells of them, by name."""
    answer = await session.run("query-block-jobs")
    return {str(job["device"]): job for job in answer if str(job["device"]).startswith(_STREAM)}


def _pending(job: Mapping[str, object]) -> bool:
    return job["status"] == "pending"


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
