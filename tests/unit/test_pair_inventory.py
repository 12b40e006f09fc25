"""What a pair tells of its sites: sorted, bounded, the same for the same facts, and kept while a site is silent."""

from datetime import UTC, datetime
from typing import Any

import pytest

from lifeboat.api.sitepair import MAX_NETWORKS, MAX_SERVERS, MAX_TAKEN, SitePair, SitePairInventory, SitePairStatus
from lifeboat.engines.facts import Fact, Known, Network, SiteFacts, Storage, Unknown
from lifeboat.lifecycle.report.sitepair import pair_status

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
SILENT = Unknown("zone zone-a does not answer")


def _facts(**fields: Any) -> SiteFacts:
    given: dict[str, Any] = {
        "zone": "zone-a",
        "namespaces": ("shop",),
        "networks": (
            Network("net", "10.0.0.0/24", {"10.0.0.10": "web-1", "10.0.0.9": "db-1", "10.0.0.2": "network gateway"}),
            Network("blue", "10.9.0.0/24"),
        ),
        "elastic_ips": {"127.0.10.12": None, "127.0.10.5": "web-1"},
        "cpu": 8,
        "memory_bytes": 2**34,
        "standard": Storage(1000, 123),
        "ssd": Storage(1000, 123),
        "servers": ("web-1", "db-1"),
    }
    return SiteFacts(**(given | fields))


def _pair(status: SitePairStatus | None = None) -> SitePair:
    body = {
        "metadata": {"name": "north", "namespace": "shop", "generation": 1},
        "spec": {"primary": {"zone": "zone-a", "network": "zz"}, "recovery": {"zone": "zone-b"}},
        "status": status.as_dict() if status else {},
    }
    return SitePair.parse(body)


def _told(
    primary: Fact[SiteFacts], recovery: Fact[SiteFacts] = SILENT, before: SitePairStatus | None = None
) -> SitePairInventory:
    found = pair_status(_pair(before), NOW, primary, recovery, ()).inventory
    assert found is not None
    return found


def test_everything_is_sorted_as_a_person_reads_it() -> None:
    assert _told(Known(_facts())).as_dict() == {
        "primary": {
            "servers": ["db-1", "web-1"],
            "serverCount": 2,
            "networks": [
                {"name": "blue", "cidr": "10.9.0.0/24", "taken": []},
                {
                    "name": "net",
                    "cidr": "10.0.0.0/24",
                    "taken": [
                        {"address": "10.0.0.2", "by": "network gateway"},
                        {"address": "10.0.0.9", "by": "db-1"},
                        {"address": "10.0.0.10", "by": "web-1"},
                    ],
                },
            ],
            "elasticIPs": [{"address": "127.0.10.5", "usedBy": "web-1"}, {"address": "127.0.10.12"}],
            "cpu": 8,
            "memory": "16Gi",
            "ssd": True,
        }
    }


def test_the_same_facts_in_another_order_are_told_in_the_same_words() -> None:
    first = _facts()
    other = _facts(
        networks=tuple(
            Network(each.name, each.cidr, dict(sorted(each.taken.items(), reverse=True)))
            for each in reversed(first.networks)
        ),
        elastic_ips=dict(sorted(first.elastic_ips.items(), reverse=True)),
        servers=tuple(reversed(first.servers)),
        standard=Storage(1000, 77),
    )
    assert _told(Known(first)) == _told(Known(other))


def test_a_silent_site_keeps_what_was_told() -> None:
    before = pair_status(_pair(), NOW, Known(_facts()), Known(_facts(zone="zone-b", cpu=4)), ())
    after = _told(SILENT, Known(_facts(zone="zone-b", cpu=6)), before)
    assert before.inventory is not None
    assert after.primary == before.inventory.primary
    assert after.recovery is not None
    assert after.recovery.cpu == 6


def test_nothing_is_told_before_a_site_has_answered() -> None:
    assert pair_status(_pair(), NOW, SILENT, SILENT, ()).inventory is None


def test_a_namespace_that_may_not_use_a_zone_is_not_told_what_it_has() -> None:
    before = pair_status(_pair(), NOW, Known(_facts()), Known(_facts()), ())
    told = _told(Known(_facts(namespaces=("bank",))), Known(_facts()), before)
    assert told.primary is None
    assert told.recovery is not None


@pytest.mark.parametrize("round_trip", [False, True])
def test_a_large_site_is_bounded_and_says_how_many_servers_it_has(*, round_trip: bool) -> None:
    taken = {f"10.0.{number // 250}.{number % 250}": f"vm-{number}" for number in range(1000)}
    networks = [Network(f"net-{number:03}", "10.0.0.0/16", taken) for number in range(100)]
    servers = tuple(f"vm-{number:04}" for number in range(2000))
    told = _told(Known(_facts(servers=servers, networks=(*networks, Network("zz", "10.1.0.0/24")))))
    if round_trip:
        told = SitePairInventory.model_validate(told.as_dict())
    assert told.primary is not None
    assert told.primary.server_count == 2000
    assert told.primary.servers == servers[:MAX_SERVERS]
    assert len(told.primary.networks) == MAX_NETWORKS
    assert told.primary.networks[-1].name == "zz"  # the one that spec names
    assert [each.address for each in told.primary.networks[0].taken] == list(taken)[:MAX_TAKEN]
