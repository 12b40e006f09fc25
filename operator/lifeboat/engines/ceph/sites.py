"""The sites of pairs: which cluster each zone has, and the program that talks to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from lifeboat.engines.ceph import connection, options
from lifeboat.engines.ceph.connection import Connection
from lifeboat.engines.ceph.ledgers import Ledgers, Records
from lifeboat.engines.ceph.options import Pools
from lifeboat.engines.ceph.workers import Worker
from lifeboat.engines.contract import Pair, Secrets

# A Secret that people change is read again after so many seconds.
_FRESH = 30.0


@dataclass(frozen=True, slots=True)
class Site:
    """A zone's cluster. Records are in the pool of the standard tier."""

    zone: str
    pools: Pools
    worker: Worker
    records: Records

    @property
    def connection(self) -> Connection:
        """How its cluster is reached."""
        return self.worker.connection

    @property
    def ledgers(self) -> Ledgers:
        """The ledgers there."""
        return Ledgers(self.records)


class Sites:
    """The sites of all pairs, each with one program, which is replaced when its Secret says something else."""

    def __init__(self, secrets: Secrets, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._secrets = secrets
        self._monotonic = monotonic
        self._known: dict[tuple[str, str, str, Pools], tuple[float, Site]] = {}

    async def site(self, pair: Pair, zone: str) -> Site:
        """The site of a zone of the pair.

        Raises:
            Refused: the pair's options or the Secret cannot be used.
            Retry: the Secret cannot be read now.
        """
        chosen = options.read(pair.options)
        secret = chosen.site(pair, zone).secret_ref.name
        key = pair.namespace, zone, secret, chosen.pools
        now = self._monotonic()
        known = self._known.get(key)
        if known is not None and now - known[0] < _FRESH:
            return known[1]
        found = connection.read(await self._secrets.read(pair.namespace, secret), secret)
        if known is not None and known[1].connection == found:
            site = known[1]
        else:
            worker = Worker(f"zone {zone}", found)
            site = Site(zone, chosen.pools, worker, Records(worker, chosen.pools.standard))
            if known is not None:
                await known[1].worker.close()
        self._known[key] = now, site
        return site

    async def close(self) -> None:
        """End all programs."""
        for _, site in self._known.values():
            await site.worker.close()
        self._known.clear()
