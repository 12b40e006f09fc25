"""Talking to the agent inside a guest: is it there, when did it boot, run this once.

The agent's channel is a serial line: answers of an earlier, impatient caller may still be in it. Each conversation
begins with a delimited sync, whose answer cannot be mistaken for an older one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lifeboat.engines.contract import ExecResult, Retry, Script
from lifeboat.engines.ledger import ScriptOutcome
from lifeboat.host.qmp import CommandFailed, Silent, connect, log_command, owner

_PROBE = 0.5
_SLOW_PROBE = 4.0
_GOOD_FOR = 5.0
_BAD_FOR = 2.0
_PATIENCE = 15.0
_TAIL = 1024
_FROZEN_TEXT = "filesystems are currently frozen"
_LIMIT = 64 * 1024 * 1024
_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,198}[A-Za-z0-9])?")
# The first caller makes the folder and starts the script; any other sees the folder and looks for the outcome. It may
# be a Secret's, so nothing is left of it once it has ended: a check that runs a program could show it.
_RUN = """
[ -f "$1/exit" ] && exit 0
mkdir "$1/started" 2>/dev/null || exit 0
if [ "$(head -c 2 "$1/script")" = "#!" ]; then chmod 700 "$1/script"; set -- "$1" "$1/script"
else set -- "$1" /bin/sh "$1/script"; fi
at=$1; shift
"$@" >"$at/output" 2>&1 </dev/null
echo $? >"$at/exit.new" && : >"$at/script" && sync && mv "$at/exit.new" "$at/exit"
"""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a guest's agent told when it was last asked."""

    answers: bool
    boot_time: datetime | None = None


