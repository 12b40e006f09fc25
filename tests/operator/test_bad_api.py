"""The bad moments of an API server that is there: expired versions, errors in a watch, torn connections, 503, silence.

The engine is simulated: only what is asked of the API server matters.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from demo.controlplane import ControlPlane
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from tests.api.operators import Operator, Site
from tests.conftest import connect
from tests.operator.bad_api import BROKEN, GONE, BadApi

LONGER_THAN_KOPF_TRIES = 6.0


@pytest.fixture
def door(control_plane: ControlPlane, tmp_path: Path) -> Iterator[BadApi]:
    with BadApi(control_plane.kubeconfig, tmp_path) as made:
        yield made


@pytest.fixture
def site(control_plane: ControlPlane) -> Iterator[Site]:
    with connect(control_plane) as connection:
        yield Site(connection, control_plane.kubeconfig)


@pytest.fixture
def operator(site: Site, door: BadApi) -> Iterator[Operator]:
    """One that speaks through the door, with a server that replicates and all watches open."""
    site.settings = replace(site.settings, kubeconfig=door.kubeconfig)
    with site.operator() as made:
        site.pair()
        site.protect("web")
        site.until_phase(ProtectedServer, "web", "Replicating", 30)
        site.until(lambda: door.watches >= 4)
        yield made


def expired(door: BadApi) -> None:
    door.tell_watches(GONE)


def broken(door: BadApi) -> None:
    door.tell_watches(BROKEN)


def torn(door: BadApi) -> None:
    for _ in range(10):
        door.reset()
        time.sleep(0.2)


def nobody_behind_the_load_balancer(door: BadApi) -> None:
    door.refuse = 503
    time.sleep(LONGER_THAN_KOPF_TRIES)
    door.refuse = None


def too_many_requests(door: BadApi) -> None:
    door.refuse = 429
    time.sleep(LONGER_THAN_KOPF_TRIES)
    door.refuse = None


def rights_not_loaded_yet(door: BadApi) -> None:
    door.refuse = 403
    time.sleep(LONGER_THAN_KOPF_TRIES)
    door.refuse = None


def silent(door: BadApi) -> None:
    door.hang = True
    time.sleep(LONGER_THAN_KOPF_TRIES)
    door.hang = False


@pytest.mark.parametrize(
    "trouble",
    [
        expired,
        broken,
        torn,
        nobody_behind_the_load_balancer,
        too_many_requests,
        rights_not_loaded_yet,
        silent,
    ],
)
def test_after_a_bad_moment_what_is_new_is_seen_and_done(
    site: Site, door: BadApi, operator: Operator, trouble: Callable[[BadApi], None]
) -> None:
    trouble(door)
    site.create(Failover, "go", {"serverRef": {"name": "web"}})
    site.until_phase(Failover, "go", "AwaitingCommit", 45)
    site.until(lambda: door.watches >= 4, 30)
    site.edit(Failover, "go", {"commit": True})
    took = site.until_phase(Failover, "go", "Committed", 30)
    assert took < 10, "it is watched again, not only listed now and then"
    assert operator.failed is None


def test_an_edit_that_is_told_before_our_own_write_is_answered_is_not_lost(
    site: Site, door: BadApi, operator: Operator
) -> None:
    door.late = 1.0
    site.create(Failover, "go", {"serverRef": {"name": "web"}})
    site.until_phase(Failover, "go", "AwaitingCommit", 30)
    site.edit(Failover, "go", {"commit": True})
    took = site.until_phase(Failover, "go", "Committed", 60)
    assert took < 15, "it is done when it is told, not when everything is compared with a list"
    assert operator.failed is None


def test_points_are_due_while_the_api_server_hangs(site: Site, door: BadApi, operator: Operator) -> None:
    site.edit(
        ProtectedServer,
        "web",
        {"replication": {"enabled": True, "recoveryPoints": [{"every": "10s", "for": "10m"}]}},
    )
    site.until(lambda: len(site.get(ProtectedServer, "web")["status"]["recoveryPoints"]) >= 2, 30)
    before = len(site.world.performed)
    door.hang = True
    time.sleep(45)
    door.hang = False
    taken = [verb for _, verb in site.world.performed[before:] if type(verb).__name__ == "TakePoint"]
    assert len(taken) >= 4, taken
    site.until(lambda: site.get(ProtectedServer, "web")["status"]["recoveryPointCount"] >= 2 + len(taken), 30)
    assert operator.failed is None
