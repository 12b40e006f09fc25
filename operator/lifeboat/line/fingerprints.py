"""Fingerprints of what a replica's disk holds already, so that only what differs has to cross the line.

One file for each disk, with a fingerprint for each of its blocks. It is made before the first byte of a copy arrives
(`reading`), and belongs to the line from then on. Before the line lets through what changes a block, it forgets the
block's fingerprint, in the file itself: what is in there is true whenever the line ends, and the next line of the same
copy goes on with it.
"""

from __future__ import annotations

import mmap
import struct
from hashlib import blake2b
from pathlib import Path

BLOCK = 64 << 10
# The disk's size, and how many bytes the line did not have to let through.
HEADER = struct.Struct(">QQ")
_SIZE = 16
_ZEROS = bytes(BLOCK)
ZERO = bytes(_SIZE)
"""The fingerprint of a block of zeros: a file begins with nothing else."""
UNKNOWN = b"\xff" * _SIZE


def of(block: bytes) -> bytes:
    """The fingerprint of a block."""
    if block == (_ZEROS if len(block) == BLOCK else bytes(len(block))):
        return ZERO
    return blake2b(block, digest_size=_SIZE).digest()


def place(block: int) -> int:
    """Where in the file the fingerprint of a block is."""
    return HEADER.size + block * _SIZE


def blocks(size: int) -> int:
    """How many blocks a disk of that size has; the last one may be shorter."""
    return -(-size // BLOCK)


def left_out(path: Path) -> int:
    """How many bytes were not let through since they were there already; 0 where there is no such file."""
    try:
        with path.open("rb") as file:
            head = file.read(HEADER.size)
    except FileNotFoundError:
        return 0
    return int(HEADER.unpack(head)[1]) if len(head) == HEADER.size else 0


class Fingerprints:
    """What a disk at the replica is known to hold."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._size, self._left_out = HEADER.unpack_from(self._map)

    def tell_of(self, offset: int, length: int) -> bool:
        """Whether anything of a request may be there already: it is of whole blocks, and one of these is known."""
        end = offset + length
        if offset % BLOCK or (end % BLOCK and end != self._size) or not 0 < length <= self._size - offset:
            return False
        known = self._map[place(offset // BLOCK) : place(blocks(end))]
        return known != UNKNOWN * (len(known) // _SIZE)

    def differing(self, offset: int, length: int, payload: bytes | None) -> tuple[int, int]:
        """From where to where in a request that this tells of something differs; the same twice if nothing does.

        Without a payload the request is for zeros.
        """
        first, last = 0, length
        while first < last and self._same(offset, first, min(first + BLOCK, length), payload):
            first = min(first + BLOCK, length)
        while first < last and self._same(offset, (last - 1) // BLOCK * BLOCK, last, payload):
            last = (last - 1) // BLOCK * BLOCK
        self._left_out += length - (last - first)
        HEADER.pack_into(self._map, 0, self._size, self._left_out)
        return first, last

    def _same(self, offset: int, begin: int, end: int, payload: bytes | None) -> bool:
        where = place((offset + begin) // BLOCK)
        known = self._map[where : where + _SIZE]
        if known == UNKNOWN:
            return False
        return known == (ZERO if payload is None else of(payload[begin:end]))

    def forget(self, offset: int, length: int) -> None:
        """What is there is about to be changed."""
        first, end = offset // BLOCK, min(blocks(offset + length), blocks(self._size))
        if first < end:
            self._map[place(first) : place(end)] = UNKNOWN * (end - first)