class Agent:
    """An open conversation with one guest's agent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, socket: Path, token: int) -> None:
        self._reader, self._writer, self._socket, self._token = reader, writer, socket, token

    async def synchronise(self) -> None:
        """Drop whatever an earlier caller left in the line."""
        self._send("guest-sync-delimited", {"id": self._token}, prefix=b"\xff")
        while True:
            await self._reader.readuntil(b"\xff")
            with contextlib.suppress(ValueError):
                if json.loads(await self._reader.readline()).get("return") == self._token:
                    return

    async def run(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401  # as JSON
        """Run a command of the agent and return its answer.

        Raises:
            CommandFailed: the agent refuses it.
        """
        self._send(command, arguments)
        line = await self._reader.readline()
        if not line:
            raise Silent(f"{owner(self._socket)} has closed the line to its guest's agent")
        answer = json.loads(line)
        if "error" in answer:
            raise CommandFailed(command, str(answer["error"].get("desc", answer["error"])))
        return answer.get("return")

    def tell(self, command: str, arguments: Mapping[str, object] | None = None) -> None:
        """Send a command whose answer never comes, such as a reboot."""
        self._send(command, arguments)

    async def write_file(self, path: str, data: bytes) -> None:
        """Write a file in the guest."""
        handle = await self.run("guest-file-open", {"path": path, "mode": "w"})
        for start in range(0, len(data), 48 * 1024):
            chunk = base64.b64encode(data[start : start + 48 * 1024]).decode("ascii")
            await self.run("guest-file-write", {"handle": handle, "buf-b64": chunk})
        await self.run("guest-file-close", {"handle": handle})

    async def read_file(self, path: str, count: int = 4096) -> bytes:
        """The beginning of a file in the guest."""
        handle = await self.run("guest-file-open", {"path": path, "mode": "r"})
        try:
            answer = await self.run("guest-file-read", {"handle": handle, "count": count})
        finally:
            await self.run("guest-file-close", {"handle": handle})
        return base64.b64decode(answer["buf-b64"])

    def _send(self, command: str, arguments: Mapping[str, object] | None, prefix: bytes = b"") -> None:
        log_command(self._socket, command, arguments)
        message: dict[str, object] = {"execute": command}
        if arguments:
            message["arguments"] = dict(arguments)
        self._writer.write(prefix + json.dumps(message).encode() + b"\n")


class Guests:
    """The agents of one engine's machines, each talked to by one caller at a time."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._locks: dict[Path, asyncio.Lock] = {}
        self._pulses: dict[Path, tuple[float, Pulse]] = {}
        self._probes: dict[Path, asyncio.Task[None]] = {}
        self._tokens = itertools.count(time.time_ns() & 0xFFFFFFFF)
        self._monotonic = monotonic

    @contextlib.asynccontextmanager
    async def conversation(self, socket: Path, seconds: float) -> AsyncIterator[Agent]:
        """Talk to an agent; waiting for one's turn is part of the deadline.

        Raises:
            Silent: it does not answer, or not in time.
        """
        lock = self._locks.setdefault(socket, asyncio.Lock())
        try:
            async with asyncio.timeout(seconds), lock:
                connection = await connect(socket)
                try:
                    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_LIMIT)
                except BaseException:
                    connection.close()
                    raise
                try:
                    agent = Agent(reader, writer, socket, next(self._tokens))
                    await agent.synchronise()
                    yield agent
                    await writer.drain()
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
        except TimeoutError as error:
            raise Silent(f"the guest's agent does not answer within {seconds:g} s") from error
        except (OSError, EOFError, ValueError, asyncio.IncompleteReadError) as error:
            raise Silent(f"the guest's agent does not answer: {error}") from error

    @contextlib.asynccontextmanager
    async def reserved(self, socket: Path, seconds: float) -> AsyncIterator[None]:
        """Leave an agent to a process of its own; `seconds` bounds the wait for one's turn.

        Raises:
            Silent: others have it for longer.
        """
        lock = self._locks.setdefault(socket, asyncio.Lock())
        try:
            async with asyncio.timeout(seconds):
                await lock.acquire()
        except TimeoutError as error:
            raise Silent(f"the guest's agent is busy for more than {seconds:g} s") from error
        try:
            yield
        finally:
            lock.release()

    async def pulse(self, socket: Path) -> Pulse:
        """Whether an agent answers and when its guest booted, as of 5 s ago at most, or 15 s while it is slow.

        The look that asks waits half a second for an answer, the others not at all. The question stays asked for a few
        seconds more, and a slow answer counts at the next look: on a busy host a guest can take so long.
        The boot time is the guest kernel's own (`btime` of /proc/stat): a reboot inside a running machine moves it.
        """
        now = self._monotonic()
        known = self._pulses.get(socket)
        if known is not None and now - known[0] < (_GOOD_FOR if known[1].answers else _BAD_FOR):
            return known[1]
        if socket not in self._probes:
            probe = asyncio.create_task(self._probe(socket, known[1].boot_time if known is not None else None))
            self._probes[socket] = probe
            await asyncio.wait([probe], timeout=_PROBE)
        if socket in self._pulses and self._pulses[socket] is not known:
            return self._pulses[socket][1]
        if known is not None and known[1].answers and now - known[0] < _PATIENCE:
            # A busy host is no reason to say that a client has gone.
            return known[1]
        return Pulse(answers=False)

    async def _probe(self, socket: Path, before: datetime | None) -> None:
        """Ask an agent and note what it says; silence replaces an answer only when that is old."""
        pulse = Pulse(answers=False)
        try:
            with contextlib.suppress(Silent, CommandFailed):
                async with self.conversation(socket, _SLOW_PROBE) as agent:
                    await agent.run("guest-ping")
                    pulse = Pulse(answers=True, boot_time=before)
                    pulse = Pulse(answers=True, boot_time=_steady(before, await _boot_time(agent)))
            known = self._pulses.get(socket)
            fresh = known is not None and known[1].answers and self._monotonic() - known[0] < _PATIENCE
            if pulse.answers or not fresh:
                self._pulses[socket] = (self._monotonic(), pulse)
        finally:
            if self._probes.get(socket) is asyncio.current_task():
                del self._probes[socket]

    def forget(self, socket: Path) -> None:
        """Ask the agent anew the next time: something happened to its guest."""
        self._pulses.pop(socket, None)
        probe = self._probes.pop(socket, None)
        if probe is not None:
            probe.cancel()

    async def close(self) -> None:
        """Stop asking."""
        probes = list(self._probes.values())
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)

    async def freeze(self, socket: Path, seconds: float) -> None:
        """Flush and freeze the guest's file systems."""
        async with self.conversation(socket, seconds) as agent:
            if await agent.run("guest-fsfreeze-status") != "frozen":
                await agent.run("guest-fsfreeze-freeze")

    async def thaw(self, socket: Path, seconds: float) -> None:
        """Thaw the guest's file systems, or see that they are."""
        async with self.conversation(socket, seconds) as agent:
            if await agent.run("guest-fsfreeze-status") != "thawed":
                await agent.run("guest-fsfreeze-thaw")

    async def execute(self, socket: Path, argv: Collection[str], seconds: float) -> ExecResult:
        """Run a program in the guest and wait for it; an exit code of 124 says that it was not done in time."""
        path, *arguments = argv
        deadline = self._monotonic() + seconds
        request = {"path": path, "arg": arguments, "capture-output": True}
        async with self.conversation(socket, min(seconds, 5.0) + 1.0) as agent:
            try:
                pid = (await agent.run("guest-exec", request))["pid"]
            except CommandFailed as error:
                if _FROZEN_TEXT in error.description:
                    raise Retry("the guest's file systems are frozen") from error
                return ExecResult(127, error.description)
        pause = 0.02
        while True:
            async with self.conversation(socket, 5.0) as agent:
                status = await agent.run("guest-exec-status", {"pid": pid})
            if status["exited"]:
                output = b"".join(base64.b64decode(status.get(part, "")) for part in ("out-data", "err-data"))
                code = status.get("exitcode", 128 + status.get("signal", 0))
                return ExecResult(code, _tail(output))
            if self._monotonic() > deadline:
                return ExecResult(124, f"not done after {seconds:g} s")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    async def run_script(self, socket: Path, script: Script, seconds: float) -> ScriptOutcome:
        """Run a script in the guest once per key and tell its outcome; None as exit code while it has not ended.

        The script, its output and its exit code lie under /run/lifeboat/<key>/ in the guest, so a second call finds
        the first one's run, also when the caller died in between.
        """
        if not _KEY.fullmatch(script.key) or ".." in script.key:
            raise Retry(f"{script.key!r} cannot name a script's run")
        folder = f"/run/lifeboat/{script.key}"
        async with self.conversation(socket, 10.0) as agent:
            made = await agent.run("guest-exec", {"path": "/bin/mkdir", "arg": ["-p", "-m", "700", folder]})
            await _ended(agent, made["pid"])
            if not await _is_there(agent, f"{folder}/exit") and not await _is_there(agent, f"{folder}/script"):
                await agent.write_file(f"{folder}/script.new", script.content.encode())
                moved = await agent.run(
                    "guest-exec", {"path": "/bin/mv", "arg": [f"{folder}/script.new", f"{folder}/script"]}
                )
                await _ended(agent, moved["pid"])
            # Starting twice does no harm: the second start sees the first one's folder and ends.
            await agent.run("guest-exec", {"path": "/bin/sh", "arg": ["-c", _RUN, "lifeboat", folder]})
        deadline = self._monotonic() + seconds
        while True:
            async with self.conversation(socket, 5.0) as agent:
                if await _is_there(agent, f"{folder}/exit"):
                    code = int(await agent.read_file(f"{folder}/exit"))
                    return ScriptOutcome(code, await _output(agent, folder))
                if self._monotonic() > deadline:
                    return ScriptOutcome(None, await _output(agent, folder))
            await asyncio.sleep(0.1)


