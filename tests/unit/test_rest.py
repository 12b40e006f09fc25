"""When a server that rests is left alone."""

from dataclasses import replace
from typing import Any

import pytest

from lifeboat.api.sitepair import SitePair
from lifeboat.engines.facts import Fact, Known, Network, PairFacts, SiteFacts, Storage, Unknown, nothing_known
from lifeboat.lifecycle.view import Verification
from lifeboat.reconcile.rest import Rest, Sites
from lifeboat.world import Key, World
from tests.unit.test_world import drill, pair, server

SITE = SiteFacts(
    zone="zone-b",
    namespaces=("default",),
    networks=(Network("net", "10.0.0.0/24", {}),),
    elastic_ips={"198.51.100.1": None},
    cpu=8,
    memory_bytes=1 << 30,
    standard=Storage(1 << 40, 1 << 39),
    ssd=None,
    servers=("web",),
)


FACTS = {"web": nothing_known("web", "nobody looked")}


def seen(site: Fact[SiteFacts]) -> Sites:
    return Sites.of(PairFacts(Known(SITE), site, {}))


SITES = seen(Known(SITE))


def test_what_others_take_of_a_site_is_no_news_to_a_server_at_rest() -> None:
    taken = replace(
        SITE,
        networks=(Network("net", "10.0.0.0/24", {"10.0.0.5": "other"}),),
        elastic_ips={"198.51.100.1": "other"},
        standard=Storage(1 << 40, 0),
    )
    assert seen(Known(taken)) == seen(Known(SITE))


def test_what_a_site_allows_and_has_is_news() -> None:
    for changed in (
        replace(SITE, namespaces=()),
        replace(SITE, servers=()),
        replace(SITE, networks=()),
        replace(SITE, networks=(Network("net", "10.0.1.0/24", {}),)),
    ):
        assert seen(Known(changed)) != seen(Known(SITE))
    assert seen(Unknown("it does not answer")) != seen(Known(SITE))
    assert seen(Unknown("it does not answer")) == seen(Unknown("it does not answer"))


@pytest.fixture
def world() -> World:
    made = World()
    for each in (pair(), server("web"), server("db", "db")):
        made.put(each)
    return made


def rest(world: World) -> Rest:
    """That of the server web, as a pass leaves it."""
    key, its = Key("ProtectedServer", "ns", "web"), found_pair(world)
    body = world.body(key)
    assert body is not None
    return Rest(key, "web", body, its.spec, (), (), (), FACTS["web"], {}, SITES, 0.0, -1)


def found_pair(world: World) -> SitePair:
    found = world.get(SitePair, "ns", "pair")
    assert found is not None
    return found


def test_a_rest_holds_while_others_come_and_change(world: World) -> None:
    made = rest(world)
    assert made.holds(world, found_pair(world), SITES, FACTS, {})
    world.put(server("db", "db", version=2))
    world.put(drill("d", "db"))
    assert made.holds(world, found_pair(world), seen(Known(SITE)), dict(FACTS), {})
    assert made.holds(world, found_pair(world), SITES, FACTS, {})


@pytest.mark.parametrize(
    "change", [server("web", version=2), drill("d", "web"), server("rival", "web"), pair(version=2, recovery="zone-c")]
)
def test_a_rest_ends_with_what_concerns_it(world: World, change: dict[str, Any]) -> None:
    made = rest(world)
    assert made.holds(world, found_pair(world), SITES, FACTS, {})
    world.put(change)
    assert not made.holds(world, found_pair(world), SITES, FACTS, {})


def test_a_rest_ends_with_what_is_seen(world: World) -> None:
    made, its = rest(world), found_pair(world)
    assert not made.holds(world, its, seen(Unknown("it does not answer")), FACTS, {})
    assert not made.holds(world, its, SITES, {"web": nothing_known("web", "another reason")}, {})
    assert not made.holds(world, its, SITES, {}, {})
    assert not made.holds(world, its, SITES, FACTS, {"m": Verification(done=True)})
    assert made.holds(world, its, SITES, FACTS, {})
