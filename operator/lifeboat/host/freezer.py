"""The program that freezes a guest's file systems for a moment and thaws them, whatever becomes of who asked for it.

It is a process of its own, so that no guest stands still for want of an operator: it holds the agent's line, and thaws
when it is told to, when its caller's end of the connection is gone, or when `BOUND` seconds have passed, whichever is
first. An agent that is still busy freezing then has the thaw behind it in its line. It is small and quick to start: run
by path as `python -I -S`, of the standard library alone, talked to in lines over the socket that is its standard input.

It says `ready`; it is told `freeze` and says `frozen` or `failed`; it is told `thaw` and says `thawed` with `held`,
which is whether the guest was frozen until that word came.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path

# From the order to freeze to the order to thaw, in seconds: so long may a guest's writes stand still for a point.
BOUND = 0.8
_ANSWER = 3.0
_PATIENCE = 15.0
_AGAIN = 1.0
_GIVE_UP = 600.0


class Line:
    """A connection that carries lines. `ended`: nothing comes any more."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.ended = False
        self._got = b""

    def ready(self) -> bool:
        """Whether there is a line, or never will be one."""
        return self.ended or b"\n" in self._got

    def read(self) -> None:
        """Take what has come."""
        try:
            data = self.connection.recv(65536)
        except OSError:
            data = b""
        self._got += data
        self.ended = self.ended or not data

    def pop(self) -> bytes:
        """The next line, empty where the connection ended."""
        line, newline, rest = self._got.partition(b"\n")
        if newline:
            self._got = rest
        return line if newline else b""

    def send(self, message: Mapping[str, object], prefix: bytes = b"") -> None:
        """Send a line; one that nobody takes any more is lost."""
        try:
            self.connection.sendall(prefix + json.dumps(message).encode() + b"\n")
        except OSError:
            self.ended = True


class Silent(Exception):
    """Raised when the agent does not answer in time."""


def wait(until: float, *lines: Line) -> Line | None:
    """The first of these that is ready, None when none is by then."""
    while True:
        for line in lines:
            if line.ready():
                return line
        left = until - time.monotonic()
        if left <= 0:
            return None
        for connection in select.select([line.connection for line in lines], [], [], left)[0]:
            next(line for line in lines if line.connection is connection).read()


def connect(path: Path) -> Line:
    """Open the agent's line and drop what an earlier caller left in it; the folder of `path` is the current one."""
    connection = socket.socket(socket.AF_UNIX)
    # Connecting waits for room in the socket's queue, which Python's own time limit does not.
    seconds, microseconds = int(_ANSWER), int(_ANSWER % 1 * 1_000_000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", seconds, microseconds))
    try:
        # By its name alone: a socket's path may have 108 bytes.
        connection.connect(path.name)
        connection.settimeout(_ANSWER)
        agent = Line(connection)
        token = time.time_ns() & 0x7FFFFFFF
        agent.send({"execute": "guest-sync-delimited", "arguments": {"id": token}}, prefix=b"\xff")
        until = time.monotonic() + _ANSWER
        while wait(until, agent) is not None and not agent.ended:
            _, delimiter, said = agent.pop().rpartition(b"\xff")
            if delimiter and json.loads(said).get("return") == token:
                return agent
    except (OSError, ValueError) as error:
        connection.close()
        raise Silent(str(error)) from error
    connection.close()
    raise Silent(f"no answer within {_ANSWER:g} s")


def answer(agent: Line, until: float) -> tuple[int, str]:
    """The count that the agent answers, and what it refuses if it does.

    Raises:
        Silent: there is no answer by then.
    """
    if wait(until, agent) is None or agent.ended:
        raise Silent("no answer")
    try:
        said = json.loads(agent.pop())
        return int(said.get("return", 0)), str(said.get("error", {}).get("desc", ""))
    except (ValueError, TypeError, AttributeError) as error:
        raise Silent(f"no answer that can be understood: {error}") from error


def freeze(agent: Line, caller: Line) -> None:
    """Freeze, hold and thaw, and tell how it went.

    Raises:
        Silent: whether the guest is thawed is not known.
    """
    began = time.monotonic()
    until = began + BOUND
    agent.send({"execute": "guest-fsfreeze-freeze"})
    answers, reason, told = 1, "", False
    if wait(until, agent, caller) is agent:
        count, reason = answer(agent, until)
        answers = 0
        if count > 0:
            caller.send({"say": "frozen"})
            told = wait(until, caller) is caller and caller.pop() == b"thaw"
        reason = reason or ("" if count > 0 else "none of its file systems can be frozen")
    else:
        reason = f"its file systems were not frozen within {BOUND:g} s"
    agent.send({"execute": "guest-fsfreeze-thaw"})
    if reason:
        caller.send({"say": "failed", "reason": reason})
    for _ in range(answers):
        answer(agent, time.monotonic() + _ANSWER)
    # What somebody else thawed, or what was booted anew, was not frozen until now: then none is left to thaw.
    count, reason = answer(agent, time.monotonic() + _ANSWER)
    if reason:
        raise Silent(reason)
    caller.send({"say": "thawed", "held": told and count > 0, "seconds": round(time.monotonic() - began, 3)})


def thaw(path: Path) -> None:
    """Thaw a guest whose agent was busy or away, however long it takes, for as long as its machine runs."""
    end = time.monotonic() + _GIVE_UP
    while path.exists() and time.monotonic() < end:
        try:
            agent = connect(path)
            agent.send({"execute": "guest-fsfreeze-thaw"})
            if not answer(agent, time.monotonic() + _ANSWER)[1]:
                return
        except Silent as error:
            if isinstance(error.__cause__, ConnectionRefusedError):
                return
        # In between an operator may have its turn with the agent.
        time.sleep(_AGAIN)


def main(path: Path) -> None:
    """Serve the one caller at standard input."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # Whoever ends the operator in this way may well mean all it started; this ends by itself, in a moment.
        signal.signal(number, signal.SIG_IGN)
    caller = Line(socket.socket(fileno=0))
    os.chdir(path.parent)
    try:
        agent = connect(path)
    except Silent as error:
        caller.send({"say": "failed", "reason": f"its agent does not answer: {error}"})
        return
    caller.send({"say": "ready"})
    if wait(time.monotonic() + _PATIENCE, caller) is None or caller.pop() != b"freeze":
        return
    try:
        freeze(agent, caller)
    except Silent:
        agent.connection.close()
        caller.connection.close()
        thaw(path)
        return
    agent.connection.close()
    # To a caller whose word comes too late the answer would be lost if nobody was there to take that word.
    wait(time.monotonic() + _PATIENCE, caller)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
