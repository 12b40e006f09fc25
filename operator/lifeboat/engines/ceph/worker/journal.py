"""How far the clients of an image's journal have got, as the journal itself has it.

What rbd-mirror tells of itself (`mirror image status`) is up to 30 s old, and that is not to be had sooner. The journal
is the truth: the image's writer and each peer note in it up to where they are done. Ceph's bindings do not offer that,
so its answer is decoded here. Each part carries its length, so what a later version adds is skipped.
"""

from __future__ import annotations

import struct
from typing import Any

from lifeboat.engines.ceph.worker.cluster import Cluster

_MOST = 64
_PEER = 1
_PEER_STATES = {0: "syncing", 1: "replaying"}


class _Bytes:
    """A part of an answer that is read from its beginning."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        if len(found) != count:
            raise ValueError("the journal's clients cannot be read: is this Ceph newer than what is known here?")
        self._at += count
        return found

    def number(self, kind: str) -> int:
        (found,) = struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))
        return int(found)

    def block(self) -> bytes:
        return self.take(self.number("I"))

    def part(self) -> _Bytes:
        """A structure: its version, the oldest version that can read it, its length, and what it holds."""
        self.take(2)
        return _Bytes(self.block())


def clients(cluster: Cluster, pool: str, image_id: str) -> list[dict[str, Any]]:
    """The clients of an image's journal: the image's own has an empty `id`, a peer's is the uuid of its pool."""
    with cluster.pool(pool) as ioctx:
        question = struct.pack("<I", 0) + struct.pack("<Q", _MOST)
        _, answer = ioctx.execute(f"journal.{image_id}", "journal", "client_list", question)
    return decode(answer)


def decode(answer: bytes) -> list[dict[str, Any]]:
    """Read the answer of the class method `journal.client_list`."""
    data = _Bytes(answer)
    return [_client(data.part()) for _ in range(data.number("I"))]


def _client(client: _Bytes) -> dict[str, Any]:
    name = client.block().decode("utf-8")
    meta = _Bytes(client.block())
    positions = [list(_position(part)) for part in _positions(client.part())]
    found: dict[str, Any] = {"id": name, "positions": positions, "connected": client.number("B") == 0}
    if name:
        found |= _peer(meta.part())
    return found


def _positions(commit: _Bytes) -> list[_Bytes]:
    return [commit.part() for _ in range(commit.number("I"))]


def _position(part: _Bytes) -> tuple[int, int]:
    """The tag (it counts the writers) and the entry that a part of the journal is done with."""
    part.number("Q")
    return part.number("Q"), part.number("Q")


def _peer(meta: _Bytes) -> dict[str, Any]:
    """What a peer notes: its copy of the image, and whether that is still being made."""
    if meta.number("I") != _PEER:
        return {}
    return {"image_id": meta.block().decode("utf-8"), "state": _PEER_STATES.get(meta.number("I"), "unknown")}
