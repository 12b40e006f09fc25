"""Several processes that share the tests (`-n 2`): who runs what, and a network of its own for each.

What shares a world stays together, because a world is slow to make and one test begins where the last one ended. The
worlds have fixed loopback addresses, as a zone has in its inventory; in a network namespace of its own a process and
all that it starts have all of these addresses for themselves.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from typing import Final

import pytest
from xdist.scheduler import LoadScopeScheduling

_CLONE_NEWNET: Final = 0x40000000  # <linux/sched.h>
_SIOCSIFFLAGS: Final = 0x8914  # <linux/sockios.h>
_IFF_UP: Final = 0x1  # <linux/if.h>

_ONE_WORLD: Final = ("tests/operator/", "tests/e2e/", "tests/faults/")  # a folder, a world; the longest first
_ROWS: Final = "tests/faults/test_matrix.py::test_cell["


class WholeWorlds(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Hands out the tests of a folder with a world at once, of any other folder file by file.

    Of the whole fault matrix a row is handed out at once.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(_ROWS) and self.config.getoption("--matrix", default=False):
            return nodeid.removeprefix(_ROWS).partition("-")[0]
        return next((folder for folder in _ONE_WORLD if nodeid.startswith(folder)), nodeid.partition("::")[0])


def longest_first(items: list[pytest.Item]) -> None:
    """Put the tests with a world in front, so that no worker begins with them when the others are done."""

    def place(item: pytest.Item) -> int:
        return next((i for i, folder in enumerate(_ONE_WORLD) if item.nodeid.startswith(folder)), len(_ONE_WORLD))

    items.sort(key=place)


def enter_own_network() -> None:
    """Leave the machine's network for a new one, which has a loopback interface and nothing else.

    It holds for the calling thread and all threads and processes that it starts from now on.

    Raises:
        PermissionError: only root may.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise PermissionError(number, f"{os.strerror(number)}: only root can give each worker a network; use WORKERS=0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
