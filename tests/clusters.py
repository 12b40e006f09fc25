"""Two real Ceph clusters for all tests of a process that need them: they are slow to make, and cost while they idle."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from demo.ceph import Clusters


class SharedClusters:
    """Two clusters that are started by the first case that needs them."""

    def __init__(self) -> None:
        self._clusters: Clusters | None = None

    async def get(self) -> Clusters:
        if self._clusters is None:
            self._clusters = Clusters()
            await asyncio.to_thread(self._clusters.up)
        return self._clusters

    def close(self) -> None:
        if self._clusters is not None:
            self._clusters.down()


@pytest.fixture(scope="session")
def shared_clusters() -> Iterator[SharedClusters]:
    shared = SharedClusters()
    yield shared
    shared.close()
