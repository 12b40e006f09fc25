"""What rests: a server about which a pass would do nothing is left alone, so that thousands cost next to nothing.

Whether it still rests is asked for every server at every poll. So what all servers have in common is compared once for
each look (`Sites`), and a server's objects only when any object in the world has changed since they were the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from operator import is_
from typing import Any, Final

from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair, SitePairSpec
from lifeboat.engines.facts import Fact, Known, PairFacts, ServerFacts, SiteFacts, Way
from lifeboat.lifecycle.view import DRILL, FAILOVER, Plan, Verification, View
from lifeboat.reconcile.moving import is_moving
from lifeboat.world import Key, World, key_of

LONGEST_REST: Final = timedelta(minutes=30)
"""What rests is gone through again after this long at most, whatever was missed."""


@dataclass(frozen=True, slots=True)
class Sites:
    """What of both sites concerns a server at rest.

    What is free there and who has which address changes with every other server, and concerns those that start.
    """

    primary: Fact[object]
    recovery: Fact[object]

    @classmethod
    def of(cls, facts: PairFacts) -> Sites:
        """What was seen of them."""
        return cls(_lasting(facts.primary), _lasting(facts.recovery))


@dataclass(slots=True)
class Rest:
    """What the last pass saw when nothing was left to do, and until when (elapsed seconds) that may be relied on.

    `changes` is how far the world was when the objects were these. The view itself is not kept: with it each server
    would hold what is no more, its own object before the last status among it.
    """

    key: Key
    server_id: str
    body: Mapping[str, Any]
    pair: SitePairSpec
    drills: Sequence[Drill]
    failovers: Sequence[Failover]
    rivals: Sequence[ProtectedServer]
    facts: ServerFacts
    verifications: Mapping[str, Verification]
    sites: Sites
    until: float
    changes: int

    @classmethod
    def after(cls, view: View, body: Mapping[str, Any], sites: Sites, until: float) -> Rest:
        """The rest after a pass with this view. Whether the world's objects are those of the view is yet to be seen."""
        server = view.server
        objects = (view.pair.spec, view.drills, view.failovers, view.rivals)
        return cls(
            key_of(server), server.spec.server_id, body, *objects, view.facts, view.verifications, sites, until, -1
        )

    def holds(
        self,
        world: World,
        pair: SitePair,
        sites: Sites,
        servers: Mapping[str, ServerFacts],
        verifications: Mapping[str, Verification],
    ) -> bool:
        """Whether nothing has changed since, so that another pass would do nothing."""
        facts = servers.get(self.server_id)
        if facts is None or not same(facts, self.facts) or verifications != self.verifications:
            return False
        if sites is not self.sites:
            if sites != self.sites:
                return False
            self.sites = sites
        if self.changes != world.changes:
            if not self._same_objects(world, pair):
                return False
            self.changes = world.changes
        return True

    def _same_objects(self, world: World, pair: SitePair) -> bool:
        server = world.get(ProtectedServer, self.key.namespace, self.key.name)
        return (
            server is not None
            and self.body is world.body(self.key)
            and (self.pair is pair.spec or self.pair == pair.spec)
            and same_objects(world.drills(server), self.drills)
            and same_objects(world.failovers(server), self.failovers)
            and same_objects(world.rivals(server, pair), self.rivals)
        )


def rest_of(view: View, plan: Plan) -> timedelta:
    """How long nothing can come due by the clock alone, where nothing is seen to change: zero while anything is on.

    What comes due are recovery points; a tenth of their distance is late enough for them.
    """
    ledger = view.facts.ledger
    if plan.ledger is not None or plan.actions or view.troubles or not isinstance(ledger, Known) or is_moving(view):
        return timedelta()
    for drill in view.drills:
        record = ledger.value.drill(drill.metadata.name)
        ended = ledger.value.ended(DRILL, drill.metadata.name) is not None
        if drill.metadata.deletion_timestamp or not (ended or (record is not None and drill.spec.ttl is None)):
            return timedelta()
    for failover in view.failovers:
        ended = ledger.value.ended(FAILOVER, failover.metadata.name) is not None
        record_name = ledger.value.failover.name if ledger.value.failover is not None else None
        if not ended and record_name != failover.metadata.name:
            return timedelta()
    return min(LONGEST_REST, min(tier.every for tier in view.server.spec.replication.tiers) / 10)


def same(facts: ServerFacts, before: ServerFacts) -> bool:
    """Whether nothing was seen to change but the fraction of a second of the lag."""
    return facts is before or _coarse(facts) == _coarse(before)


def same_objects(now: Sequence[object], before: Sequence[object]) -> bool:
    """Whether these are the very same objects: the world keeps each until it changes."""
    return now is before or (len(now) == len(before) and all(map(is_, now, before)))


def _lasting(site: Fact[SiteFacts]) -> Fact[object]:
    if not isinstance(site, Known):
        return site
    networks: Collection[tuple[str, str]] = tuple((each.name, each.cidr) for each in site.value.networks)
    return Known((site.value.namespaces, site.value.servers, networks))


def _coarse(facts: ServerFacts) -> ServerFacts:
    return replace(facts, forward=_coarse_way(facts.forward), reverse=_coarse_way(facts.reverse))


def _coarse_way(way: Way) -> Way:
    if not isinstance(way.replica, Known) or way.replica.value.lag_seconds is None:
        return way
    lag = float(int(way.replica.value.lag_seconds))
    return replace(way, replica=Known(replace(way.replica.value, lag_seconds=lag)))
