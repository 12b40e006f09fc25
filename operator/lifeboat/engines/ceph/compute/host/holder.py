"""The program that lets a machine stand still for a moment and go on, whatever becomes of who asked for it.

It is a process of its own, so that no server stands still for want of an operator: it holds the machine's monitor, and
lets the machine go on when it is told to, when its caller's end of the connection is gone, or when `BOUND` seconds have
passed, whichever is first. Run by path as `python -I -S`, of the standard library alone; the connection to its caller
is its standard input. It says `held` or `failed`; it is told `go` and says `gone` with `kept`, which is whether the
machine stood still until that word came.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

BOUND = 2.5
_ANSWER = 3.0


class Monitor:
    """A connection to QEMU's monitor; the current folder is the socket's."""

    def __init__(self, path: Path) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(_ANSWER)
        # By its name alone: a socket's path may have 108 bytes.
        self._connection.connect(path.name)
        self._lines = self._connection.makefile("rb")
        self._lines.readline()
        self.run("qmp_capabilities")

    def run(self, command: str) -> Any:  # noqa: ANN401 - JSON
        """Run a command and return its answer; `OSError` where there is none."""
        self._connection.sendall(json.dumps({"execute": command}).encode() + b"\n")
        while line := self._lines.readline():
            said = json.loads(line)
            if "return" in said:
                return said["return"]
            if "error" in said:
                raise OSError(said["error"].get("desc", command))
        raise OSError("QEMU has closed its monitor")


def hold(monitor: Monitor, caller: socket.socket) -> dict[str, object]:
    """Let the machine stand still until the word, or until it is too long; how it went."""
    running = bool(monitor.run("query-status")["running"])
    if running:
        monitor.run("stop")
    began = time.monotonic()
    try:
        caller.sendall(b'{"say": "held"}\n')
        heard = select.select([caller], [], [], BOUND)[0]
        told = bool(heard) and caller.recv(64) == b"go\n"
    finally:
        if running:
            monitor.run("cont")
    return {"say": "gone", "kept": told, "seconds": round(time.monotonic() - began, 3)}


def main(path: Path) -> None:
    """Serve the one caller at standard input."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # Whoever ends the operator in this way may well mean all it started; this ends by itself, in a moment.
        signal.signal(number, signal.SIG_IGN)
    caller = socket.socket(fileno=0)
    os.chdir(path.parent)
    try:
        answer = hold(Monitor(path), caller)
    except (OSError, ValueError) as error:
        answer = {"say": "failed", "reason": str(error)}
    caller.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
