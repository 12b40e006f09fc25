"""What goes wrong with real clusters, their daemons and their images, and what is said and done then."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import uuid
from collections.abc import AsyncIterator, Mapping

import pytest

from demo.ceph import Clusters
from demo.ceph.cluster import MIRROR, POOL
from lifeboat.engines.contract import NoSpace, Pair, Refused, Retry, Underway
from lifeboat.engines.facts import Known, MachineState, ReplicaState, Unknown
from lifeboat.engines.verbs import Fence, StopReplication, TakePoint
from lifeboat.host import machine, processes
from tests.engines.ceph_harness import CephHarness
from tests.engines.harness import Stage, known

pytestmark = pytest.mark.timeout(300)


class OneDisk(CephHarness):
    """A server of one disk, which RBD copies in the order of its writes whatever becomes of its site."""

    disks = ("system",)


@pytest.fixture
async def harness(clusters: Clusters) -> AsyncIterator[CephHarness]:
    made = await CephHarness.create(clusters)
    yield made
    await made.close()


@pytest.fixture
async def one_disk(clusters: Clusters) -> AsyncIterator[OneDisk]:
    made = OneDisk(clusters)
    await made.begin()
    yield made
    await made.close()


@pytest.fixture
def stage(harness: CephHarness) -> Stage:
    return Stage(harness)


class Wrong:
    """Secrets of which one holds another user's key."""

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    async def read(self, namespace: str, name: str) -> Mapping[str, str]:
        found = dict(await self._clusters.read(namespace, name))
        if name == self._clusters.recovery.secret_name:
            found["keyring"] = f"[client.lifeboat]\nkey = {self._clusters.recovery.key(MIRROR)}\n"
        return found


# Secrets and pools


async def test_a_wrong_key_makes_its_site_unknown_and_says_whose_key(harness: CephHarness) -> None:
    engine = harness.new_engine(Wrong(harness.clusters))
    try:
        seen = await engine.observe(harness.pair, [harness.server_id])
        assert isinstance(seen.primary, Known)
        assert isinstance(seen.recovery, Unknown)
        assert "client.lifeboat" in seen.recovery.reason
        assert harness.clusters.recovery.key(MIRROR) not in seen.recovery.reason
    finally:
        await engine.close()


async def test_a_pool_that_is_not_there_is_named(stage: Stage, harness: CephHarness) -> None:
    harness.pair = _with_pool(harness.pair, "no-such-pool")
    seen = await stage.look()
    assert isinstance(seen.recovery, Unknown)
    assert "no-such-pool" in seen.recovery.reason


async def test_a_pool_that_is_not_mirrored_is_refused_with_what_to_run(stage: Stage, harness: CephHarness) -> None:
    pool = f"plain-{uuid.uuid4().hex[:8]}"
    clusters = harness.clusters
    for cluster in clusters.both:
        cluster.ceph(f"osd pool create {pool} 1")
        cluster.run("rbd", "pool", "init", pool)
    disk = f"{pool}/{harness.server_id}-other"
    clusters.primary.run("rbd", "create", "--size", "8M", disk)
    for key, value in (("server", harness.server_id), ("disk", "other")):
        clusters.primary.run("rbd", "image-meta", "set", disk, f"lifeboat.dev/{key}", value)
    harness.pair = _with_pool(harness.pair, pool)
    with pytest.raises(Refused, match=f"rbd mirror pool enable {pool} image"):
        await stage.perform(stage.copy())
    for cluster in clusters.both:
        cluster.run("rbd", "mirror", "pool", "enable", pool, "image")
    with pytest.raises(Refused, match=f"peer bootstrap import {pool}"):
        await stage.perform(stage.copy())


def _with_pool(pair: Pair, pool: str) -> Pair:
    return Pair(pair.primary_zone, pair.recovery_zone, {**pair.options, "pools": {"standard": pool}}, pair.namespace)


# Images


async def test_an_image_that_cannot_have_a_journal_is_refused_with_what_to_run(
    stage: Stage, harness: CephHarness
) -> None:
    await harness.kill_source()
    image = f"{POOL}/{harness.server_id}-data"
    features = ("journaling", "fast-diff", "object-map", "exclusive-lock")
    harness.clusters.primary.run("rbd", "feature", "disable", image, *features)
    with pytest.raises(Refused, match=f"rbd feature enable {image} exclusive-lock"):
        await stage.perform(stage.copy())
    harness.clusters.primary.run("rbd", "feature", "enable", image, *features[1:])
    await stage.replicate()


