"""The way home on real machines: it goes on where the road ends, with a server that was failed over and committed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from demo.world import phase_is, ready
from tests.e2e.conftest import SERVER, RealWorld, Site
from tests.e2e.rebuilding import rebuild_and_compare
from tests.e2e.test_road import FAILOVER, points_of

pytestmark = pytest.mark.timeout(900)

HOME: dict[str, Any] = {
    "apiVersion": "lifeboat.dev/v1alpha1",
    "kind": "Failover",
    "metadata": {"name": "home"},
    "spec": {
        "type": "Failback",
        "serverRef": {"name": "web"},
        "instance": {"ipAddress": "10.10.1.10", "elasticIP": "127.0.21.5"},
        "checks": [{"name": "web", "httpGet": {"port": 80, "path": "/cgi-bin/rows"}}],
    },
}
RECOVERED = Site("127.0.23.5")
AT_HOME = Site("127.0.21.5")


@pytest.fixture(scope="module", autouse=True)
def committed(world: RealWorld) -> None:
    """The server web, served from zone-b: as the road left it, or brought there now."""
    if "ps/web" in world.kubectl("get", "ps", "-o", "jsonpath={range .items[*]}ps/{.metadata.name} {end}"):
        world.until("ps", "web", phase_is("Committed"))
        return
    world.apply(SERVER.format(name="web"))
    world.until("ps", "web", ready, seconds=180)
    world.apply(json.dumps(FAILOVER))
    world.until("fo", "disaster", ready, seconds=180)
    world.patch("fo", "disaster", {"commit": True})
    world.until("ps", "web", phase_is("Committed"), seconds=180)


def test_the_recovered_server_is_registered_and_goes_on_serving(world: RealWorld) -> None:
    RECOVERED.write(600)
    world.patch("ps", "web", {"replication": {"enabled": False, "direction": "Reverse"}})
    found = world.until("ps", "web", phase_is("ReverseRegistered"), seconds=60)
    assert found["status"]["activeSite"] == "Recovery"
    assert found["status"]["direction"] == "Reverse"
    world.kubectl("wait", "--for=condition=Ready", "ps/web", "--timeout=30s")


def test_the_original_machine_is_wiped_only_with_its_name(world: RealWorld) -> None:
    with pytest.raises(Exception, match="confirmWipe"):
        world.patch("ps", "web", {"replication": {"originalMachine": True, "confirmWipe": "other"}})
    with pytest.raises(Exception, match="confirmWipe"):
        world.patch("ps", "web", {"replication": {"originalMachine": True}})


def test_it_is_replicated_back_onto_the_original_machine(world: RealWorld) -> None:
    back = {"enabled": True, "originalMachine": True, "confirmWipe": "web"}
    world.patch("ps", "web", {"replication": back})
    world.until("ps", "web", phase_is("ReverseReplicating"), seconds=180)
    world.kubectl("wait", "--for=condition=Ready", "ps/web", "--timeout=30s")
    RECOVERED.write(601)
    world.until("ps", "web", lambda ps: len(ps["status"].get("recoveryPoints", [])) >= 1, seconds=60)
    assert "Failback" in world.get("ps", "web")["status"]["allowedOperations"]


def test_a_failover_is_refused_on_the_way_back(world: RealWorld) -> None:
    world.apply(json.dumps({**FAILOVER, "metadata": {"name": "wrong-way"}}))
    found = world.until("fo", "wrong-way", lambda fo: "conditions" in fo.get("status", {}))
    told = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
    assert told["reason"] == "PhaseDoesNotAllow"
    assert "type: Failback" in told["message"]
    world.kubectl("delete", "fo", "wrong-way", "--timeout=30s")


def test_a_drill_runs_at_the_primary_site(world: RealWorld) -> None:
    drill = {
        "apiVersion": "lifeboat.dev/v1alpha1",
        "kind": "Drill",
        "metadata": {"name": "look-at-home"},
        "spec": {
            "serverRef": {"name": "web"},
            "instance": {"elasticIP": "127.0.21.7"},
            "checks": [{"name": "web", "httpGet": {"port": 80, "path": "/cgi-bin/rows"}}],
        },
    }
    world.apply(json.dumps(drill))
    world.kubectl("wait", "--for=condition=Ready", "dr/look-at-home", "--timeout=180s")
    assert 600 in Site("127.0.21.7").rows()
    assert world.get("ps", "web")["status"]["phase"] == "ReverseReplicating"
    world.patch("dr", "look-at-home", {"running": False})
    world.until("dr", "look-at-home", phase_is("CleanedUp"))


def test_losing_every_status_and_object_on_the_way_back_changes_nothing(world: RealWorld) -> None:
    rebuild_and_compare(world)


def test_a_failback_brings_every_row_home(world: RealWorld) -> None:
    for number in range(610, 630):
        RECOVERED.write(number)
    promised = set(RECOVERED.rows())
    world.apply(json.dumps(HOME))
    found = world.until("fo", "home", phase_is("Completed", "Failed"), seconds=240)
    assert (found["status"]["phase"], found["status"]["result"]) == ("Completed", "Passed")
    assert promised <= set(AT_HOME.rows())
    told = world.until("ps", "web", phase_is("FailedBack"))["status"]
    assert told["activeSite"] == "Primary"
    AT_HOME.write(700)


def test_a_spec_left_at_reverse_wipes_nothing_whatever_is_lost(world: RealWorld) -> None:
    rebuild_and_compare(world, "127.0.21.5")
    assert 700 in AT_HOME.rows()


def test_registered_again_it_is_protected_as_at_the_start(world: RealWorld) -> None:
    forward = {"direction": None, "originalMachine": None, "confirmWipe": None}
    world.patch("ps", "web", {"replication": forward})
    world.until("ps", "web", phase_is("Replicating"), seconds=240)
    world.kubectl("wait", "--for=condition=Ready", "ps/web", "--timeout=30s")
    world.until("ps", "web", lambda _: not list((world.zones / "zone-b" / "machines" / "web").rglob("machine.json")))
    AT_HOME.write(701)
    assert points_of(world)


def test_a_planned_failover_loses_nothing(world: RealWorld) -> None:
    for number in range(710, 720):
        AT_HOME.write(number)
    promised = set(AT_HOME.rows())
    moved = {**FAILOVER, "metadata": {"name": "moved"}, "spec": {**FAILOVER["spec"], "planned": True}}
    world.apply(json.dumps(moved))
    found = world.until("fo", "moved", ready, seconds=240)
    assert promised <= set(RECOVERED.rows())
    fenced = next(c for c in found["status"]["conditions"] if c["type"] == "SourceFenced")
    assert fenced["status"] == "True"
