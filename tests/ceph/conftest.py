"""The two real clusters that these tests share, and programs that talk to them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from demo.ceph import Cluster, Clusters
from lifeboat.engines.ceph import connection
from lifeboat.engines.ceph.workers import Worker
from tests.clusters import SharedClusters


@pytest.fixture(scope="session")
async def clusters(shared_clusters: SharedClusters) -> Clusters:
    return await shared_clusters.get()


@pytest.fixture
async def here(clusters: Clusters) -> AsyncIterator[Worker]:
    async for worker in _worker(clusters.primary):
        yield worker


@pytest.fixture
async def there(clusters: Clusters) -> AsyncIterator[Worker]:
    async for worker in _worker(clusters.recovery):
        yield worker


async def _worker(cluster: Cluster) -> AsyncIterator[Worker]:
    worker = Worker(cluster.name, connection.read(cluster.secret(), "connection"))
    yield worker
    await worker.close()
