"""Disk images: made with qemu-img in a subprocess, looked at by reading their header.

Reading the header takes no lock and starts nothing, so it is right for images that a machine has open.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lifeboat.engines.contract import NoSpace, Retry
from lifeboat.host.files import FULL_TEXTS

_MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQ")
_WHOLE_HEADER = struct.Struct(">4sIQIIQIIQQIIQQ")
# Another compression, and smaller parts of clusters. What else there is means damage, or data in another file.
_HARMLESS_FEATURES = 0b11000
_DEADLINE = 20.0
_programs = asyncio.Semaphore(4)


@dataclass(frozen=True, slots=True)
class Image:
    """What an image's header says, and how much of the disk its file takes."""

    format: str
    size_bytes: int
    allocated_bytes: int
    backing: str | None


def look(path: Path, *, raw: bool = False) -> Image:
    """Read an image's header. Blocking, but short.

    `raw`: there is no header, and what the file begins with is its guest's to write: it is not looked at.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = b"" if raw else file.read(_HEADER.size)
        status = os.fstat(file.fileno())
        allocated = status.st_blocks * 512
        if len(head) < _HEADER.size or not head.startswith(_MAGIC):
            return Image("raw", status.st_size, allocated, None)
        _, _, backing_offset, backing_length, _, size = _HEADER.unpack(head)
        backing = None
        if backing_offset:
            file.seek(backing_offset)
            backing = os.fsdecode(file.read(backing_length))
    return Image("qcow2", size, allocated, backing)


def block(file: Path, below: Sequence[Path] | None = None, *, image_format: str = "qcow2") -> dict[str, object]:
    """An image as a block node. `below` is what it stands on, oldest first; None leaves that to its header."""
    node = {"driver": "file", "filename": str(file), "discard": "unmap", "aio": "threads"}
    found: dict[str, object] = {"driver": image_format, "discard": "unmap", "file": node}
    if below is not None:
        backing: dict[str, object] | None = None
        for path in below:
            lower = {"driver": "file", "filename": str(path)}
            backing = {"driver": "qcow2", "read-only": True, "file": lower, "backing": backing}
        found["backing"] = backing
    return found


def is_plain(path: Path) -> bool:
    """Whether an image is a qcow2 of today that stands alone: no backing file, snapshots, encryption, or damage.

    Blocking, but short: its header is read. https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.txt
    """
    with path.open("rb") as file:
        head = file.read(_WHOLE_HEADER.size)
    if len(head) < _WHOLE_HEADER.size or not head.startswith(_MAGIC):
        return False
    _, version, backing, _, _, _, encryption, _, _, _, _, snapshots, _, features = _WHOLE_HEADER.unpack(head)
    return bool(version == 3 and not (backing or encryption or snapshots or features & ~_HARMLESS_FEATURES))


async def create(path: Path, size_bytes: int, backing: Path | None = None, *, raw: bool = False) -> None:
    """Create an empty image, replacing one that nobody uses yet: qcow2, or raw, which has no backing file.

    The backing file is named relative to the image, so that a zone's folder can be moved as a whole.

    Raises:
        NoSpace: the disk is full.
        Retry: it did not work.
    """
    argv = ["create", "-q", "-f", "raw" if raw else "qcow2"]
    if backing is not None:
        # Not opened: it may be in use, and its size is given.
        argv += ["-u", "-F", "qcow2", "-b", relative(backing, path)]
    await run([*argv, str(path), str(size_bytes)])


def relative(backing: Path, image: Path) -> str:
    """How an image names its backing file."""
    return os.path.relpath(backing, image.parent)


async def holds_data(path: Path) -> bool:
    """Whether anything was written to an image itself, whatever is below it."""
    size = look(path).size_bytes
    # Read without its backing file: the map shows then what this file alone holds.
    node = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": str(path)}}
    answer = await run(["map", "-U", "--output=json", "-l", str(size), f"json:{json.dumps(node)}"])
    return b'"data": true' in answer or b'"present": true' in answer


async def run(argv: Sequence[str], seconds: float = _DEADLINE) -> bytes:
    """Run qemu-img with a deadline and return what it prints.

    Raises:
        NoSpace: the disk is full.
        Retry: it fails or takes too long.
    """
    async with _programs:
        process = await asyncio.create_subprocess_exec(
            "qemu-img",
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(seconds):
                output, errors = await process.communicate()
        except TimeoutError as error:
            raise Retry(f"qemu-img {argv[0]} takes more than {seconds:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode:
        said = errors.decode("utf-8", "replace").strip()
        if any(text in said for text in FULL_TEXTS):
            raise NoSpace(f"qemu-img {argv[0]}: {said}")
        raise Retry(f"qemu-img {argv[0]}: {said}")
    return output