async def test_an_image_that_is_mirrored_by_snapshots_is_refused_with_what_to_run(
    stage: Stage, harness: CephHarness
) -> None:
    await harness.kill_source()
    image = f"{POOL}/{harness.server_id}-data"
    harness.clusters.primary.run("rbd", "feature", "disable", image, "journaling")
    harness.clusters.primary.run("rbd", "mirror", "image", "enable", image, "snapshot")
    with pytest.raises(Refused, match=f"rbd mirror image disable {image}"):
        await stage.perform(stage.copy())


async def test_an_image_in_the_way_of_the_copy_is_left_alone(stage: Stage, harness: CephHarness) -> None:
    image = f"{POOL}/{harness.server_id}-data"
    harness.clusters.recovery.run("rbd", "create", "--size", "8M", image)
    try:
        with pytest.raises(Refused, match="is in the way"):
            await stage.perform(stage.copy())
        assert image.split("/")[1] in harness.clusters.recovery.run("rbd", "ls", POOL).split()
    finally:
        harness.clusters.recovery.run("rbd", "rm", "--no-progress", image)
    await stage.insist(stage.copy())
    await stage.reaches(ReplicaState.SYNCED)


async def test_a_snapshot_that_is_removed_by_hand_takes_its_point_along_and_no_machine(
    stage: Stage, harness: CephHarness
) -> None:
    await stage.replicate()
    await harness.write(1)
    await stage.perform(TakePoint("point-1"), TakePoint("point-2"))
    await stage.launch("drill", "point-1", stage.shape(isolated=True))
    for disk in harness.disks:
        harness.clusters.primary.run(
            "rbd", "snap", "rm", "--no-progress", f"{POOL}/{harness.server_id}-{disk}@lifeboat.point-1"
        )
    await harness.settle(lambda facts: [point.name for point in known(facts.replica).points] == ["point-2"])
    assert (await stage.machines())["drill"].state is MachineState.RUNNING
    assert await harness.contents("drill") == 1
    await stage.launch("other", "point-2", stage.shape(isolated=True))


async def test_a_deletion_of_an_old_copy_that_was_cut_off_is_finished_for_the_next_one(
    stage: Stage, harness: CephHarness
) -> None:
    await stage.replicate()
    await stage.insist(StopReplication())
    # What rbd-mirror leaves that was interrupted between the name and the list of the pool.
    harness.clusters.recovery.run("rados", "-p", POOL, "rm", f"rbd_id.{harness.server_id}-{harness.disks[0]}")
    await harness.write(1)
    await stage.insist(stage.copy(2))
    await stage.reaches(ReplicaState.SYNCED)
    await stage.insist(TakePoint("point-1"))
    await stage.launch("drill", "point-1", stage.shape(isolated=True))
    assert await harness.contents("drill") == 1


# Daemons


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_without_rbd_mirror_it_is_said_what_to_start_and_then_all_goes_on(
    how: signal.Signals, stage: Stage, harness: CephHarness
) -> None:
    await stage.replicate()
    await asyncio.to_thread(harness.clusters.recovery.stop, "mirror", how)
    replica = await stage.reaches(ReplicaState.INTERRUPTED)
    assert replica.resumable
    assert "no rbd-mirror runs in zone zone-b: start one there" in replica.reason
    await harness.write(1)
    harness.clusters.recovery.start("mirror")
    await stage.reaches(ReplicaState.SYNCED)
    await stage.insist(TakePoint("point-1"))
    await stage.launch("drill", "point-1", stage.shape(isolated=True))
    assert await harness.contents("drill") == 1


async def test_a_cluster_that_does_not_answer_is_unknown_and_the_other_is_seen(
    stage: Stage, harness: CephHarness
) -> None:
    await stage.replicate()
    harness.clusters.recovery.pause("mon", "osd")
    try:
        began = time.monotonic()
        seen = await stage.look()
        assert time.monotonic() - began < 15
        assert isinstance(seen.recovery, Unknown)
        assert "does not answer" in seen.recovery.reason
        assert known(seen.servers[harness.server_id].forward.source).running
        with pytest.raises(Retry):
            await stage.perform(TakePoint("point-1"))
    finally:
        harness.clusters.recovery.go_on("mon", "osd")
    await harness.settle(
        lambda facts: isinstance(facts.replica, Known) and facts.replica.value.state is ReplicaState.SYNCED
    )
    await stage.insist(TakePoint("point-1"))


