"""Which engines the conformance suite is run against: one row for each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest

from lifeboat.engines.contract import Capabilities
from tests.engines.harness import Factory, Harness, Stage
from tests.engines.qemu_harness import QemuHarness
from tests.engines.simulated_harness import SimulatedHarness

HARNESSES: dict[str, Factory] = {
    "simulated": SimulatedHarness.create,
    "simulated-without-extras": partial(SimulatedHarness.create, Capabilities()),
    "qemu": QemuHarness.create,
}
MARKS = {"qemu": (pytest.mark.qemu, pytest.mark.timeout(900))}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "qemu: boots virtual machines for each test; chosen by `-m qemu`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the suite on real machines, most of an hour, to those who ask for it by its marker."""
    if "qemu" in config.option.markexpr:
        return
    left = [item for item in items if item.get_closest_marker("qemu")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in set(left)]


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, ())) for name in HARNESSES])
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    harness = await HARNESSES[request.param]()
    try:
        yield harness
    finally:
        await harness.close()


@pytest.fixture
def stage(harness: Harness) -> Stage:
    return Stage(harness)
