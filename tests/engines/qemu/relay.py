"""A tunnel between two zones that does what tunnels do: pass on, swallow, slow down, close."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from enum import Enum


class Mode(Enum):
    PASS = "passes everything on"
    SWALLOW = "swallows everything"
    SWALLOW_UP = "swallows what goes to the replica"
    SWALLOW_DOWN = "swallows what comes from the replica"
    REFUSE = "closes what comes"


class Relay:
    """Listens at one address and leads to another one, the same port."""

    def __init__(self, address: str, behind: str, port: int, rate: int | None = None) -> None:
        self.mode = Mode.PASS
        self.rate = rate
        self.passed = 0
        self._behind = (behind, port)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server((address, port))
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, mode: Mode = Mode.REFUSE) -> None:
        """Close every connection, and let none in from now on."""
        self.mode = mode
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.mode is Mode.REFUSE:
                near.close()
                continue
            try:
                far = socket.create_connection(self._behind, timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self._pairs.append((near, far))
            for source, sink, up in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._carry, args=(source, sink, up), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        drops = {Mode.SWALLOW, Mode.SWALLOW_UP if up else Mode.SWALLOW_DOWN}
        with contextlib.suppress(OSError), source, sink:
            while data := source.recv(64 << 10):
                if self.mode in drops:
                    continue
                if up:
                    self.passed += len(data)
                    if self.rate is not None:
                        time.sleep(len(data) / self.rate)
                sink.sendall(data)
