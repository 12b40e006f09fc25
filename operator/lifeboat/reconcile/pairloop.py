"""The loop of one site pair: one look for all servers at each poll, a look of its own for a server that was nudged.

The loop itself never waits for a server: each has its passes in a task, and whatever happens while one is under way is
looked at right after it. So a server whose engine call hangs holds up nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from lifeboat import kube
from lifeboat.api.names import FINALIZER
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair
from lifeboat.engines.contract import Engine
from lifeboat.engines.facts import Fact, PairFacts, SiteFacts
from lifeboat.leader import NotLeader
from lifeboat.lifecycle.report import report_pair
from lifeboat.logs import about
from lifeboat.reconcile.looks import Look, look, nothing_known
from lifeboat.reconcile.rest import Sites, same_objects
from lifeboat.reconcile.rounds import ServerRounds
from lifeboat.reconcile.thrift import Thrift
from lifeboat.reconcile.tools import ENGINE_CALLS, Tools
from lifeboat.world import Key, key_of

_log = logging.getLogger(__name__)

SOONEST_SECONDS: Final = 0.001
LONGEST_SECONDS: Final = 5.0
POLL_SHARE: Final = 1 / 80
"""How much of a core polls may cost while they are less than the longest pause apart."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What the pair's last status was made from."""

    pair: SitePair
    primary: Fact[SiteFacts]
    recovery: Fact[SiteFacts]
    servers: Sequence[ProtectedServer]

    def holds(self, pair: SitePair, facts: PairFacts, servers: Sequence[ProtectedServer]) -> bool:
        """Whether a status made now would say the same."""
        return (
            pair is self.pair
            and (facts.primary, facts.recovery) == (self.primary, self.recovery)
            and same_objects(servers, self.servers)
        )


