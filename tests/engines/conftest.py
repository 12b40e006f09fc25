"""Which engines the conformance suite is run against: one row for each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest

from lifeboat.engines.contract import Capabilities
from tests.engines.harness import Factory, Harness, Stage
from tests.engines.qemu_guest_harness import SharedGuest
from tests.engines.qemu_harness import BareHarness
from tests.engines.simulated_harness import SimulatedHarness

HARNESSES: dict[str, Factory] = {
    "simulated": SimulatedHarness.create,
    "simulated-without-extras": partial(SimulatedHarness.create, Capabilities()),
    "qemu": BareHarness.create,
}
# The first case with a guest may have to build its image.
MARKS = {"qemu": (pytest.mark.qemu, pytest.mark.timeout(600))}


@pytest.fixture(scope="session")
async def shared_guest() -> AsyncIterator[SharedGuest]:
    shared = SharedGuest()
    yield shared
    await shared.close()


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, ())) for name in HARNESSES])
async def harness(request: pytest.FixtureRequest, shared_guest: SharedGuest) -> AsyncIterator[Harness]:
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
