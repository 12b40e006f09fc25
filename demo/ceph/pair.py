"""Two clusters that mirror to each other, as one thing that is started and stopped."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from demo import packages
from demo.ceph.cluster import POOL, CephError, Cluster

SHARED_MEMORY: Final = Path("/dev/shm")
MIRROR_SECONDS: Final = 60.0


class Clusters:
    """Two clusters in a folder, or in memory where none is given; `with` starts them and takes them down."""

    def __init__(
        self,
        folder: Path | None = None,
        names: tuple[str, str] = ("zone-a", "zone-b"),
        pools: Sequence[str] = (POOL,),
    ) -> None:
        self._temporary = folder is None
        if folder is None:
            memory = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
            folder = Path(tempfile.mkdtemp(prefix="lifeboat-ceph-", dir=memory))
        self.folder = folder
        self.pools = pools
        self.primary, self.recovery = (Cluster(folder / name, name, pools) for name in names)

    @property
    def both(self) -> tuple[Cluster, Cluster]:
        """The two."""
        return self.primary, self.recovery

    def of(self, name: str) -> Cluster:
        """The cluster of that site."""
        return next(cluster for cluster in self.both if cluster.name == name)

    async def read(self, namespace: str, name: str) -> Mapping[str, str]:  # noqa: ARG002 - the protocol's
        """The Secrets of both, as an engine reads them."""
        return next(cluster for cluster in self.both if cluster.secret_name == name).secret()

    def up(self) -> None:
        """Start both, let each be the other's peer, and wait until both mirror.

        Ones that were made before are only started: they get well by themselves, and after some minutes they say so.
        """
        packages.ensure(packages.CEPH)
        made = all(cluster.conf.exists() for cluster in self.both)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Cluster.up, self.both))
            if not made:
                list(pool.map(_enable, self.both))
        if not made:
            for name in self.pools:
                self._join(name)
        for cluster in self.both:
            cluster.start("mirror")
        if not made:
            for cluster in self.both:
                _until_healthy(cluster)

    def _join(self, pool: str) -> None:
        """Let each cluster be the other's peer in a pool."""
        token = self.folder / "token"
        here, there = self.both
        token.touch(mode=0o600)
        token.write_text(
            here.run("rbd", "mirror", "pool", "peer", "bootstrap", "create", "--site-name", here.name, pool),
            encoding="ascii",
        )
        imported = ("peer", "bootstrap", "import", "--site-name", there.name, "--direction", "rx-tx", pool, str(token))
        there.run("rbd", "mirror", "pool", *imported)
        token.unlink()

    def down(self) -> None:
        """End both; what is in memory goes."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Cluster.down, self.both))
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()


def _enable(cluster: Cluster) -> None:
    for pool in cluster.pools:
        cluster.run("rbd", "mirror", "pool", "enable", pool, "image")


def _until_healthy(cluster: Cluster) -> None:
    """Wait until the daemon that pulls to this cluster has found its peer in each pool."""
    deadline = time.monotonic() + MIRROR_SECONDS
    for pool in cluster.pools:
        healthy = ("mirror", "pool", "status", pool, "--format=json")
        while '"daemon_health":"OK"' not in (said := cluster.run("rbd", *healthy)):
            if time.monotonic() > deadline or not cluster.runs("mirror"):
                raise CephError(f"rbd-mirror of {cluster.name} does not get healthy: {said.strip()[-500:]}")
            time.sleep(0.2)
