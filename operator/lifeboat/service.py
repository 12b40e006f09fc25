"""The operator as one thing: connects, watches, leads, works, and lets go in the right order when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Final

from lifeboat import clock, http, kube
from lifeboat.engines.contract import Engine, Secrets
from lifeboat.handlers.watch import Watch
from lifeboat.leader import Leadership
from lifeboat.metrics import Metrics
from lifeboat.reconcile.reconciler import Reconciler
from lifeboat.reconcile.secrets import EngineSecrets
from lifeboat.reconcile.tools import Tools
from lifeboat.reconcile.writer import Writer
from lifeboat.settings import Settings
from lifeboat.verification.scripts import Readability
from lifeboat.verification.verifier import Verifier
from lifeboat.world import KINDS, Key, World

WAIT_SECONDS: Final = 1.0
LIST_AGAIN_SECONDS: Final = 3.0
DRAIN_SECONDS: Final = 2.0
# By Python's own thresholds a quarter of the operator's time goes into looking for cycles among the bodies of thousands
# of objects, which have none, and all else stands still for half a second at a time.
COLLECT_AFTER: Final = (10_000, 10, 10)

_log = logging.getLogger(__name__)

EngineFactory = Callable[[str, Secrets], Engine]


class Service:
    """One operator process, or one of several in a test. `run` returns after `stop`."""

    def __init__(self, settings: Settings, engines: EngineFactory, *, now: Callable[[], datetime] = clock.now) -> None:
        self._settings = settings
        self._factory = engines
        self._now = now
        self._engines: dict[str, Engine] = {}
        self._stop = asyncio.Event()
        self.world = World()
        self.metrics = Metrics()
        self.port = settings.http_port
        self.started = asyncio.Event()

    def stop(self) -> None:
        """Let go: the lease is given back, and what engines do goes on."""
        self._stop.set()

    async def run(self) -> None:
        """Work until stopped."""
        gc.set_threshold(*COLLECT_AFTER)
        settings = self._settings
        api = await kube.Kube.connect(settings.kubeconfig)
        # A connection of its own: where thousands of requests wait for their turn, the lease must not.
        leases = await kube.Kube.connect(settings.kubeconfig)
        leader = Leadership(leases, settings.lease_namespace, settings.lease_name, settings.identity)
        writer = Writer(api, self.world, leader.may_write, settings.identity, now=self._now)
        tools = Tools(
            settings=settings,
            kube=api,
            world=self.world,
            leader=leader,
            writer=writer,
            verifier=Verifier(now=self._now),
            readability=Readability(api),
            metrics=self.metrics,
            engine=lambda name: self._engine(name, EngineSecrets(api)),
            now=self._now,
        )
        reconciler = Reconciler(tools)
        pages = http.Server(http.application(reconciler, self.metrics), settings.http_host, settings.http_port)
        try:
            await pages.start()
            self.port = pages.port
            if await self._unless_stopped(self._kinds_served(api)):
                await self._work(leader, reconciler, writer, api)
        finally:
            await pages.close()
            for engine in self._engines.values():
                await engine.close()
            await api.close()
            await leases.close()

    async def _work(self, leader: Leadership, reconciler: Reconciler, writer: Writer, api: kube.Kube) -> None:
        tasks = [
            asyncio.create_task(leader.run(), name="leadership"),
            asyncio.create_task(self._reconcile(reconciler, api), name="reconciler"),
        ]
        events = asyncio.create_task(writer.tell_events(), name="events")
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        watching = Watch(self.world, api, self._settings.namespaces, up=self.started)
        watching.start()
        try:
            done, _ = await asyncio.wait((*tasks, events, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            _log.info("stopping")
            for task in (*tasks, stopped):
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)
            await leader.release()
            await writer.drain(DRAIN_SECONDS)
            events.cancel()
            await asyncio.gather(events, return_exceptions=True)
            await watching.stop()
        for task in done:
            if task is not stopped and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _kinds_served(self, api: kube.Kube) -> bool:
        """Wait until the API server answers and serves the four kinds."""
        said = ""
        while True:
            try:
                for kind in KINDS.values():
                    for namespace in self._settings.namespaces or (None,):
                        await api.list_metadata(kind, namespace, limit=1)
            except kube.KubeError as error:
                if (news := str(error)) != said:
                    _log.warning("waiting for the API server and the CRDs: %s", news)
                    said = news
                await asyncio.sleep(WAIT_SECONDS)
            else:
                return True

    async def _reconcile(self, reconciler: Reconciler, api: kube.Kube) -> None:
        """Work from the moment at which the world is complete: at which the watch has told of all that a list has."""
        missing: set[Key] = set()
        all_told = asyncio.Event()

        def told(key: Key, _written: bool) -> None:
            missing.discard(key)
            if not missing:
                all_told.set()

        self.world.listen(told)
        while not self.world.complete:
            try:
                missing.update(await self._listed(api))
            except kube.KubeError as error:
                _log.warning("the objects could not be listed: %s", error)
                await asyncio.sleep(WAIT_SECONDS)
                continue
            missing -= {key for key in missing if self.world.body(key) is not None}
            # What was deleted before the watch saw it is never told of, and is in no later list.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LIST_AGAIN_SECONDS):
                    while missing:
                        all_told.clear()
                        await all_told.wait()
            self.world.complete = not missing
            missing.clear()
        await reconciler.run()

    async def _listed(self, api: kube.Kube) -> set[Key]:
        return {
            Key(name, each["namespace"], each["name"])
            for name, kind in KINDS.items()
            for namespace in self._settings.namespaces or (None,)
            for each in await api.list_metadata(kind, namespace)
        }

    async def _unless_stopped(self, waiting: Coroutine[None, None, bool]) -> bool:
        """What is waited for, or False once stopped."""
        task, stopped = asyncio.create_task(waiting), asyncio.create_task(self._stop.wait())
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        for each in (task, stopped):
            if not each.done():
                each.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)
        return task.done() and not task.cancelled() and task.result()

    def _engine(self, name: str, secrets: Secrets) -> Engine:
        if name not in self._engines:
            self._engines[name] = self._factory(name, secrets)
        return self._engines[name]
