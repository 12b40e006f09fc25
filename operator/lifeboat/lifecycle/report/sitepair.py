"""The status of a SitePair."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime

from lifeboat.api import sitepair as api
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.protectedserver import ProtectedServerPhase as Phase
from lifeboat.api.sitepair import Site, SitePair, SitePairServers, SitePairStatus
from lifeboat.engines.facts import Fact, Network, SiteFacts, Unknown
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.conditions import READY, STALLED, State, conditions, find, readiness
from lifeboat.lifecycle.view import Notice

_FAILED_OVER = {
    Phase.FAILING_OVER,
    Phase.FAILED_OVER,
    Phase.CHANGING_RECOVERY_POINT,
    Phase.COMMITTING,
    Phase.COMMITTED,
    Phase.REVERSE_REGISTERING,
    Phase.REVERSE_REGISTERED,
    Phase.STARTING_REVERSE_REPLICATION,
    Phase.REVERSE_FULL_SYNC,
    Phase.REVERSE_REPLICATING,
    Phase.REVERSE_INTERRUPTED,
    Phase.REVERSE_RESYNCING,
    Phase.FAILING_BACK,
}
_REPLICATING = {Phase.REPLICATING, Phase.REVERSE_REPLICATING}
_INTERRUPTED = {Phase.INTERRUPTED, Phase.REVERSE_INTERRUPTED}


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
            replicating=sum(server.status.phase in _REPLICATING for server in servers),
            failed_over=sum(server.status.phase in _FAILED_OVER for server in servers),
            faulty=sum(_faulty(server) for server in servers),
        ),
        worst_lag_seconds=max(
            (server.status.lag_seconds for server in servers if server.status.lag_seconds is not None), default=None
        ),
        inventory=_inventory(pair, primary, recovery),
        conditions=conditions(_states(pair, primary, recovery, servers), pair.status.conditions, generation, now),
    )


def _faulty(server: ProtectedServer) -> bool:
    stalled = find(server.status.conditions, STALLED)
    return (stalled is not None and stalled.status == "True") or server.status.phase in _INTERRUPTED


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


def _inventory(pair: SitePair, primary: Fact[SiteFacts], recovery: Fact[SiteFacts]) -> api.SitePairInventory | None:
    """What people can choose from, the same for the same facts, so that nothing is written while nothing changes."""
    before = pair.status.inventory or api.SitePairInventory()
    found = api.SitePairInventory(
        primary=_site_inventory(pair, pair.spec.primary, primary, before.primary),
        recovery=_site_inventory(pair, pair.spec.recovery, recovery, before.recovery),
    )
    return found if found.primary or found.recovery else None


def _site_inventory(
    pair: SitePair, site: Site, fact: Fact[SiteFacts], before: api.SiteInventory | None
) -> api.SiteInventory | None:
    if isinstance(fact, Unknown):
        return before
    facts = fact.value
    if pair.metadata.namespace not in facts.namespaces:
        return None  # what a zone has is not for namespaces that may not use it
    named = {site.network, site.replication_network, site.recovery_network}
    told = sorted(facts.networks, key=lambda network: (network.name not in named, network.name))[: api.MAX_NETWORKS]
    return api.SiteInventory(
        servers=tuple(sorted(facts.servers)[: api.MAX_SERVERS]),
        server_count=len(facts.servers),
        networks=tuple(_network(network) for network in sorted(told, key=lambda network: network.name)),
        elastic_ips=tuple(
            api.SiteElasticIP(address=address, used_by=facts.elastic_ips[address])
            for address in _lowest_first(facts.elastic_ips)[: api.MAX_ELASTIC_IPS]
        ),
        cpu=facts.cpu,
        memory=facts.memory_bytes,
        ssd=facts.ssd is not None,
    )


def _network(network: Network) -> api.SiteNetwork:
    taken = _lowest_first(network.taken)[: api.MAX_TAKEN]
    return api.SiteNetwork(
        name=network.name,
        cidr=network.cidr,
        taken=tuple(api.TakenAddress(address=address, by=network.taken[address]) for address in taken),
    )


def _lowest_first(addresses: Iterable[str]) -> list[str]:
    return sorted(addresses, key=lambda address: (address.count(":"), int(ipaddress.ip_address(address))))


def _deletion(servers: Sequence[ProtectedServer]) -> Notice:
    if not servers:
        return Notice(reasons.DELETING, "the object is being deleted", stalled=False)
    names = ", ".join(f"{s.metadata.namespace}/{s.metadata.name}" for s in servers[:10])
    return Notice(reasons.IN_USE, f"waiting for its ProtectedServers to be deleted: {names}", stalled=False)
