"""What of a server moves, and how often it has to be looked at for that."""

from dataclasses import replace
from datetime import timedelta

import pytest

from lifeboat.engines.ledger import DrillStage
from lifeboat.lifecycle.view import Verification, View
from lifeboat.reconcile.moving import is_moving, is_verified_only
from tests.lifecycle.cluster import Cluster


@pytest.fixture
def cluster() -> Cluster:
    """A server that is replicated, with a point."""
    made = Cluster()
    made.replicating()
    return made


def at(cluster: Cluster, stage: DrillStage) -> View:
    """What is seen once each drill is at this stage."""
    for _ in range(50):
        view = cluster.view()
        assert view is not None
        if cluster.ledger.drills and all(each.stage is stage for each in cluster.ledger.drills):
            return view
        cluster.step()
        cluster.world.advance(timedelta(seconds=0.1))
    raise AssertionError(f"no drill came to {stage}")


def test_nothing_moves_at_rest(cluster: Cluster) -> None:
    view = cluster.view()
    assert view is not None
    assert not is_moving(view)


def test_a_machine_that_is_verified_is_looked_at_less_often_than_one_that_is_launched(cluster: Cluster) -> None:
    cluster.drill("d")
    assert not is_verified_only(at(cluster, DrillStage.LAUNCHING))
    view = at(cluster, DrillStage.VERIFYING)
    under_way = replace(view, verifications={"m": Verification(done=False)})
    assert is_moving(view)
    assert is_verified_only(under_way)


def test_what_nobody_verifies_yet_or_any_more_is_looked_at_often(cluster: Cluster) -> None:
    cluster.drill("d")
    view = at(cluster, DrillStage.VERIFYING)
    assert not is_verified_only(replace(view, verifications={}))
    assert not is_verified_only(replace(view, verifications={"m": Verification(done=True)}))
