"""A door to the real API server that can be made to behave as API servers and load balancers do on their bad days."""

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import yaml
from aiohttp import web

GONE: Final = (
    b'{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",'
    b'"message":"too old resource version: 1 (2)","reason":"Expired","code":410}}\n'
)
BROKEN: Final = (
    b'{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",'
    b'"message":"etcdserver: leader changed","reason":"InternalError","code":500}}\n'
)
_SKIPPED: Final = {"host", "transfer-encoding", "content-length", "connection"}


class BadApi:
    """Passes everything on until it is told otherwise; it runs in a thread of its own.

    `refuse` is the status that every request gets, `hang` lets none be answered, and `tell_watches` says something in
    the middle of every watch and closes it. `reset` tears every connection that there is. `late` is by how many seconds
    a write is answered later than watches tell of it.
    """

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        known = yaml.safe_load(kubeconfig.read_text())
        cluster, user = known["clusters"][0]["cluster"], known["users"][0]["user"]
        self._server: str = cluster["server"]
        self._authority: str = cluster["certificate-authority"]
        self._token: str = user["token"]
        self.kubeconfig = folder / "through-the-door"
        self._known = known
        self.refuse: int | None = None
        self.hang = False
        self.late = 0.0
        self.requests = 0
        self._watches: dict[web.StreamResponse, asyncio.Event] = {}
        self._last_words = b""
        self._loop: asyncio.AbstractEventLoop
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._connections: set[asyncio.Transport] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return len(self._watches)

    def tell_watches(self, words: bytes) -> None:
        """Say this in every open watch, and end it."""

        def tell() -> None:
            self._last_words = words
            for told in self._watches.values():
                told.set()

        self._loop.call_soon_threadsafe(tell)

    def reset(self) -> None:
        """Tear every connection without a goodbye."""

        def tear() -> None:
            for each in list(self._connections):
                each.abort()

        self._loop.call_soon_threadsafe(tear)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        context = ssl.create_default_context(cafile=self._authority)
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self._session:
            app = web.Application(client_max_size=1 << 24)
            app.router.add_route("*", "/{path:.*}", self._answer)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            self._known["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{port}"}
            self.kubeconfig.write_text(yaml.safe_dump(self._known))
            self._up.set()
            await self._over.wait()
            self.reset()
            await asyncio.sleep(0)
            await runner.cleanup()
        await asyncio.sleep(0.25)  # TLS says goodbye in the background

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        assert isinstance(request.transport, asyncio.Transport)
        self._connections = {each for each in self._connections if not each.is_closing()} | {request.transport}
        while self.hang:  # noqa: ASYNC110 - a flag of another thread
            await asyncio.sleep(0.1)
        if self.refuse is not None:
            return web.json_response({"kind": "Status", "message": "no", "code": self.refuse}, status=self.refuse)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _SKIPPED}
        headers["Authorization"] = f"Bearer {self._token}"
        url = f"{self._server}{request.path_qs}"
        body = await request.read() or None
        timeout = aiohttp.ClientTimeout(total=None, connect=5)
        async with self._session.request(request.method, url, data=body, headers=headers, timeout=timeout) as found:
            if request.method == "PATCH":
                await asyncio.sleep(self.late)
            kept = {key: value for key, value in found.headers.items() if key.lower() not in _SKIPPED}
            answer = web.StreamResponse(status=found.status, headers=kept)
            await answer.prepare(request)
            if request.query.get("watch"):
                await self._watch(answer, found.content.readany)
            else:
                await answer.write(await found.read())
            await answer.write_eof()
            return answer

    async def _watch(self, answer: web.StreamResponse, read: Callable[[], Awaitable[Any]]) -> None:
        told = self._watches[answer] = asyncio.Event()
        telling, reading = asyncio.ensure_future(told.wait()), asyncio.ensure_future(read())
        try:
            while True:
                await asyncio.wait((reading, telling), return_when=asyncio.FIRST_COMPLETED)
                if telling.done():
                    await answer.write(self._last_words)
                    return
                if not (data := reading.result()):
                    return
                await answer.write(data)
                reading = asyncio.ensure_future(read())
        finally:
            del self._watches[answer]
            for each in (telling, reading):
                each.cancel()
            await asyncio.gather(telling, reading, return_exceptions=True)
