"""One disk's connection: passing on, following the protocol, and asking for signs of life."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import termios
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lifeboat.line import nbd
from lifeboat.line.watch import OWN, Broken, Request, Watch

if TYPE_CHECKING:
    from lifeboat.line.fingerprints import Fingerprints

_HANDSHAKE = 0.9
_ASK_AFTER = 0.3
_IDLE = 1.5
_CHUNK = 1 << 20
_SMALL = 64 << 10
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Connection:
    """One disk's way: `near` leads to QEMU, `far` to the replica.

    `held` tells, by the name of a disk, what the replica holds already: that is not passed on.
    """

    def __init__(
        self, near: socket.socket, far: socket.socket, now: float, held: Mapping[str, Fingerprints] | None = None
    ) -> None:
        self.near, self.far = near, far
        self.began = now
        self.watch = Watch()
        self.transmitting = False
        self._greeted = False
        self._held = held or {}
        self._known: Fingerprints | None = None
        self._said = b""
        self._up = bytearray()
        self._down = bytearray()
        self._to_far = memoryview(b"")
        self._to_near = memoryview(b"")
        self._payload = 0
        self._piped = 0
        self._passed = 0
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, _CHUNK)
        near.setblocking(False)  # noqa: FBT003  # its only argument
        far.setblocking(False)  # noqa: FBT003  # its only argument

    def wants(self) -> tuple[int, int]:
        """What to wait for at near and far: the poll masks."""
        blocked_up, blocked_down = bool(self._to_far) or self._piped > 0, bool(self._to_near)
        near = (0 if blocked_up else select.EPOLLIN) | (select.EPOLLOUT if blocked_down else 0)
        far = (0 if blocked_down else select.EPOLLIN) | (select.EPOLLOUT if blocked_up else 0)
        return near, far

    def upward(self, now: float) -> None:
        """Pass on from QEMU what there is and what the replica's side takes."""
        # Less than was asked for means that there is no more now: not asking again saves a call.
        short = False
        while self._drained():
            if short:
                return
            if self._payload >= _SMALL:
                try:
                    moved = os.splice(self.near.fileno(), self._writer, min(self._payload, _CHUNK), flags=_FLAGS)
                except BlockingIOError:
                    return
                if moved == 0:
                    raise Broken("source", "the source has closed the connection")
                self._payload -= moved
                self._piped += moved
                continue
            try:
                data = self.near.recv(_SMALL)
            except BlockingIOError:
                return
            if not data:
                raise Broken("source", "the source has closed the connection")
            short = len(data) < _SMALL
            self._up += data
            if self._known is not None:
                self._to_far = memoryview(self._sifted(self._known, now))
                continue
            ready = self._requests(now) if self.transmitting else len(self._up)
            self._to_far = memoryview(bytes(self._up[:ready]))
            if not self.transmitting and self._held:
                self._said += self._to_far
            del self._up[:ready]

    def _drained(self) -> bool:
        """Send what waits for the replica; true when nothing waits any more."""
        try:
            while self._to_far:
                # A header without its payload makes no packet of its own.
                sent = self.far.send(self._to_far, socket.MSG_MORE if self._payload else 0)
                self._passed += sent
                self._to_far = self._to_far[sent:]
            while self._piped:
                more = os.SPLICE_F_MORE if self._payload else 0
                sent = os.splice(self._reader, self.far.fileno(), self._piped, flags=_FLAGS | more)
                self._passed += sent
                self._piped -= sent
        except BlockingIOError:
            return False
        return True

    def _requests(self, now: float) -> int:
        """Note the requests in what came from QEMU, and tell how much of it may be passed on: no half headers."""
        place, size = 0, len(self._up)
        while True:
            step = min(self._payload, size - place)
            place += step
            self._payload -= step
            if self._payload or size - place < nbd.REQUEST.size:
                return place
            magic, _, kind, handle, _, length = nbd.REQUEST.unpack_from(self._up, place)
            if magic != nbd.REQUEST_MAGIC:
                raise Broken("protocol", "the source does not speak NBD")
            place += nbd.REQUEST.size
            self._payload = length if kind == nbd.WRITE else 0
            if kind != nbd.DISCONNECT:
                end = self._passed + place + self._payload
                self.watch.begin(handle, Request(kind, length, now, end))

    def _sifted(self, known: Fingerprints, now: float) -> bytes:
        """What of that which came from QEMU has to be passed on; writes of what is there already are answered here."""
        passed = bytearray()
        while True:
            step = min(self._payload, len(self._up))
            passed += self._up[:step]
            del self._up[:step]
            self._payload -= step
            if self._payload or len(self._up) < nbd.REQUEST.size:
                return bytes(passed)
            magic, flags, kind, handle, offset, length = nbd.REQUEST.unpack_from(self._up)
            if magic != nbd.REQUEST_MAGIC:
                raise Broken("protocol", "the source does not speak NBD")
            payload = None
            if kind in {nbd.WRITE, nbd.ZERO} and known.tell_of(offset, length):
                size = nbd.REQUEST.size + (length if kind == nbd.WRITE else 0)
                if len(self._up) < size:
                    return bytes(passed)
                payload = bytes(self._up[nbd.REQUEST.size : size])
                first, last = known.differing(offset, length, payload if kind == nbd.WRITE else None)
                if first == last:
                    del self._up[:size]
                    answer = nbd.SIMPLE.pack(nbd.SIMPLE_MAGIC, 0, handle)
                    self._to_near = memoryview(bytes(self._to_near) + answer)
                    continue
                payload, offset, length = payload[first:last], offset + first, last - first
                del self._up[: size - nbd.REQUEST.size]
            del self._up[: nbd.REQUEST.size]
            if kind in nbd.CHANGING:
                known.forget(offset, length)
            passed += nbd.REQUEST.pack(magic, flags, kind, handle, offset, length)
            if payload is not None:
                passed += payload
            else:
                self._payload = length if kind == nbd.WRITE else 0
            if kind != nbd.DISCONNECT:
                self.watch.begin(handle, Request(kind, length, now, self._passed + len(passed) + self._payload))

    def downward(self, now: float) -> None:
        """Pass on to QEMU what the replica answers, whole answers only."""
        short = False
        while True:
            try:
                while self._to_near:
                    self._to_near = self._to_near[self.near.send(self._to_near) :]
                if short:
                    return
                data = self.far.recv(_SMALL)
            except BlockingIOError:
                return
            if not data:
                raise Broken("closed", "the replica's side has closed the connection")
            self.watch.moved = now
            self._down += data
            parts = self._answers(now) if self.transmitting else self._agreement()
            self._to_near = memoryview(b"".join(parts))
            short = len(data) < _SMALL

    def _agreement(self) -> list[bytes]:
        """Follow the handshake to its end.

        That flushing is possible is kept from QEMU. The replica writes through, so there is nothing to flush, and QEMU
        flushes a broken target before it lets it be changed for another one, which fails.
        """
        parts: list[bytes] = []
        if not self._greeted and len(self._down) >= nbd.GREETING:
            if not self._down.startswith(nbd.HELLO):
                raise Broken("protocol", "what answers there does not speak NBD")
            parts.append(self._take(nbd.GREETING))
            self._greeted = True
        while self._greeted and not self.transmitting and len(self._down) >= nbd.OPTION_REPLY.size:
            magic, option, reply, length = nbd.OPTION_REPLY.unpack_from(self._down)
            if magic != nbd.OPTION_REPLY_MAGIC:
                raise Broken("protocol", "what answers there does not speak NBD as it should")
            if len(self._down) < nbd.OPTION_REPLY.size + length:
                break
            data = bytearray(self._take(nbd.OPTION_REPLY.size + length))
            if reply == nbd.INFO and length >= 12 and data[20:22] == b"\0\0":
                (flags,) = struct.unpack_from(">H", data, 30)
                struct.pack_into(">H", data, 30, flags & ~nbd.CAN_FLUSH)
            parts.append(bytes(data))
            self.transmitting = option == nbd.GO and reply == nbd.ACK
            if self.transmitting:
                self._known = self._held.get(nbd.export_asked(self._said) or "")
        return parts

    def _answers(self, now: float) -> list[bytes]:
        """The whole answers that came, without those to the line itself."""
        parts: list[bytes] = []
        while True:
            found = self._answer()
            if found is None:
                return parts
            handle, done, fault, data = found
            request = self.watch.under_way.get(handle)
            if fault and request is not None and request.kind in nbd.CHANGING:
                self._failed(request, fault)
            if done:
                self.watch.end(handle, now)
            if handle != OWN:
                parts.append(data)

    @staticmethod
    def _failed(request: Request, fault: int) -> None:
        if request.kind == nbd.ZERO and fault == nbd.NOT_SUPPORTED:
            # Asked for only where it is quick, and it would not be: QEMU does it in another way.
            return
        if fault in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise Broken("full", os.strerror(errno.ENOSPC))
        raise Broken("failed", os.strerror(fault))

    def _answer(self) -> tuple[int, bool, int, bytes] | None:
        """The next whole answer: its handle, whether the request is done with it, its error, and all of it."""
        if len(self._down) < 4:
            return None
        (magic,) = struct.unpack_from(">I", self._down)
        if magic == nbd.SIMPLE_MAGIC:
            if len(self._down) < nbd.SIMPLE.size:
                return None
            _, fault, handle = nbd.SIMPLE.unpack_from(self._down)
            request = self.watch.under_way.get(handle)
            size = nbd.SIMPLE.size + (request.length if request and request.kind == nbd.READ and not fault else 0)
            done = True
        elif magic == nbd.STRUCTURED_MAGIC:
            if len(self._down) < nbd.STRUCTURED.size:
                return None
            _, flags, kind, handle, length = nbd.STRUCTURED.unpack_from(self._down)
            size, done, fault = nbd.STRUCTURED.size + length, bool(flags & nbd.DONE), 0
            if kind & nbd.ERROR_CHUNK and len(self._down) >= nbd.STRUCTURED.size + 4:
                (fault,) = struct.unpack_from(">I", self._down, nbd.STRUCTURED.size)
        else:
            raise Broken("protocol", "the replica's side does not speak NBD any more")
        if len(self._down) < size:
            return None
        return handle, done, fault, self._take(size)

    def _take(self, size: int) -> bytes:
        data = bytes(self._down[:size])
        del self._down[:size]
        return data

    def look(self, now: float) -> None:
        """Break where nothing moves, and ask for a sign of life where it is time for one."""
        if not self.transmitting:
            if now - self.began > _HANDSHAKE:
                raise Broken("silent", f"no answer for {_HANDSHAKE} s")
            return
        waiting = fcntl.ioctl(self.far.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        self.watch.taken(self._passed - int.from_bytes(waiting, "little"), now)
        problem = self.watch.problem(now)
        if problem is not None:
            raise problem
        if OWN in self.watch.under_way or self._to_far or self._piped or self._payload:
            return
        after = _ASK_AFTER if self.watch.under_way else _IDLE
        if now - self.watch.moved > after:
            self._to_far = memoryview(nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.READ, OWN, 0, 512))
            self.watch.begin(OWN, Request(nbd.READ, 512, now, self._passed + nbd.REQUEST.size))
            self._drained()

    def close_far(self) -> None:
        """Cut the replica off; what the kernel still holds for it is dropped."""
        self.far.close()

    def close_near(self) -> None:
        """Let QEMU know."""
        self.near.close()
        os.close(self._reader)
        os.close(self._writer)
