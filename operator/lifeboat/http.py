"""What the operator says about itself: /healthz, /readyz, /metrics."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from lifeboat.metrics import Metrics
from lifeboat.reconcile.reconciler import Reconciler

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def application(reconciler: Reconciler, metrics: Metrics) -> web.Application:
    """The three pages."""

    async def healthz(_: web.Request) -> web.Response:
        """Whether the loops turn: where not, a restart helps."""
        return _answer(ok=reconciler.alive, problem="a loop does not turn")

    async def readyz(_: web.Request) -> web.Response:
        """Whether all objects are listed; a follower that waits for the lease is ready too."""
        return _answer(ok=reconciler.ready and reconciler.alive, problem="the objects are not listed yet")

    async def numbers(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": METRICS_TYPE})

    made = web.Application()
    made.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", numbers)])
    return made


def _answer(*, ok: bool, problem: str) -> web.Response:
    return web.Response(text="ok\n") if ok else web.Response(status=503, text=f"{problem}\n")


class Server:
    """The pages on a port; `port` is the real one once started."""

    def __init__(self, app: web.Application, host: str, port: int) -> None:
        self._runner = web.AppRunner(app, access_log=None)
        self._host = host
        self.port = port

    async def start(self) -> None:
        """Listen."""
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self.port).start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()