class PairLoop:
    """Looks after all servers of one pair until cancelled."""

    def __init__(self, key: Key, tools: Tools) -> None:
        self._key = key
        # Each pair has calls of its own: a zone that hangs must not use up those of another.
        self._tools = replace(tools, calls=asyncio.Semaphore(ENGINE_CALLS))
        self._log = about(_log, *key)
        self._awake = asyncio.Event()
        self._nudged: set[Key] = set()
        self._busy: set[Key] = set()
        self._rounds: dict[Key, ServerRounds] = {}
        self._again: dict[Key, float] = {}
        self._poll_at = 0.0
        self._polling = False
        self._thrift = Thrift(POLL_SHARE, tools.settings.poll, LONGEST_SECONDS)
        self._engine: Engine | None = None
        self._sites: Sites | None = None
        self._present: Sequence[ProtectedServer] = ()
        self._broken: str | None = None
        self._told: _Told | None = None
        self.turned = tools.elapsed()

    def nudge(self, server: Key) -> None:
        """Look at this server at once."""
        self._nudged.add(server)
        self._awake.set()

    def nudge_all(self) -> None:
        """Look at everything at once."""
        self._poll_at = 0.0
        self._awake.set()

    async def run(self) -> None:
        """Turn until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._awake.clear()
                self.turned = self._tools.elapsed()
                try:
                    self._turn(group)
                except Exception as error:  # noqa: BLE001 - the loop must go on whatever one turn does
                    self._complain("a turn", error)
                await self._pause()

    def _turn(self, group: asyncio.TaskGroup) -> None:
        pair = self._tools.world.get(SitePair, self._key.namespace, self._key.name)
        if pair is None:
            return
        moment = self._tools.elapsed()
        if moment >= self._poll_at and not self._polling:
            self._poll_at = moment + self._tools.settings.poll
            self._polling = True
            group.create_task(self._poll(group, pair), name=f"poll {self._key.name}")
        due = self._nudged | {key for key, at in self._again.items() if at <= moment}
        if due := due - self._busy:
            self._nudged -= due
            for key in due:
                self._again.pop(key, None)
            self._busy |= due
            group.create_task(self._look(group, pair, due), name=f"look {self._key.name}")

    async def _pause(self) -> None:
        waits = [at for key, at in self._again.items() if key not in self._busy]
        if not self._polling:
            waits.append(self._poll_at)
        pause = max(SOONEST_SECONDS, min(waits) - self._tools.elapsed()) if waits else self._tools.settings.poll
        pause = min(pause, LONGEST_SECONDS)
        try:
            async with asyncio.timeout(pause):
                await self._awake.wait()
        except TimeoutError:
            pass

    # --- looks

    async def _poll(self, group: asyncio.TaskGroup, pair: SitePair) -> None:
        """One look at all servers, and the pair's own status."""
        began = self._tools.elapsed()
        self._thrift.begin()
        try:
            world = self._tools.world
            servers, keys = world.servers(pair), world.children(self._key)
            seen = await self._see(pair, {server.spec.server_id for server in servers})
            await self._look_after_pair(pair, seen.facts)
            for key in keys:
                rounds = self._rounds.get(key)
                if key not in self._busy and not (rounds is not None and rounds.rests(pair, seen)):
                    self._busy.add(key)
                    self._begin(group, pair, key, seen)
            self._forget_gone(world.servers(pair))
        except NotLeader:
            pass
        except Exception as error:  # noqa: BLE001 - told, and tried again at the next poll
            self._complain("a poll", error)
        finally:
            if self._poll_at:  # nobody has asked for another one meanwhile
                self._poll_at = began + self._thrift.pause()
            self._polling = False
            self._awake.set()

    async def _look(self, group: asyncio.TaskGroup, pair: SitePair, due: Collection[Key]) -> None:
        """One look at the servers that were nudged or move."""
        servers = {
            key: server
            for key in due
            if (server := self._tools.world.get(ProtectedServer, key.namespace, key.name)) is not None
        }
        self._busy -= set(due) - servers.keys()
        if not servers:
            return
        try:
            seen = await self._see(pair, {server.spec.server_id for server in servers.values()})
        except Exception as error:  # noqa: BLE001 - told, and tried again at the next poll
            self._complain("a look", error)
            self._busy -= servers.keys()
            return
        for key in servers:
            self._begin(group, pair, key, seen)

    async def _see(self, pair: SitePair, server_ids: Collection[str]) -> Look:
        if self._engine is None:
            try:
                self._engine = self._tools.engine(pair.spec.engine_name)
            except Exception as error:  # noqa: BLE001 - whatever it cannot be made for, people have to see it
                self._complain("the engine", error)
                reason = f"engine {pair.spec.engine_name} cannot be used: {error}"
                return Look.of(nothing_known(server_ids, reason), self._tools.elapsed())
        seen = await look(self._tools, self._engine, pair, server_ids)
        # The same object while it says the same: then no server needs to compare it.
        self._sites = self._sites if self._sites == seen.sites else seen.sites
        return replace(seen, sites=self._sites)

    def _begin(self, group: asyncio.TaskGroup, pair: SitePair, key: Key, seen: Look) -> None:
        group.create_task(self._pass(pair, key, seen), name=f"pass {key.namespace}/{key.name}")

    async def _pass(self, pair: SitePair, key: Key, seen: Look) -> None:
        try:
            if self._engine is None:
                return
            rounds = self._rounds.get(key)
            if rounds is None:
                rounds = ServerRounds(key, self._tools, self._engine, lambda: self.nudge(key))
                self._rounds[key] = rounds
            await rounds.run(pair, seen)
            if rounds.again_in is not None:
                self._again[key] = self._tools.elapsed() + rounds.again_in
        finally:
            self._busy.discard(key)
            if key in self._nudged or key in self._again:
                self._awake.set()

    def _forget_gone(self, present: Sequence[ProtectedServer]) -> None:
        """Forget the servers that are gone; one whose pass is under way waits for the next poll."""
        if present is self._present:
            return
        gone = self._rounds.keys() - {key_of(server) for server in present}
        for key in gone - self._busy:
            del self._rounds[key]
            self._again.pop(key, None)
            self._tools.verifier.keep_only(key, ())
        if not gone & self._busy:
            self._present = present

    # --- the pair itself

    async def _look_after_pair(self, pair: SitePair, facts: PairFacts) -> None:
        world, writer = self._tools.world, self._tools.writer
        pair = world.get(SitePair, self._key.namespace, self._key.name) or pair
        try:
            used, held = world.has_servers(pair), FINALIZER in pair.metadata.finalizers
            if used and not held and pair.metadata.deletion_timestamp is None:
                await writer.keep_finalizer(self._key)
            elif held and not used:
                await writer.drop_finalizer(self._key)
            pair = world.get(SitePair, self._key.namespace, self._key.name) or pair
            servers = world.servers(pair)
            if self._told is None or not self._told.holds(pair, facts, servers):
                said = report_pair(pair, self._tools.now(), facts.primary, facts.recovery, servers)
                if world.get(SitePair, self._key.namespace, self._key.name) is not None:
                    for status in said.statuses.values():
                        self._tools.metrics.pair(self._key, pair, facts, status)
                await writer.publish(self._key.namespace, said)
                self._told = _Told(pair, facts.primary, facts.recovery, servers)
            self._broken = None
        except kube.KubeError as error:
            self._complain("the status", error)

    def _complain(self, what: str, error: Exception) -> None:
        said = f"{what}: {type(error).__name__}: {error}"
        if said == self._broken:
            return
        self._broken = said
        if isinstance(error, kube.KubeError):
            self._log.warning("%s could not be written: %s", what, error)
        else:
            self._log.error("%s broke: %s", what, error, exc_info=error)
