"""The programs that talk to the clusters, one for each cluster and user, as the engine sees them.

A call has a deadline. The program's own calls give up a little earlier, and tell why; where even the program does not
answer, it is ended, and another one is started for the next call. A cluster that does not answer delays a caller for
seconds once: until a connection is there again, the callers after that are told at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lifeboat.engines.ceph.connection import Connection
from lifeboat.engines.contract import EngineError, NoSpace, Refused, Retry, Unreachable

logger = logging.getLogger(__name__)

PYTHON_VARIABLE = "LIFEBOAT_CEPH_PYTHON"
_ROOT = Path(__file__).parents[3]
# Lifeboat is looked for last, so that nothing that is installed beside it gets in the way of Ceph's bindings.
_PROGRAM = """
import runpy, sys
sys.path.append(sys.argv.pop())
runpy.run_module("lifeboat.engines.ceph.worker", run_name="__main__")
"""
_PYTHON = "/usr/bin/python3"
_CONNECT = 12.0
_PATIENCE = 2.5
_CALL = 8.0
_LINE = 256 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SILENT = (errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNREFUSED)
_DENIED = (errno.EPERM, errno.EACCES)


class CephFailed(Retry):
    """Raised when a cluster answers that it does not do what it was asked; `errno` is the number that it gave."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.errno = number


