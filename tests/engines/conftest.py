"""Which engines the conformance suite is run against: one row for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from lifeboat.engines.contract import Capabilities
from tests.engines.ceph_harness import CephHarness, SharedClusters
from tests.engines.harness import Factory, Harness, Stage
from tests.engines.qemu_guest_harness import SharedGuest
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
async def shared_guest() -> AsyncIterator[SharedGuest]:
    shared = SharedGuest()
    yield shared
    await shared.close()


@pytest.fixture(scope="session")
def shared_clusters() -> Iterator[SharedClusters]:
    shared = SharedClusters()
    yield shared
    shared.close()


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, ())) for name in (*HARNESSES, "ceph")])
async def harness(
    request: pytest.FixtureRequest, shared_guest: SharedGuest, shared_clusters: SharedClusters
) -> AsyncIterator[Harness]:
    if request.param == "ceph":
        if request.node.get_closest_marker("guest"):
            pytest.skip("not built: a guest that boots from disks in Ceph")
        on_ceph = await CephHarness.create(await shared_clusters.get())
        try:
            yield on_ceph
        finally:
            await on_ceph.close()
        return
    if request.param == "qemu" and request.node.get_closest_marker("guest"):
        async with shared_guest.lent() as lent:
            yield lent
        return
    harness = await HARNESSES[request.param]()
    try:
        yield harness
    finally:
        await harness.close()


@pytest.fixture
def stage(harness: Harness) -> Stage:
    return Stage(harness)
