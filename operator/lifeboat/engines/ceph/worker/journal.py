"""How far the clients of an image's journal have got, as the journal itself has it.

What rbd-mirror tells of itself (`mirror image status`) is up to 30 s old, and that is not to be had sooner. The journal
is the truth: the image's writer and each peer note in it up to where they are done. Ceph's bindings do not offer that,
so its answer is decoded here. Each part carries its length, so what a later version adds is skipped.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # What decodes can be tried where Ceph's bindings are not installed.
    from lifeboat.engines.ceph.worker.cluster import Cluster

_MOST = 64
# An entry: a mark, its version, its number, its tag, and the length of what it holds; then that, and a checksum.
_ENTRY = struct.Struct("<QBQQI")
_MAGIC = 0x3141592653589793
_CHECKSUM = 4
_PART = 4 << 20
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


def ends(cluster: Cluster, pool: str, image_ids: list[str]) -> dict[str, list[int]]:
    """The last entry in each image's journal: the tag of its writer, and its number.

    The image's own client notes up to where it is done only now and then, and one that was killed never will. So the
    entries themselves are read: as a rule some megabytes, and 64 at most.
    """
    return {image_id: list(_end(cluster, pool, image_id)) for image_id in image_ids}


def tags(cluster: Cluster, pool: str, image_ids: list[str]) -> dict[str, int]:
    """How many writers each image's journal has seen. That of a copy counts the writers of which something arrived."""
    with cluster.pool(pool) as ioctx:
        return {image_id: _asked(ioctx, image_id, "get_next_tag_tid", "Q") for image_id in image_ids}


def _end(cluster: Cluster, pool: str, image_id: str) -> tuple[int, int]:
    with cluster.pool(pool) as ioctx:
        data_pool = _asked(ioctx, image_id, "get_pool_id", "q")
        width = _asked(ioctx, image_id, "get_splay_width", "B")
        active = _asked(ioctx, image_id, "get_active_set", "Q")
        least = _asked(ioctx, image_id, "get_minimum_set", "Q")
        if data_pool >= 0:
            raise ValueError(f"the journal of image {image_id} is in a pool of its own, which is not understood")
        prefix = f"journal_data.{ioctx.get_pool_id()}.{image_id}"
        for number in range(active, least - 1, -1):
            objects = (f"{prefix}.{each}" for each in range(number * width, (number + 1) * width))
            found = [last for each in objects if (last := last_entry(_read(ioctx, each))) is not None]
            if found:
                return max(found)
    return 0, -1


def last_entry(data: bytes) -> tuple[int, int] | None:
    """The last entry in an object of a journal, None where it has none."""
    at, found = 0, None
    while at + _ENTRY.size <= len(data):
        magic, _, entry, tag, length = _ENTRY.unpack_from(data, at)
        if magic != _MAGIC:
            raise ValueError("the entries of a journal cannot be read: is this Ceph newer than what is known here?")
        found = (tag, entry)
        at += _ENTRY.size + length + _CHECKSUM
    return found


def _asked(ioctx: Any, image_id: str, method: str, kind: str) -> int:  # noqa: ANN401 - the bindings have no types
    _, answer = ioctx.execute(f"journal.{image_id}", "journal", method, b"")
    return _Bytes(answer).number(kind)


def _read(ioctx: Any, name: str) -> bytes:  # noqa: ANN401 - as above
    found = bytearray()
    while True:
        try:
            part = ioctx.read(name, _PART, len(found))
        except Exception as error:
            # Ceph's own class of errors is not known here, its number is: the object is not there (any more).
            if getattr(error, "errno", 0) != errno.ENOENT:
                raise
            part = b""
        found += part
        if len(part) < _PART:
            return bytes(found)
