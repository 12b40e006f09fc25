"""A network of one's own: worlds have fixed loopback addresses, and in a namespace each has all of these for itself."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from typing import Final

_CLONE_NEWNET: Final = 0x40000000  # <linux/sched.h>
_SIOCSIFFLAGS: Final = 0x8914  # <linux/sockios.h>
_IFF_UP: Final = 0x1  # <linux/if.h>


def enter_own_network() -> None:
    """Leave the machine's network for a new one, which has a loopback interface and nothing else.

    It holds for the calling thread and all threads and processes that it starts from now on.

    Raises:
        PermissionError: only root may.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise PermissionError(
            number, f"{os.strerror(number)}: only root can give a process a network of its own; WORKERS=0 does without"
        )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
