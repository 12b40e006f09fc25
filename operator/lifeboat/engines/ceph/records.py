"""What is written beside a replica, in the pool that it is in."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from lifeboat.engines.ceph.ledgers import Records, Text
from lifeboat.engines.contract import Retry

_REPLICA = "replica."


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Volume(_Record):
    """A disk and the image that it is, under the same name at both sites."""

    name: str
    pool: str
    image: str
    size_bytes: int = 0
    used_bytes: int = 0


class ReplicaRecord(_Record):
    """All that has to be known about a replica when the primary site is gone.

    `earlier`: the disks of the copy before, of run `earlier_run`, and `given_up` the original's that were given up for
    this one; both go before it begins. `cleared`: they are out of the way. `basis`: what a copy onto the original
    machine began from, in words. `enabled`: mirroring of every disk was turned on in this run.
    `synced`: the copy was whole at least once in this run, and each disk is since then what it was at some moment.
    `level`: the source stood still and all that its journals held had arrived, so the copy's disks are of one instant;
    `tags` are the writers that the copies' journals knew then: another one has written since where there are more.
    `stopping_since`: when it was asked first to be stopped with its last writes. `released`: what nothing needs
    goes.
    """

    server_id: str
    run: int
    network: str
    cpu: int
    memory_bytes: int
    volumes: tuple[Volume, ...]
    addresses: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    total_bytes: int = 0
    earlier: tuple[Volume, ...] = ()
    earlier_run: int = 0
    given_up: tuple[Volume, ...] = ()
    basis: str = ""
    replicating: bool = True
    cleared: bool = False
    enabled: bool = False
    synced: bool = False
    level: bool = False
    tags: dict[str, int] = {}
    stopping_since: datetime | None = None
    stopped_at: datetime | None = None
    released: bool = False


def name_of(server_id: str) -> str:
    """The name of a replica's record."""
    return f"{_REPLICA}{server_id}"


def understood(record: Text | None) -> ReplicaRecord | None:
    """The replica in a record, or None where there is none.

    Raises:
        Retry: it cannot be read.
    """
    if record is None or record.version == 0:
        return None
    try:
        return ReplicaRecord.model_validate_json(record.text)
    except ValidationError as error:
        raise Retry(f"the record of a replica cannot be read: {error.errors()[0]['msg']}") from error


class Stored:
    """A replica's record as it was read, to be replaced by a verb that knows no other writer beside it."""

    def __init__(self, records: Records, server_id: str, text: Text) -> None:
        self._records = records
        self._name = name_of(server_id)
        self._text = text
        self.record = understood(text)

    @classmethod
    async def read(cls, records: Records, server_id: str) -> Stored:
        """Read it."""
        return cls(records, server_id, await records.read(name_of(server_id)))

    async def save(self, record: ReplicaRecord) -> ReplicaRecord:
        """Replace it.

        Raises:
            LedgerConflict: somebody else has.
        """
        self._text = await self._records.swap(self._name, self._text, record.model_dump_json())
        self.record = record
        return record

    async def forget(self) -> None:
        """Remove it."""
        await self._records.forget(self._name)
        self.record = None
