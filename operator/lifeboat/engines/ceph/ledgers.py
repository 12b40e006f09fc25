"""Ledgers and other records of servers, as the recovery pool has them.

Who compares and swaps is the OSD (`worker/records.py`). A ledger counts its own versions; the object's version is the
cluster's, and guards the moment between reading and writing.
"""

from __future__ import annotations

import dataclasses
import errno
from dataclasses import dataclass

from lifeboat.engines.ceph.workers import CephFailed, Worker
from lifeboat.engines.contract import LedgerConflict, Retry, StaleTerm
from lifeboat.engines.ledger import Ledger, decode, encode

_LEDGER = "ledger."
# What an OSD answers whose object has another version than the one that was read, or exists although none was there.
_OTHER_VERSION = (errno.ERANGE, errno.EOVERFLOW, errno.EEXIST, errno.ECANCELED)


@dataclass(frozen=True, slots=True)
class Text:
    """A record as it is stored: version 0 where there is none."""

    version: int
    text: str


class Records:
    """The records in a pool of one cluster; what was read is kept as long as its version is the same."""

    def __init__(self, worker: Worker, pool: str) -> None:
        self.worker = worker
        self._pool = pool
        self._read: dict[str, Text] = {}

    async def all(self) -> dict[str, Text]:
        """Every record, by its name."""
        known = {name: record.version for name, record in self._read.items()}
        found = await self.worker.call("records", pool=self._pool, known=known)
        self._read = {
            name: self._read[name] if "text" not in record else Text(int(record["version"]), str(record["text"]))
            for name, record in found.items()
        }
        return dict(self._read)

    async def read(self, name: str) -> Text:
        """One record as it is now."""
        found = await self.worker.call("read", pool=self._pool, name=name)
        return Text(int(found["version"]), str(found["text"]))

    async def swap(self, name: str, before: Text, text: str) -> Text:
        """Replace a record that is still as it was read.

        Raises:
            LedgerConflict: it is not.
        """
        try:
            version = await self.worker.call("swap", pool=self._pool, name=name, version=before.version, text=text)
        except CephFailed as error:
            if error.errno in _OTHER_VERSION:
                raise LedgerConflict(f"{name} was written by somebody else: read it again") from error
            raise
        return Text(int(version), text)

    async def forget(self, name: str) -> None:
        """Remove a record, or see that there is none."""
        await self.worker.call("forget", pool=self._pool, name=name)


class Ledgers:
    """The ledgers in a pool."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def load(self, server_id: str) -> Ledger:
        """The ledger as it is now, of version 0 where nothing was ever recorded."""
        return understood(server_id, await self._records.read(f"{_LEDGER}{server_id}"))

    async def check_term(self, server_id: str, term: int) -> None:
        """See that this hand may act.

        Raises:
            StaleTerm: a later leader has written.
        """
        stored = await self.load(server_id)
        if term < stored.term:
            raise StaleTerm(stored.term)

    async def record(self, server_id: str, term: int, ledger: Ledger) -> Ledger:
        """Store a ledger as the successor of the version that it carries.

        Raises:
            LedgerConflict: that version is not the newest.
            StaleTerm: a later leader has written.
        """
        name = f"{_LEDGER}{server_id}"
        before = await self._records.read(name)
        stored = understood(server_id, before)
        if term < stored.term:
            raise StaleTerm(stored.term)
        if ledger.version != stored.version:
            raise LedgerConflict(f"the ledger of server {server_id} is at version {stored.version}: read it again")
        following = dataclasses.replace(ledger, server_id=server_id, version=ledger.version + 1, term=term)
        await self._records.swap(name, before, encode(following).decode("utf-8"))
        return following


def name_of(server_id: str) -> str:
    """The name of a server's ledger."""
    return f"{_LEDGER}{server_id}"


def understood(server_id: str, record: Text | None) -> Ledger:
    """The ledger in a record.

    Raises:
        Retry: it cannot be read.
    """
    if record is None or record.version == 0:
        return Ledger(server_id)
    try:
        ledger = decode(record.text.encode("utf-8"))
    except ValueError as error:
        raise Retry(f"the ledger of server {server_id} cannot be read: {str(error).splitlines()[0]}") from error
    if ledger.server_id != server_id:
        raise Retry(f"the ledger of server {server_id} is that of {ledger.server_id}")
    return ledger