async def _boot_time(agent: Agent) -> datetime | None:
    for line in (await agent.read_file("/proc/stat", 65536)).splitlines():
        if line.startswith(b"btime "):
            return datetime.fromtimestamp(int(line.split()[1]), UTC)
    return None


def _steady(before: datetime | None, boot_time: datetime | None) -> datetime | None:
    """The boot time as told before where it differs by rounding only: the kernel computes it anew each time."""
    if before is not None and boot_time is not None and abs((boot_time - before).total_seconds()) <= 1:
        return before
    return boot_time


async def _ended(agent: Agent, pid: int) -> None:
    for _ in range(200):
        if (await agent.run("guest-exec-status", {"pid": pid}))["exited"]:
            return
        await asyncio.sleep(0.02)
    raise Silent("the guest does not end a small program")


async def _is_there(agent: Agent, path: str) -> bool:
    try:
        await agent.read_file(path, 1)
    except CommandFailed:
        return False
    return True


async def _output(agent: Agent, folder: str) -> str:
    try:
        handle = await agent.run("guest-file-open", {"path": f"{folder}/output", "mode": "r"})
    except CommandFailed:
        return ""
    try:
        end = (await agent.run("guest-file-seek", {"handle": handle, "offset": 0, "whence": "end"}))["position"]
        start = {"handle": handle, "offset": max(0, end - _TAIL), "whence": "set"}
        await agent.run("guest-file-seek", start)
        answer = await agent.run("guest-file-read", {"handle": handle, "count": _TAIL})
    finally:
        await agent.run("guest-file-close", {"handle": handle})
    return _tail(base64.b64decode(answer["buf-b64"]))


def _tail(output: bytes) -> str:
    return output[-_TAIL:].decode("utf-8", "replace")