class Worker:
    """The program for one cluster; `site` is how people call that."""

    def __init__(self, site: str, connection: Connection, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.site = site
        self.connection = connection
        self._monotonic = monotonic
        self._numbers = itertools.count(1)
        self._connecting: asyncio.Task[_Program] | None = None
        self._since = 0.0
        self._problem: EngineError | None = None

    async def call(self, what: str, /, *, deadline: float = _CALL, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        """Let the program do something and return what it says.

        Raises:
            Unreachable: the cluster does not answer.
            Refused: the user may not do that.
            NoSpace: the cluster is full.
            CephFailed: the cluster does not do it.
        """
        program = await self._connected()
        try:
            async with asyncio.timeout(deadline):
                answer = await program.ask(next(self._numbers), what, arguments)
        except TimeoutError as error:
            self._drop(program)
            raise Unreachable(f"the Ceph cluster of {self.site} does not answer within {deadline:g} s") from error
        except _Ended as error:
            self._drop(program)
            raise Unreachable(
                f"the program that talks to the Ceph cluster of {self.site} has ended: {error}"
            ) from error
        if "error" in answer:
            raise self._understood(what, answer["error"])
        return answer["done"]

    async def close(self) -> None:
        """End the program."""
        connecting, self._connecting = self._connecting, None
        if connecting is None:
            return
        connecting.cancel()
        with contextlib.suppress(asyncio.CancelledError, EngineError):
            await (await connecting).close()

    async def _connected(self) -> _Program:
        """A program that is connected. One that takes long to connect is waited for once, not by each caller."""
        if self._connecting is not None and self._connecting.done() and not self._usable(self._connecting):
            self._connecting = None
        if self._connecting is None:
            self._since = self._monotonic()
            self._connecting = asyncio.create_task(self._connect())
        patience = _PATIENCE - (self._monotonic() - self._since)
        if not self._connecting.done() and patience > 0:
            await asyncio.wait([self._connecting], timeout=patience)
        if not self._connecting.done():
            raise self._problem or Unreachable(f"the Ceph cluster of {self.site} does not answer")
        try:
            return self._connecting.result()
        except EngineError as error:
            self._problem = error
            raise type(error)(*error.args) from error

    def _usable(self, connecting: asyncio.Task[_Program]) -> bool:
        if connecting.cancelled():
            return False
        if connecting.exception() is not None:
            # Told to whoever asks within the time that one attempt may take; then there is another attempt.
            return self._monotonic() - self._since < _PATIENCE
        return connecting.result().alive

    async def _connect(self) -> _Program:
        program = await _Program.start(self.site)
        try:
            async with asyncio.timeout(_CONNECT):
                connection = self.connection
                answer = await program.ask(
                    0, "connect", {"conf": dict(connection.conf), "user": connection.user, "key": connection.key}
                )
        except BaseException as error:
            await program.close()
            if isinstance(error, TimeoutError | _Ended):
                raise Unreachable(f"the Ceph cluster of {self.site} does not answer{_reason(error)}") from error
            raise
        if "error" in answer:
            await program.close()
            raise self._understood("connect", answer["error"])
        self._problem = None
        return program

    def _drop(self, program: _Program) -> None:
        program.kill()
        if self._connecting is not None and self._connecting.done():
            self._connecting = None

    def _understood(self, name: str, error: dict[str, Any]) -> EngineError:
        number, said = int(error["errno"]), str(error["message"])
        if number in _SILENT or (name == "connect" and number == errno.ENOENT):
            return Unreachable(f"the Ceph cluster of {self.site} does not answer ({said})")
        if number in _DENIED:
            user = f"client.{self.connection.user}"
            return Refused(
                f"the Ceph cluster of {self.site} does not let {user} do that ({name}: {said}): see that its key is "
                f"right, and give it `ceph auth caps {user} mon 'allow r, profile rbd' osd 'profile rbd' "
                "mgr 'profile rbd'`"
            )
        if number in _FULL:
            return NoSpace(f"the Ceph cluster of {self.site} is full ({name}: {said})")
        return CephFailed(f"the Ceph cluster of {self.site} refused {name}: {said}", number)


class _Ended(Exception):
    """Raised when a program ended instead of answering."""


class _Program:
    """A running program and the questions that it has not answered yet."""

    def __init__(self, process: asyncio.subprocess.Process, site: str) -> None:
        self._process = process
        self._site = site
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._complain())]
        self.alive = True

    @classmethod
    async def start(cls, site: str) -> _Program:
        """Start a program, which is not connected yet."""
        python = os.environ.get(PYTHON_VARIABLE, _PYTHON)
        try:
            process = await asyncio.create_subprocess_exec(
                *(python, "-I", "-B", "-c", _PROGRAM, str(_ROOT)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_LINE,
                env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
            )
        except OSError as error:
            raise Retry(
                f"{python} cannot be started ({error.strerror}): the ceph engine needs it, with Debian's packages "
                f"python3-rados and python3-rbd; ${PYTHON_VARIABLE} names another Python that has them"
            ) from error
        return cls(process, site)

    async def ask(self, number: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Ask and wait for the answer."""
        if not self.alive or self._process.stdin is None:
            raise _Ended("it does not run")
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        request = json.dumps({"id": number, "do": name, "with": arguments})
        try:
            self._process.stdin.write(f"{request}\n".encode())
            with contextlib.suppress(ConnectionError):
                await self._process.stdin.drain()
            return await future
        finally:
            self._waiting.pop(number, None)

    def kill(self) -> None:
        """End it at once. One that has ended is left to asyncio: a signal would take its exit code away."""
        if self.alive:
            self.alive = False
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def close(self) -> None:
        """End it and see that it has ended."""
        self.kill()
        await self._process.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it was started with one
        said = ""
        try:
            while line := await self._process.stdout.readline():
                answer = json.loads(line)
                waiting = self._waiting.get(answer["id"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        except (ValueError, KeyError) as error:
            said = f"what it said cannot be read ({type(error).__name__})"
            self.kill()
        self.alive = False
        code = await self._process.wait()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(_Ended(said or f"exit code {code}"))

    async def _complain(self) -> None:
        """Hand on what Ceph's libraries and Python say, where they say anything."""
        assert self._process.stderr is not None  # noqa: S101 - it was started with one
        while line := await self._process.stderr.readline():
            logger.warning("ceph, %s: %s", self._site, line.decode("utf-8", "replace").rstrip())


def _reason(error: BaseException) -> str:
    return f" ({error})" if str(error) else ""
