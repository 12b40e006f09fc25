"""When a server that rests is left alone."""

from dataclasses import replace

from lifeboat.engines.facts import Fact, Known, Network, PairFacts, SiteFacts, Storage, Unknown
from lifeboat.reconcile.rest import Sites

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


def seen(site: Fact[SiteFacts]) -> Sites:
    return Sites.of(PairFacts(Known(SITE), site, {}))


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
