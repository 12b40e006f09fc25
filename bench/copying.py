"""The first copy: how fast a disk comes to the other zone, against programs that do nothing but copy.

Each run copies the same disk to an image of the same format in the same folder, which a storage daemon of the same
options offers over TCP. Lifeboat's time is from the verb until the replica is in step, so it has in it what begins and
ends a copy; that of `qemu-img convert` and `nbdcopy` is the program's own, the daemon already there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.engine import KIB, MIB, Device, Pair, bare, compare
from bench.results import Figure, Measured, Samples, Target, percentile
from lifeboat.engines.qemu import images
from lifeboat.engines.verbs import ReleaseReplica, StopReplication

RUNS: Final = 3
FULL: Final = 1024 * MIB
SPARSE: Final = 8192 * MIB
DATA: Final = 512 * MIB
"""What the sparse disk holds, in pieces of PIECE."""
PIECE: Final = MIB
BLOCK: Final = 4 * KIB
FIRST: Final = 32 * MIB
WAYS: Final = ("lifeboat", "qemu-img convert", "nbdcopy")
_SECONDS: Final = 120.0
_HOST: Final = "127.0.0.1"


def measure(folder: Path) -> Measured:
    """Copy a full and a sparse disk, in each way."""
    return asyncio.run(_measure(folder))


async def _measure(folder: Path) -> Measured:
    measured = Measured()
    copying: dict[str, tuple[int, float, str, float]] = {}
    for name, size, data in (("full", FULL, FULL), ("sparse", SPARSE, DATA)):
        where = folder / name
        where.mkdir()
        disk = await asyncio.to_thread(_disk, where, size, data)
        async with bare(where, {"disk": disk}) as pair:
            seconds: dict[str, list[float]] = {way: [] for way in WAYS}
            for run in range(1, RUNS + 1):
                seconds["lifeboat"].append(await _replicate(pair, run))
                for way in WAYS[1:]:
                    seconds[way].append(await asyncio.to_thread(_copy, way, pair.disk(0), where))
                print(
                    f"  {name}, s:", ", ".join(f"{way} {found[-1]:.2f}" for way, found in seconds.items()), flush=True
                )
            if data == size:
                calm, busy = await _written(pair, RUNS + 1)
        rates = {way: [data / took / 1e6 for took in found] for way, found in seconds.items()}
        medians = {way: statistics.median(found) for way, found in rates.items()}
        best = max(WAYS[1:], key=lambda way: medians[way])
        told = f"{data // MIB} MiB of data" + (f" on a disk of {size // MIB // 1024} GiB" if size != data else "")
        target = (Target(0.9, at_least=True),)
        measured.figures.append(Figure(f"First copy, {told}", medians["lifeboat"], "MB/s", medians[best], best, target))
        copying[told] = data, medians["lifeboat"], best, medians[best]
        measured.charts.append(Samples(f"copying-{name}", f"First copy of {told}", "MB/s", rates))
    idle = folder / "empty"
    idle.mkdir()
    await images.create(idle / "disk", MIB)
    async with bare(idle, {"disk": idle / "disk"}) as pair:
        took = [await _replicate(pair, run) for run in range(1, RUNS + 1)]
    empty = statistics.median(took)
    for told, (data, rate, best, baseline) in copying.items():
        alone = data / (data / rate / 1e6 - empty) / 1e6
        what = f"The same without what an empty disk takes, {told}"
        measured.figures.append(Figure(what, alone, "MB/s", baseline, best))
    what = "Write of 4 KiB with its flush at the device during the first copy, where it is copied already, p50"
    measured.figures.append(Figure(what, percentile(busy, 0.5), "ms", percentile(calm, 0.5), "before it"))
    measured.figures.append(Figure("First copy of an empty disk of 1 MiB", empty, "s"))
    measured.notes.append(
        f"Medians of {RUNS} runs. Lifeboat's time has in it what starts the storage daemon and the line and sees the"
        " end, which is that of the empty disk; the programs find a daemon that runs. Every copy was compared with its"
        " disk."
    )
    return measured


def _disk(folder: Path, size: int, data: int) -> Path:
    """A qcow2 image with random data in it, scattered where it does not fill the disk."""
    raw, disk = folder / "disk.raw", folder / "disk.qcow2"
    with raw.open("wb") as file:
        file.truncate(size)
        places = range(size // PIECE)
        for place in sorted(random.Random(1).sample(places, data // PIECE)):
            file.seek(place * PIECE)
            file.write(os.urandom(PIECE))
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(disk))
    raw.unlink()
    return disk


async def _replicate(pair: Pair, run: int, in_step: threading.Event | None = None) -> float:
    """Copy the server's disk by the engine's verb, compare the replica with it, and delete it again.

    `in_step` is set at once when the replica is.
    """
    began = time.perf_counter()
    await pair.perform(pair.copy(run))
    await pair.in_step(_SECONDS)
    took = time.perf_counter() - began
    if in_step is not None:
        in_step.set()
    await pair.perform(StopReplication())
    await asyncio.to_thread(pair.compare, 0)
    await pair.perform(ReleaseReplica())
    return took


async def _written(pair: Pair, run: int) -> tuple[list[float], list[float]]:
    """Milliseconds that writes with their flush take at the device before a copy, and during one.

    Written is what is copied first. Of what is not copied yet a write goes to the disk alone, and later with the copy.
    """
    ended = threading.Event()

    def write() -> list[float]:
        places = random.Random(1)
        found = []
        with Device(pair.source_folder) as device:
            while not ended.wait(0.02):
                found.append(device.write(0, places.randrange(FIRST // BLOCK) * BLOCK, BLOCK, 1) * 1000)
        return found

    writing = asyncio.create_task(asyncio.to_thread(write))
    await asyncio.sleep(2)
    ended.set()
    calm = await writing
    ended.clear()
    writing = asyncio.create_task(asyncio.to_thread(write))
    try:
        await _replicate(pair, run, ended)
    finally:
        ended.set()
        busy = await writing
    return calm, busy


def _copy(way: str, source: Path, folder: Path) -> float:
    """Copy the disk of a machine that is idle, into an image that a storage daemon offers, and return the seconds."""
    target = folder / "copy.qcow2"
    asyncio.run(images.create(target, images.look(source).size_bytes))
    try:
        with _offered(target, folder) as uri:
            began = time.perf_counter()
            match way:
                case "nbdcopy":
                    with _readable(source, folder) as from_uri:
                        began = time.perf_counter()
                        _run("nbdcopy", "--destination-is-zero", from_uri, uri)
                        took = time.perf_counter() - began
                case _:
                    argv = ["-U", "-n", "--target-is-zero", "-f", "qcow2", "-O", "raw", str(source), uri]
                    _run("qemu-img", "convert", *argv)
                    took = time.perf_counter() - began
        compare(source, target)
    finally:
        target.unlink()
    return took


@contextlib.contextmanager
def _offered(image: Path, folder: Path) -> Iterator[str]:
    """Offer an image as a replica's is (`lifeboat.engines.qemu.storage_daemon`), and give its address."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port = int(probe.getsockname()[1])
    file = f"file.driver=file,file.filename={image},file.discard=unmap"
    argv = ["--blockdev", f"driver=qcow2,node-name=disk,discard=unmap,{file}"]
    argv += ["--nbd-server", f"addr.type=inet,addr.host={_HOST},addr.port={port}"]
    argv += ["--export", "type=nbd,id=disk,name=disk,node-name=disk,writable=on,writethrough=on"]
    with _daemon(argv, folder / "offered"):
        yield f"nbd://{_HOST}:{port}/disk"


@contextlib.contextmanager
def _readable(image: Path, folder: Path) -> Iterator[str]:
    """Let a program that knows no images read one, which a machine has open."""
    path = folder / "read.sock"
    node = f"driver=qcow2,node-name=disk,read-only=on,force-share=on,file.driver=file,file.filename={image}"
    argv = ["--blockdev", node, "--nbd-server", f"addr.type=unix,addr.path={path}"]
    argv += ["--export", "type=nbd,id=disk,name=disk,node-name=disk"]
    with _daemon(argv, folder / "read"):
        yield f"nbd+unix:///disk?socket={path}"


@contextlib.contextmanager
def _daemon(argv: list[str], pid_file: Path) -> Iterator[None]:
    """A storage daemon, for as long as this is entered. Its pid file says that it is ready."""
    with subprocess.Popen(["qemu-storage-daemon", "--pidfile", str(pid_file), *argv]) as daemon:
        try:
            deadline = time.monotonic() + 10
            while not pid_file.exists():
                if daemon.poll() is not None or time.monotonic() > deadline:
                    raise OSError("the storage daemon does not start")
                time.sleep(0.01)
            yield
        finally:
            daemon.terminate()


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, timeout=_SECONDS)
