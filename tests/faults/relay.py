"""A network between the zones that a test owns: it forwards, swallows, slows down, refuses, and heals.

Whoever connects is accepted even while everything is swallowed, as by a path that lost its far end behind a proxy or a
stateful firewall: nothing says that the link is gone but the silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Self

_CHUNK = 1 << 16
_LOOK_SECONDS = 0.02


class Relay:
    """Listens at one address and forwards to the same port of another one, in a thread of its own.

    Args:
        listen: The address that is connected to.
        to: The address that is forwarded to.
        ports: The ports to be there for, asked again and again, since who serves there chooses them late.
    """

    def __init__(self, listen: str, to: str, ports: Callable[[], Iterable[int]]) -> None:
        self._listen = listen
        self._to = to
        self._ports = ports
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._servers: dict[int, asyncio.Server] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._refuses = False
        self._rate: float | None = None
        self._end = asyncio.Event()

    def start(self) -> None:
        """Begin to listen."""
        self._flows.set()
        self._thread.start()

    def close(self) -> None:
        """End every connection and the thread, or see that it never began."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def swallow(self) -> None:
        """Let nothing through any more, in either direction, and tell nobody."""
        self._call(self._flows.clear)

    def refuse(self) -> None:
        """Close every connection and refuse new ones."""
        self._call(self._refuse)

    def limit(self, bytes_per_second: float | None) -> None:
        """Let so much through in each direction of each connection; None is as much as there is."""
        self._call(lambda: setattr(self, "_rate", bytes_per_second))

    def heal(self) -> None:
        """Be a good network again; what was swallowed on connections that are still there arrives now."""
        self._call(self._heal)

    def _heal(self) -> None:
        self._refuses, self._rate = False, None
        self._flows.set()

    def _refuse(self) -> None:
        self._refuses = True
        self._flows.set()
        for writer in self._writers:
            writer.transport.abort()
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    def _call(self, change: Callable[[], None]) -> None:
        """Change something in the relay's own thread, and return when it is changed."""
        changed = threading.Event()

        def both() -> None:
            change()
            changed.set()

        self._loop.call_soon_threadsafe(both)
        if not changed.wait(10):
            raise TimeoutError("the relay's thread does not answer")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        try:
            while not self._end.is_set():
                for port in set(self._ports()) - set(self._servers):
                    if not self._refuses:
                        with contextlib.suppress(OSError):
                            await self._listen_on(port)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._end.wait()
        finally:
            self._refuse()
            for pump in self._pumps:
                pump.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _listen_on(self, port: int) -> None:
        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._keep(self._connect(port, reader, writer))

        self._servers[port] = await asyncio.start_server(connected, self._listen, port)

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)

    async def _connect(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        far_writer: asyncio.StreamWriter | None = None
        try:
            await self._flows.wait()
            far_reader, far_writer = await asyncio.open_connection(self._to, port)
            self._writers.add(far_writer)
            ways = [
                self._loop.create_task(self._pump(reader, far_writer)),
                self._loop.create_task(self._pump(far_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass  # nobody serves there: the connection ends, as it does without a relay
        finally:
            for each in (writer, far_writer):
                if each is not None:
                    self._writers.discard(each)
                    each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._flows.wait()
            if self._rate is not None:
                await asyncio.sleep(len(data) / self._rate)
            writer.write(data)
            await writer.drain()