@pytest.mark.parametrize("site", ["primary", "recovery"])
@pytest.mark.parametrize("daemon", ["mon", "osd"])
async def test_a_daemon_that_was_killed_and_comes_back_costs_nothing(
    daemon: str, site: str, stage: Stage, harness: CephHarness
) -> None:
    cluster = getattr(harness.clusters, site)
    await stage.replicate()
    await harness.write(1)
    await asyncio.to_thread(cluster.stop, daemon, signal.SIGKILL)
    cluster.start(daemon)
    await harness.write(2)
    await harness.settle(
        lambda facts: isinstance(facts.replica, Known) and facts.replica.value.state is ReplicaState.SYNCED
    )
    reasons = await stage.insist(TakePoint("point-1"))
    assert all(reasons)
    await stage.launch("drill", "point-1", stage.shape(isolated=True))
    assert await harness.contents("drill") == 2


async def test_a_full_cluster_takes_no_copy_and_the_source_writes_on(stage: Stage, harness: CephHarness) -> None:
    await harness.fill_recovery()
    with pytest.raises(NoSpace, match="zone-b"):
        await stage.perform(stage.copy())
    await harness.write(1)
    await asyncio.to_thread(harness.clusters.recovery.make_room)
    await stage.insist(stage.copy())
    await stage.reaches(ReplicaState.SYNCED)


async def test_a_split_brain_is_told_with_what_can_be_done(stage: Stage, harness: CephHarness) -> None:
    await stage.replicate()
    await stage.perform(TakePoint("point-1"))
    for disk in harness.disks:
        image = f"{POOL}/{harness.server_id}-{disk}"
        harness.clusters.recovery.run("rbd", "mirror", "image", "promote", "--force", image)
    replica = await stage.reaches(ReplicaState.INTERRUPTED)
    assert not replica.resumable
    assert "both" in replica.reason
    assert "start replication anew" in replica.reason
    assert "point-1" in await stage.points()
    await stage.insist(stage.copy(2))
    await stage.reaches(ReplicaState.SYNCED)
    assert "point-1" in await stage.points(), "what was copied before is kept"


# A site that is lost


async def test_a_source_that_cannot_be_reached_is_kept_from_its_disks_by_its_cluster(
    stage: Stage, harness: CephHarness
) -> None:
    await stage.replicate()
    await harness.write(1)
    await harness.owner._keep_from_disks(stage.target())
    with contextlib.suppress(AssertionError, Retry, TimeoutError):
        async with asyncio.timeout(10):
            await harness.write(2)
    assert await harness.original() == 1
    await stage.perform(Fence())


async def test_what_a_lost_site_had_not_sent_is_what_the_lag_says(one_disk: OneDisk) -> None:
    harness, stage = one_disk, Stage(one_disk)
    await stage.replicate()
    await harness.write(1)
    await harness.settle(lambda facts: known(facts.replica).lag_seconds == 0.0)
    await asyncio.to_thread(harness.clusters.recovery.pause, "mirror")
    began = time.monotonic()
    try:
        for number in range(2, 5):
            await harness.write(number)
        facts = await harness.settle(lambda facts: (known(facts.replica).lag_seconds or 0.0) > 1.0)
        assert (known(facts.replica).lag_seconds or 0.0) <= time.monotonic() - began + 1.0
        await processes.kill(harness.source_folder / machine.PID)
        harness.clusters.primary.pause("mon", "osd")
    finally:
        harness.clusters.recovery.go_on("mirror")
    try:
        await stage.insist(StopReplication(freeze_as="tip"))
        assert (await stage.replica()).consistent
        await stage.launch("machine-1", "tip")
        assert 1 <= await harness.contents("machine-1") <= 4
    finally:
        harness.clusters.primary.go_on("mon", "osd")


async def test_what_a_killed_server_wrote_last_is_waited_for_by_whoever_looks_for_the_first_time(
    one_disk: OneDisk,
) -> None:
    harness, stage = one_disk, Stage(one_disk)
    await stage.replicate()
    await harness.write(1)
    await harness.settle(lambda facts: known(facts.replica).lag_seconds == 0.0)
    await asyncio.to_thread(harness.clusters.recovery.pause, "mirror")
    try:
        await harness.write(2)
        await processes.kill(harness.source_folder / machine.PID)
        await harness.restart_engine()
        with pytest.raises(Underway, match="last writes"):
            await stage.perform(StopReplication(freeze_as="tip"))
    finally:
        harness.clusters.recovery.go_on("mirror")
    await stage.insist(StopReplication(freeze_as="tip"))
    await stage.launch("machine-1", "tip")
    assert await harness.contents("machine-1") == 2
