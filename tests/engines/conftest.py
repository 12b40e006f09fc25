"""Which engines the conformance suite is run against: one row for each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from lifeboat.engines.contract import Capabilities
from tests.clusters import SharedClusters
from tests.engines.ceph_guest_harness import CephGuestHarness
from tests.engines.ceph_harness import CephHarness
from tests.engines.guest import SharedGuest
from tests.engines.harness import Factory, Harness, Stage
from tests.engines.qemu_guest_harness import GuestHarness
from tests.engines.qemu_harness import BareHarness
from tests.engines.simulated_harness import SimulatedHarness

HARNESSES: dict[str, Factory] = {
    "simulated": SimulatedHarness.create,
    "simulated-without-extras": partial(SimulatedHarness.create, Capabilities()),
    "qemu": BareHarness.create,
}
# The first case with a guest may have to build its image, the first with clusters installs and starts them.
MARKS = {"qemu": (pytest.mark.qemu, pytest.mark.timeout(600)), "ceph": (pytest.mark.ceph, pytest.mark.timeout(600))}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the engines that are not asked for."""
    asked = config.getoption("--ceph")
    here = Path(__file__).parent
    left_out = [
        item for item in items if here in item.path.parents and (item.get_closest_marker("ceph") is not None) != asked
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
async def shared_guest() -> AsyncIterator[SharedGuest[GuestHarness]]:
    shared = SharedGuest(GuestHarness.create)
    yield shared
    await shared.close()


@pytest.fixture(scope="session")
async def shared_ceph_guest(shared_clusters: SharedClusters) -> AsyncIterator[SharedGuest[CephGuestHarness]]:
    async def create() -> CephGuestHarness:
        return await CephGuestHarness.create(await shared_clusters.get())

    shared = SharedGuest(create)
    yield shared
    await shared.close()


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, ())) for name in (*HARNESSES, "ceph")])
async def harness(
    request: pytest.FixtureRequest,
    shared_guest: SharedGuest[GuestHarness],
    shared_clusters: SharedClusters,
    shared_ceph_guest: SharedGuest[CephGuestHarness],
) -> AsyncIterator[Harness]:
    guests: dict[str, SharedGuest[GuestHarness] | SharedGuest[CephGuestHarness]] = {
        "qemu": shared_guest,
        "ceph": shared_ceph_guest,
    }
    if request.param in guests and request.node.get_closest_marker("guest"):
        async with guests[request.param].lent() as lent:
            yield lent
        return
    if request.param == "ceph":
        on_ceph = await CephHarness.create(await shared_clusters.get())
        try:
            yield on_ceph
        finally:
            await on_ceph.close()
        return
    harness = await HARNESSES[request.param]()
    try:
        yield harness
    finally:
        await harness.close()


@pytest.fixture
def stage(harness: Harness) -> Stage:
    return Stage(harness)
