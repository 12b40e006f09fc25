"""All connections of one server, and the loop that serves them."""

from __future__ import annotations

import contextlib
import ctypes
import select
import signal
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lifeboat.line import nbd
from lifeboat.line.connection import Connection
from lifeboat.line.watch import SILENT, Broken

if TYPE_CHECKING:
    from lifeboat.line.fingerprints import Fingerprints

_UNUSED = 15.0
_ROUND_BUSY = 0.05
_ROUND_IDLE = 0.25
_DEAD_MAN = 0.9
_ENDED = select.EPOLLHUP | select.EPOLLERR


class Line:
    """All connections of one server. `held` tells what the replica's disks hold already, by their names."""

    def __init__(
        self, address: str, port: int, connections: int, path: str, held: Mapping[str, Fingerprints] | None = None
    ) -> None:
        self._replica = (address, port)
        self._expected = connections
        self._path = path
        self._held = held
        self._open: list[Connection] = []
        self._poll = select.epoll()
        self._masks: dict[int, int] = {}
        self._listener: socket.socket | None = None

    def prepare(self) -> None:
        """See that the replica is there, and listen."""
        far = self._connect()
        try:
            hello = b""
            while len(hello) < nbd.GREETING:
                data = far.recv(nbd.GREETING - len(hello))
                if not data:
                    raise Broken("closed", "the replica's side closes the connection")
                hello += data
        except TimeoutError:
            raise Broken("silent", f"no answer for {SILENT} s") from None
        finally:
            far.close()
        if not hello.startswith(nbd.HELLO):
            raise Broken("protocol", "what answers there does not speak NBD")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        with contextlib.suppress(FileNotFoundError):
            Path(self._path).unlink()
        listener.bind(self._path)
        listener.listen(self._expected)
        self._listener = listener
        self._poll.register(listener.fileno(), select.EPOLLIN)

    def serve(self) -> None:
        """Pass everything on until the line breaks."""
        timer = _DeadMan()
        began = time.monotonic()
        last = began
        while True:
            busy = any(each.watch.under_way for each in self._open)
            states = dict(self._poll.poll(_ROUND_BUSY if busy else _ROUND_IDLE))
            now = time.monotonic()
            if self._listener is not None:
                if now - began > _UNUSED:
                    raise Broken("source", "the source has not connected")
                if self._listener.fileno() in states:
                    self._accept(now)
            for connection in self._open:
                self._pass_on(connection, states, now)
            if now - last >= _ROUND_BUSY:
                last = now
                timer.again()
                for connection in self._open:
                    connection.look(now)
            for connection in self._open:
                self._register(connection)

    def close(self) -> None:
        """Close everything, the replica's side of all disks before anything of QEMU's."""
        for connection in self._open:
            connection.close_far()
        for connection in self._open:
            connection.close_near()
        if self._listener is not None:
            self._listener.close()
            with contextlib.suppress(OSError):
                Path(self._path).unlink()

    @staticmethod
    def _pass_on(connection: Connection, states: Mapping[int, int], now: float) -> None:
        near, far = states.get(connection.near.fileno(), 0), states.get(connection.far.fileno(), 0)
        if far & select.EPOLLIN or near & select.EPOLLOUT:
            connection.downward(now)
        if near & select.EPOLLIN or far & select.EPOLLOUT:
            connection.upward(now)
        if near & _ENDED:
            raise Broken("source", "the source has closed the connection")
        if far & _ENDED:
            raise Broken("closed", "the replica's side has closed the connection")

    def _register(self, connection: Connection) -> None:
        for end, mask in zip((connection.near, connection.far), connection.wants(), strict=True):
            number = end.fileno()
            known = self._masks.get(number)
            if known is None:
                self._poll.register(number, mask)
            elif known != mask:
                self._poll.modify(number, mask)
            self._masks[number] = mask

    def _accept(self, now: float) -> None:
        assert self._listener is not None  # noqa: S101  # the caller has seen it
        near, _ = self._listener.accept()
        self._open.append(Connection(near, self._connect(), now, self._held))
        if len(self._open) == self._expected:
            # Nothing comes after these, whatever becomes of them.
            self._poll.unregister(self._listener.fileno())
            self._listener.close()
            self._listener = None
            Path(self._path).unlink()

    def _connect(self) -> socket.socket:
        try:
            far = socket.create_connection(self._replica, timeout=SILENT)
        except TimeoutError:
            raise Broken("silent", f"no answer for {SILENT} s") from None
        except OSError as error:
            raise Broken("unreached", error.strerror or str(error)) from None
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # However this process ends, what the kernel still holds is dropped and the replica told at once.
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return far


class _DeadMan:
    """A kernel timer that kills this process unless it is set again in time: a process that is stopped never is."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        # struct sigevent: value, signal, SIGEV_SIGNAL; 64 bytes.
        event = ctypes.create_string_buffer(struct.pack("Pii", 0, signal.SIGKILL, 0), 64)
        if self._libc.timer_create(time.CLOCK_MONOTONIC, event, ctypes.byref(self._timer)) != 0:
            raise OSError(ctypes.get_errno(), "timer_create")
        whole = int(_DEAD_MAN)
        self._setting = struct.pack("llll", 0, 0, whole, int((_DEAD_MAN - whole) * 1e9))
        self.again()

    def again(self) -> None:
        """Begin anew."""
        self._libc.timer_settime(self._timer, 0, self._setting, None)
