"""Who holds a lease: a name for this process that no other one ever has, and whether the process of a name is gone.

An operator that was killed and started again need not wait for its own lease to run out. That is safe only where the
holder's death is a fact: where it ran under the same boot of the same kernel and in the same namespace of process ids
as we do, its id either belongs to nobody now, or to a process that was started at another time. Of any other holder
nothing is known, and its lease has to run out.
"""

from __future__ import annotations

import hashlib
import os
import socket
import uuid
from pathlib import Path
from typing import Final

_SEPARATOR: Final = "_"
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_PROCESSES: Final = Path("/proc/self/ns/pid")
_START_FIELD: Final = 19
"""Where in /proc/<pid>/stat, counted from behind the name, the time of the start is."""


def own() -> str:
    """The name of this process: host, place, process id, start, and something that nobody else has."""
    pid = os.getpid()
    started = _started(pid) or "unknown"
    parts = (socket.gethostname(), _place() or "nowhere", str(pid), started, uuid.uuid4().hex[:8])
    return _SEPARATOR.join(parts)


def gone(holder: str) -> bool:
    """Whether the process of that name has certainly ended."""
    parts = holder.rsplit(_SEPARATOR, 4)
    if len(parts) != 5 or parts[1] != _place() or not parts[2].isdigit():
        return False
    pid, started = int(parts[2]), parts[3]
    if not started.isdigit():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    now = _started(pid)
    return now is not None and now != started


def _place() -> str | None:
    """This boot of this kernel and this namespace of process ids; None where that cannot be known."""
    try:
        known = f"{_BOOT.read_text(encoding='ascii')}{_PROCESSES.readlink()}"
    except (OSError, ValueError):
        return None
    return hashlib.sha256(known.encode()).hexdigest()[:12]


def _started(pid: int) -> str | None:
    """When a process was started, in the kernel's ticks since the boot; `ended` for one that is only not yet buried."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return "ended" if fields[0] in {"Z", "X"} else fields[_START_FIELD]
    except (OSError, IndexError):
        return None
