"""The status of a SitePair."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.protectedserver import ProtectedServerPhase as Phase
from lifeboat.api.sitepair import Site, SitePair, SitePairServers, SitePairStatus
from lifeboat.engines.facts import Fact, SiteFacts, Unknown
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.conditions import READY, STALLED, State, conditions, find, readiness
from lifeboat.lifecycle.view import Notice

_FAILED_OVER = {
    Phase.FAILING_OVER,
    Phase.FAILED_OVER,
    Phase.CHANGING_RECOVERY_POINT,
    Phase.COMMITTING,
    Phase.COMMITTED,
}


def pair_status(
    pair: SitePair,
    now: datetime,
    primary: Fact[SiteFacts],
    recovery: Fact[SiteFacts],
    servers: Sequence[ProtectedServer],
) -> SitePairStatus:
    """What is to be told about the pair now."""
    generation = pair.metadata.generation
    return SitePairStatus(
        observed_generation=generation,
        engine=pair.spec.engine_name,
        servers=SitePairServers(
            total=len(servers),
            replicating=sum(server.status.phase is Phase.REPLICATING for server in servers),
            failed_over=sum(server.status.phase in _FAILED_OVER for server in servers),
            faulty=sum(_faulty(server) for server in servers),
        ),
        worst_lag_seconds=max((server.status.lag_seconds or 0 for server in servers), default=None),
        conditions=conditions(_states(pair, primary, recovery, servers), pair.status.conditions, generation, now),
    )


def _faulty(server: ProtectedServer) -> bool:
    stalled = find(server.status.conditions, STALLED)
    return (stalled is not None and stalled.status == "True") or server.status.phase is Phase.INTERRUPTED


def _states(
    pair: SitePair, primary: Fact[SiteFacts], recovery: Fact[SiteFacts], servers: Sequence[ProtectedServer]
) -> dict[str, State]:
    if pair.metadata.deletion_timestamp is not None:
        return readiness(ready=False, notice=_deletion(servers), reason="", message="")
    silent = [
        f"zone {site.zone}: {fact.reason}"
        for site, fact in ((pair.spec.primary, primary), (pair.spec.recovery, recovery))
        if isinstance(fact, Unknown)
    ]
    if silent:
        message = f"{'; '.join(silent)}. A failover needs the recovery zone only"
        states = readiness(
            ready=False, notice=Notice(reasons.SITE_SILENT, message, stalled=False), reason="", message=""
        )
        return states | {READY: State("Unknown", reasons.SITE_SILENT, message)}
    notice = next(
        (
            found
            for site, fact in ((pair.spec.primary, primary), (pair.spec.recovery, recovery))
            if not isinstance(fact, Unknown) and (found := _problem(pair, site, fact.value))
        ),
        None,
    )
    return readiness(
        ready=True, notice=notice, reason=reasons.SITES_ANSWER, message="both sites and their networks answer"
    )


def _problem(pair: SitePair, site: Site, facts: SiteFacts) -> Notice | None:
    if pair.metadata.namespace not in facts.namespaces:
        return Notice(
            reasons.NAMESPACE_NOT_ALLOWED,
            f"zone {facts.zone} does not allow namespace {pair.metadata.namespace}; allowed are: "
            f"{', '.join(facts.namespaces) or 'none'} (the zone's inventory lists them)",
        )
    for name in (site.network, site.replication_network, site.recovery_network):
        if name is not None and facts.network(name) is None:
            networks = ", ".join(sorted(network.name for network in facts.networks)) or "none"
            return Notice(reasons.UNKNOWN_NETWORK, f"zone {facts.zone} has no network {name!r}; it has: {networks}")
    return None


def _deletion(servers: Sequence[ProtectedServer]) -> Notice:
    if not servers:
        return Notice(reasons.DELETING, "the object is being deleted", stalled=False)
    names = ", ".join(f"{s.metadata.namespace}/{s.metadata.name}" for s in servers[:10])
    return Notice(reasons.IN_USE, f"waiting for its ProtectedServers to be deleted: {names}", stalled=False)
