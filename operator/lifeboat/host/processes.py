"""Processes that outlive the operator: started in a session of their own, found again by their pid file.

A pid alone proves nothing, since pids are used again. Each program gets its pid file's absolute path as an argument,
and a process counts as ours only while that path is in its command line.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil

from lifeboat.engines.contract import Retry
from lifeboat.host.files import last_lines

# The programs this process started. They are polled whenever their state is asked for, so none stays a zombie, and
# kept here because subprocess complains about one that is dropped while it runs: running on is what they are for.
_children: dict[int, subprocess.Popen[bytes]] = {}


def spawn(argv: Sequence[str], folder: Path, log: Path, stdin: int = subprocess.DEVNULL) -> int:
    """Start a program in `folder`, its output at the end of `log`, and return its pid.

    Raises:
        Retry: the program cannot be started.
    """
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            del _children[pid]
    try:
        with log.open("ab") as output:
            child = subprocess.Popen(  # an argument list made by this package; every name in it was checked
                argv,
                cwd=folder,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                close_fds=True,
            )
    except FileNotFoundError as error:
        raise Retry(f"{argv[0]} is not installed") from error
    keep(child)
    return child.pid


def keep(child: subprocess.Popen[bytes]) -> None:
    """Look after a process that may outlive its caller."""
    _children[child.pid] = child


@atexit.register
def _let_go() -> None:
    """Leave the programs running without a complaint that they do."""
    for child in _children.values():
        child.returncode = 0


def kill_child(pid: int) -> None:
    """Kill a process that this one has just started, whether or not it has written its pid file."""
    child = _children.get(pid)
    if child is not None and child.poll() is None:
        child.kill()


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended. One that is ending still has its files, and locks on them."""
    child = _children.get(pid)
    if child is not None:
        if child.poll() is None:
            return True
        _children.pop(pid, None)
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in {b"Z", b"X"}


def find(pid_file: Path) -> int | None:
    """The pid of the program that carries this pid file, or None when it does not run."""
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    if pid <= 1 or not alive(pid) or os.fsencode(pid_file) not in _command_line(pid):
        return None
    return pid


def started_at(pid: int) -> datetime | None:
    """When a process was started."""
    try:
        return datetime.fromtimestamp(psutil.Process(pid).create_time(), UTC)
    except psutil.Error:
        return None


async def wait_ready(pid: int, pid_file: Path, log: Path, seconds: float) -> None:
    """Wait until a program that was just started has written its pid file: it listens by then.

    Raises:
        Retry: it ended, or is not ready in time; the message holds the end of its log.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while alive(pid):
                if find(pid_file) == pid:
                    return
                await asyncio.sleep(0.02)
            raise Retry(f"the program ended at once: {last_lines(log) or 'it said nothing'}")
    raise Retry(f"the program is not ready after {seconds:g} s")


async def wait_gone(pid: int, seconds: float) -> bool:
    """Wait until a process has ended, its files closed; false when it is still there then."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while alive(pid):  # noqa: ASYNC110  # a process of an earlier operator tells nobody
                await asyncio.sleep(0.02)
            return True
    return False


async def kill(pid_file: Path, seconds: float = 2.0) -> None:
    """End the program that carries this pid file, or see that it does not run.

    Raises:
        Retry: it is still there, stuck in the kernel.
    """
    pid = find(pid_file)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    if not await wait_gone(pid, seconds):
        raise Retry(f"process {pid} does not end")


def _command_line(pid: int) -> tuple[bytes, ...]:
    try:
        return tuple(part for part in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if part)
    except OSError:
        return ()
