"""The ledger of this engine: one file per version, so that two writers can never both be the next.

The file of a version is created under its final name by a link, complete and durable; whoever finds the name taken has
lost. The highest version counts. Nothing is locked, so nothing can stay locked.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
from pathlib import Path

from lifeboat.engines.contract import EngineError, LedgerConflict, Retry, StaleTerm
from lifeboat.engines.facts import Fact, Known, Unknown
from lifeboat.engines.ledger import Ledger, decode, encode
from lifeboat.engines.qemu.zones import Zone
from lifeboat.host import files

_NAME = re.compile(r"(\d{8,})\.json")
_KEPT = 5


class Ledgers:
    """The ledgers of all servers; what was read is kept as long as no newer version is there."""

    def __init__(self) -> None:
        self._read: dict[Path, Ledger] = {}

    def load(self, zone: Zone, server_id: str) -> Ledger:
        """The newest version, or version 0 where nothing was ever recorded. Blocking, but short.

        Raises:
            Retry: the newest version cannot be read; the message names the file.
        """
        versions = _versions(_folder(zone, server_id))
        if not versions:
            return Ledger(server_id)
        path = versions[-1]
        known = self._read.get(path)
        if known is not None:
            return known
        try:
            ledger = decode(path.read_bytes())
        except (OSError, ValueError) as error:
            raise Retry(f"{path} is not a ledger: {_first_line(error)}") from error
        if ledger.version != _version(path) or ledger.server_id != server_id:
            raise Retry(f"{path} is not version {_version(path)} of the ledger of server {server_id}")
        for old in versions:
            self._read.pop(old, None)
        self._read[path] = ledger
        return ledger

    def fact(self, zone: Zone, server_id: str) -> Fact[Ledger]:
        """The newest version as a fact."""
        try:
            return Known(self.load(zone, server_id))
        except (EngineError, OSError) as error:
            return Unknown(str(error))

    def check_term(self, zone: Zone, server_id: str, term: int) -> None:
        """See that this hand may act.

        Raises:
            StaleTerm: a later leader has written.
        """
        stored = self.load(zone, server_id)
        if term < stored.term:
            raise StaleTerm(stored.term)

    async def record(self, zone: Zone, server_id: str, term: int, ledger: Ledger, primary: Zone | None) -> Ledger:
        """Store a ledger as the successor of the version that it carries.

        Raises:
            LedgerConflict: that version is not the newest.
            StaleTerm: a later leader has written.
            NoSpace: the zone's disk is full.
        """
        stored = self.load(zone, server_id)
        if term < stored.term:
            raise StaleTerm(stored.term)
        if ledger.version != stored.version:
            raise LedgerConflict(f"the ledger of server {server_id} is at version {stored.version}: read it again")
        folder = _folder(zone, server_id)
        following = dataclasses.replace(ledger, server_id=server_id, version=ledger.version + 1, term=term)
        data = encode(following)
        path = folder / f"{following.version:08d}.json"

        def write() -> None:
            files.make_folder(folder)
            files.create_exclusively(path, data)

        with files.disk_errors(zone.name):
            try:
                await asyncio.to_thread(files.with_room, zone.folder, write)
            except FileExistsError as error:
                raise LedgerConflict(f"somebody else wrote version {following.version} of {server_id}") from error
        versions = _versions(folder)
        if versions[-1] != path:
            # Others went on meanwhile. Were we first, they read ours; were we late, ours is below theirs: either way
            # theirs counts, and the caller reads again.
            raise LedgerConflict(f"the ledger of server {server_id} went on to version {_version(versions[-1])}")
        for old in versions[:-_KEPT]:
            files.remove(old)
        if primary is not None and primary.inventory.server(server_id) is not None:
            # For people, in case the recovery zone is lost; it decides nothing.
            with contextlib.suppress(OSError):
                copy = primary.server_folder(server_id) / "ledger.json"
                await asyncio.to_thread(files.make_folder, copy.parent)
                await asyncio.to_thread(files.write_atomically, copy, data)
        return following


def _folder(zone: Zone, server_id: str) -> Path:
    return zone.replica_folder(server_id) / "ledger"


def _versions(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    except FileNotFoundError:
        return []
    return sorted(found, key=_version)


def _version(path: Path) -> int:
    return int(path.stem)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
