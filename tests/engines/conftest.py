"""Which engines the conformance suite is run against: one row for each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest

from lifeboat.engines.contract import Capabilities
from tests.engines.harness import Factory, Harness, Stage
from tests.engines.simulated_harness import SimulatedHarness

HARNESSES: dict[str, Factory] = {
    "simulated": SimulatedHarness.create,
    "simulated-without-extras": partial(SimulatedHarness.create, Capabilities()),
}


@pytest.fixture(params=HARNESSES)
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    harness = await HARNESSES[request.param]()
    try:
        yield harness
    finally:
        await harness.close()


@pytest.fixture
def stage(harness: Harness) -> Stage:
    return Stage(harness)
