"""Small files that must survive a crash, and what a full disk is called.

Everything the engine remembers is a file in a zone's folder. It is either the old one or the new one, never half of
each, whoever is killed at whatever instant.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lifeboat.engines.contract import NoSpace, Unreachable

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SILENT = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT)
_UNFINISHED = ".new-"
_RESERVE = "reserve"
_RESERVE_BYTES = 4 << 20
_UNFINISHED_SECONDS = 60.0
FULL_TEXTS = ("No space left on device", "Disk quota exceeded")


@contextlib.contextmanager
def disk_errors(zone: str) -> Iterator[None]:
    """Tell a full or a dead disk of a zone from every other error.

    Raises:
        NoSpace: the zone's disk is full.
        Unreachable: the zone's disk does not answer.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace(f"the disk of zone {zone} is full: {error.filename or error.strerror}") from error
        if error.errno in _SILENT:
            raise Unreachable(f"the disk of zone {zone} does not answer: {error.strerror}") from error
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Delete what an operator that was killed had begun to write; whoever writes now is done sooner than that."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _UNFINISHED_SECONDS:
                path.unlink()


@contextlib.contextmanager
def _written(folder: Path, data: bytes) -> Iterator[Path]:
    """A temporary file in `folder` that holds `data` durably, gone afterwards unless it was renamed."""
    _sweep(folder)
    descriptor, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=folder)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file: after a crash there is the old one or the new one."""
    with _written(path.parent, data) as temporary:
        temporary.replace(path)
    sync_folder(path.parent)


def create_exclusively(path: Path, data: bytes) -> None:
    """Create a file that nobody else has created, complete from its first instant.

    Raises:
        FileExistsError: somebody else was first.
    """
    with _written(path.parent, data) as temporary:
        path.hardlink_to(temporary)
    sync_folder(path.parent)


def with_room(zone: Path, write: Callable[[], None]) -> None:
    """Write a small file that has to be written also when the zone's disk is full. Blocking.

    A few MiB in the zone's folder are kept back for that, given up when nothing else is left, and kept back again as
    soon as there is room.
    """
    reserve = zone / _RESERVE
    try:
        write()
    except OSError as error:
        if error.errno not in _FULL or not reserve.exists():
            raise
        remove(reserve)
        write()
        return
    if not reserve.exists():
        _keep_back(reserve)


def _keep_back(reserve: Path) -> None:
    free = os.statvfs(reserve.parent)
    if free.f_bavail * free.f_frsize < 4 * _RESERVE_BYTES:
        return
    with contextlib.suppress(FileExistsError), reserve.open("xb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)
        except OSError:
            remove(reserve)


def make_folder(folder: Path) -> None:
    """Create a folder that only the operator's user reads, parents included."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def remove(path: Path) -> None:
    """Delete a file, or see that it is gone."""
    path.unlink(missing_ok=True)


def last_lines(path: Path) -> str:
    """The end of a log in one line, empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "; ".join(line.strip() for line in lines if line.strip())[-500:]
