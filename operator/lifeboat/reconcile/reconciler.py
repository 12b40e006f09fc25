"""Brings world, leadership and loops together: a loop for each site pair while we lead, none while we do not.

Nothing is decided before the first listing of all four kinds is in: an object not yet listed would look deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Iterable
from typing import Final

from lifeboat import kube
from lifeboat.api.common import Resource
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair
from lifeboat.leader import NotLeader
from lifeboat.reconcile import orphans
from lifeboat.reconcile.pairloop import PairLoop
from lifeboat.reconcile.thrift import Thrift
from lifeboat.reconcile.tools import Tools
from lifeboat.world import KINDS, Key, key_of

SWEEP_SECONDS: Final = 30.0
"""How often the objects without a loop are gone through, and the world is compared with a list."""
LONGEST_SWEEP_SECONDS: Final = 300.0
SWEEP_SHARE: Final = 1 / 200
"""How much of a core that may cost while it is done more often than that."""
STUCK_SECONDS: Final = 30.0
BROKEN_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class Reconciler:
    """Starts and ends the loops as pairs and leadership come and go."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._loops: dict[tuple[Key, str], tuple[PairLoop, asyncio.Task[None]]] = {}
        self._by_key: dict[Key, PairLoop] = {}
        self._loose: set[Key] = set()
        self._awake = asyncio.Event()
        self._turned = math.inf  # before it runs nothing is stuck: it may wait long for the API server
        tools.world.listen(self._changed)

    @property
    def alive(self) -> bool:
        """Whether the loops turn."""
        moment = self._tools.elapsed()
        loops = (loop for loop, _ in self._loops.values())
        return all(moment - turned < STUCK_SECONDS for turned in (self._turned, *(loop.turned for loop in loops)))

    @property
    def ready(self) -> bool:
        """Whether everything that there is was listed."""
        return self._tools.world.complete

    async def run(self) -> None:
        """Work while leading; until cancelled."""
        leader, metrics = self._tools.leader, self._tools.metrics
        while True:
            self._turned = self._tools.elapsed()
            if leader.leading and self.ready:
                metrics.leader.set(1)
                try:
                    await self._lead()
                except Exception:  # noqa: BLE001 - a fault here must not end the process that every pair depends on
                    _log.exception("the loops broke, and are started anew")
                    await asyncio.sleep(BROKEN_SECONDS)
                finally:
                    metrics.leader.set(0)
            else:
                await self._sleep(0.2)

    async def _lead(self) -> None:
        """Keep a loop for each pair until the lease is lost."""
        _log.info("acting")
        sweep_at = 0.0
        thrift = Thrift(SWEEP_SHARE, SWEEP_SECONDS, LONGEST_SWEEP_SECONDS)
        try:
            while self._tools.leader.leading:
                self._turned = self._tools.elapsed()
                self._tend()
                if self._turned >= sweep_at:
                    thrift.begin()
                    await self._sweep()
                    sweep_at = self._tools.elapsed() + thrift.pause()
                loose, self._loose = self._loose, set()
                for key in sorted(loose):
                    self._turned = self._tools.elapsed()
                    self._tools.leader.term()
                    await orphans.look_after(key, self._tools)
                await self._sleep(0.5)
        except NotLeader:
            pass
        finally:
            _log.info("no longer acting")
            tasks = [task for _, task in self._loops.values()]
            self._loops.clear()
            self._by_key.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._tools.verifier.close()
            self._tools.metrics.forget_all()

    async def _sleep(self, seconds: float) -> None:
        """Wait for a pair to come or go, for an object without a loop, or so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._awake.wait()
        except TimeoutError:
            pass
        self._awake.clear()

    def _tend(self) -> None:
        """Start a loop for each new pair, end those of pairs that are gone, start anew those that broke."""
        wanted = {(key_of(pair), pair.metadata.uid) for pair in self._tools.world.all(SitePair)}
        for each, (_, task) in list(self._loops.items()):
            if each not in wanted or task.done():
                task.cancel()
                del self._loops[each]
                self._by_key.pop(each[0], None)
        for each in wanted - self._loops.keys():
            loop = PairLoop(each[0], self._tools)
            task = asyncio.create_task(loop.run(), name=f"pair {each[0].namespace}/{each[0].name}")
            self._loops[each] = (loop, task)
            self._by_key[each[0]] = loop

    async def _sweep(self) -> None:
        """Go through everything that has no loop, and compare the world with lists: a torn watch misses things.

        After etcd was restored from a backup a watch that goes on from where it was tells nothing for as long as the
        store needs to get there again.
        """
        world = self._tools.world
        everything: Iterable[Resource] = (*world.all(ProtectedServer), *world.all(Drill), *world.all(Failover))
        self._loose |= {key_of(each) for each in everything if self._loop_of(key_of(each), each)[0] is None}
        self._loose |= set(world.unreadable())
        try:
            for namespace in self._tools.settings.namespaces or (None,):
                for name, kind in KINDS.items():
                    self._turned = asked = self._tools.elapsed()
                    listed = await self._tools.kube.list_metadata(kind, namespace)
                    world.keep_only(name, ((m["namespace"], m["name"], m["uid"]) for m in listed), asked, namespace)
                    for key in world.behind(name, listed, asked):
                        self._turned = self._tools.elapsed()
                        with contextlib.suppress(kube.NotFound):
                            world.put(await self._tools.kube.read(kind, key.namespace, key.name))
        except kube.KubeError as error:
            _log.warning("the objects could not be listed: %s", error)

    def _changed(self, key: Key, written: bool) -> None:
        """Nudge the loop that an object belongs to."""
        world, resource = self._tools.world, self._tools.world.find(key)
        if resource is None:
            self._tools.metrics.forget(key)
        if written:
            return
        if key.kind == SitePair.__name__:
            self._loose.update(world.children(key))
            if (loop := self._by_key.get(key)) is not None:
                loop.nudge_all()
            self._awake.set()
            return
        loop, server = self._loop_of(key, resource)
        if key.kind == ProtectedServer.__name__:
            self._loose.update(world.children(key))
        if loop is not None and server is not None:
            loop.nudge(server)
        else:
            self._loose.add(key)
        if self._loose:
            self._awake.set()

    def _loop_of(self, key: Key, resource: Resource | None) -> tuple[PairLoop | None, Key | None]:
        """The loop that looks after an object, and the server that it is about."""
        if isinstance(resource, Drill | Failover):
            key = self._tools.world.parent(resource) or key
            resource = self._tools.world.find(key)
        if not isinstance(resource, ProtectedServer):
            return None, None
        pair = self._tools.world.parent(resource)
        return (self._by_key.get(pair) if pair is not None else None), key
