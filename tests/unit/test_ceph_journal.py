"""What a journal tells of its clients, and how old a copy is by that."""

from __future__ import annotations

import struct

import pytest

from lifeboat.engines.ceph.lags import Lags
from lifeboat.engines.ceph.worker import journal


def _part(body: bytes) -> bytes:
    return b"\x01\x01" + struct.pack("<I", len(body)) + body


def _block(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


def _client(name: bytes, meta: bytes, *positions: tuple[int, int, int]) -> bytes:
    """A client as Ceph 16.2 writes it; a position is an object's number, a writer's tag, and an entry."""
    commit = struct.pack("<I", len(positions)) + b"".join(_part(struct.pack("<QQQ", *each)) for each in positions)
    return _part(_block(name) + _block(_part(meta)) + _part(commit) + b"\x00")


_OWN = _client(b"", bytes(13), (1, 5, 1), (0, 5, 0), (3, 2, 3), (2, 2, 2))
# A peer: its sort, its image, that it replays, how many objects it copied, and that no copy is under way.
_META = struct.pack("<I", 1) + _block(b"101895995f27") + struct.pack("<IQII", 1, 16, 0, 0)
_PEER = _client(b"02ed2f2b", _META, (1, 3, 1), (0, 3, 0))


def test_the_clients_of_a_journal_are_read() -> None:
    own, peer = journal.decode(struct.pack("<I", 2) + _OWN + _PEER)
    assert own == {"id": "", "positions": [[5, 1], [5, 0], [2, 3], [2, 2]], "connected": True}
    assert peer == {
        "id": "02ed2f2b",
        "positions": [[3, 1], [3, 0]],
        "connected": True,
        "image_id": "101895995f27",
        "state": "replaying",
    }


def test_what_breaks_off_is_said_to_be_unreadable() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        journal.decode(struct.pack("<I", 2) + _OWN)


def test_a_copy_is_as_old_as_the_first_thing_that_it_lacks() -> None:
    now = 0.0
    lags = Lags(lambda: now)
    assert lags.lag("image", (1, 5), (1, 5)) == 0.0
    assert 0.0 < lags.lag("image", (1, 6), (1, 5)) < 0.01, "seen just now, and yet not arrived"
    now = 3.0
    assert lags.lag("image", (1, 9), (1, 5)) == 3.0
    now = 5.0
    assert lags.lag("image", (1, 9), (1, 6)) == 2.0, "it has what was seen first, not what was seen at 3"
    now = 6.0
    assert lags.lag("image", (1, 9), (1, 9)) == 0.0
    assert 0.0 < lags.lag("other", (2, 0), (1, 99)) < 0.01
    now = 7.0
    assert lags.lag("other", (2, 0), (1, 99)) == 1.0, "another writer is later than any entry of the one before"


def test_a_copy_that_stays_behind_for_long_is_behind_by_all_of_it() -> None:
    now = 0.0
    lags = Lags(lambda: now)
    for _ in range(5000):
        now += 1.0
        told = lags.lag("image", (1, int(now)), (1, 0))
    assert told == 4999.0
