"""What the conformance suite asks of machines and of the source, where both sites' servers run on KubeVirt.

Left out is what is asked about addresses and elastic IPs, which a cluster gives itself, and a zone that is silent: that
is another thing where it is an API server (tests/kubevirt/test_silence.py).
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from demo.ceph import Clusters
from demo.controlplane import ControlPlane
from lifeboat.engines.facts import Way
from lifeboat.engines.verbs import TakePoint
from tests.engines import test_conformance_machines as machines
from tests.engines import test_conformance_source as source
from tests.engines.harness import Stage
from tests.kubevirt.ceph_harness import KubeVirtHarness
from tests.kubevirt.conftest import serve_kubevirt

pytestmark = pytest.mark.timeout(600)


class _Stage(Stage):
    """A stage on which a machine is up once it runs on a node, and not only in the cluster's plans."""

    def __init__(self, harness: KubeVirtHarness) -> None:
        super().__init__(harness)
        self._kubevirt = harness

    def is_up(self, facts: Way, machine: str) -> bool:
        return self._kubevirt.is_up(facts, machine)


@pytest.fixture
async def harness(clusters: Clusters, control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[KubeVirtHarness]:
    await serve_kubevirt(control_plane)
    namespace = f"servers-{uuid.uuid4().hex[:8]}"
    async with KubeVirtHarness.opened(clusters, control_plane, namespace, tmp_path, both=True) as harness:
        yield harness


@pytest.fixture
async def stage(harness: KubeVirtHarness, request: pytest.FixtureRequest) -> Stage:
    """A server; for what is asked of machines, with a point that holds write 1."""
    stage = _Stage(harness)
    if request.function.__module__ == machines.__name__:
        await stage.replicate()
        await harness.write(1)
        await stage.insist(TakePoint("point-1"))
    return stage


@pytest.fixture
def orderly() -> None:
    """It can fence in an orderly way."""


test_launching_twice = machines.test_launching_twice_makes_one_machine
test_two_launches = machines.test_two_launches_at_the_same_moment_make_one_machine
test_a_verb_that_is_cut_off = machines.test_a_verb_that_is_cut_off_at_any_moment_is_done_once_when_it_is_asked_again
test_what_cannot_be_launched = machines.test_what_cannot_be_launched_is_refused_and_leaves_nothing
test_disks_of = machines.test_a_halted_machine_keeps_its_disks_and_a_launch_with_disks_of_goes_on_with_them
test_continue = machines.test_a_machine_that_runs_is_let_be_by_continue_and_one_that_does_not_stays_halted
test_halted = machines.test_a_halted_machine_starts_again_on_its_own_disks
test_never_replaced = machines.test_a_launch_never_replaces_the_disks_of_a_machine_of_that_name
test_removed_twice = machines.test_removing_a_machine_twice_removes_it_and_leaves_the_others
test_removed_and_disks_left = machines.test_removing_a_machine_leaves_the_disks_that_another_one_goes_on_with
test_independent = machines.test_an_independent_machine_runs_on_when_replica_and_points_are_released
test_released = machines.test_releasing_keeps_the_point_under_a_drill
test_fenced_twice = source.test_fencing_twice_stops_the_source_and_its_zone_refuses_to_start_it
test_fence_lifted = source.test_lifting_the_fence_does_not_start_a_source_that_was_not_running
test_orderly_fence = source.test_an_orderly_fence_ends_the_source_with_its_last_write_on_the_replica
test_orderly_fence_waits = source.test_an_orderly_fence_waits_for_a_copy_that_is_interrupted
test_orderly_fence_lifted = source.test_an_orderly_fence_is_lifted_at_any_moment
test_orderly_fence_without_copy = source.test_an_orderly_fence_of_a_source_that_is_not_replicated_ends_it
test_later_leader = source.test_a_later_leader_takes_the_fence_out_of_an_older_ones_hand
