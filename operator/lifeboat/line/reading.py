"""Reads what a replica's disks hold before a copy begins, and leaves their fingerprints: a program of its own.

It reads through the process that has the replica's disks open for itself alone, so nobody else can change them
meanwhile. Started as `python -I -S <this file> …`; where it fails, the sentence about why is the end of its output.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# Started without site packages, so that it is small: it finds itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lifeboat.line import fingerprints, nbd

_AT_ONCE = 16
_NO_ZEROES = 3
_TIMEOUT = 60.0


class Disk:
    """A disk that is offered over NBD."""

    def __init__(self, address: str, port: int, name: str) -> None:
        self._socket = socket.create_connection((address, port), timeout=_TIMEOUT)
        self._receive(nbd.GREETING)
        go = struct.pack(">I", len(name)) + name.encode() + struct.pack(">H", 0)
        self._socket.sendall(struct.pack(">I", _NO_ZEROES) + nbd.OPTION.pack(nbd.OPTION_MAGIC, nbd.GO, len(go)) + go)
        self.size = 0
        while True:
            _, _, reply, length = nbd.OPTION_REPLY.unpack(self._receive(nbd.OPTION_REPLY.size))
            data = self._receive(length)
            if reply == nbd.INFO and data[:2] == b"\0\0":
                (self.size,) = struct.unpack_from(">Q", data, 2)
            elif reply == nbd.ACK:
                return
            elif reply != nbd.INFO:
                raise OSError(f"disk {name} is not offered")

    def read(self, offset: int, length: int) -> bytes:
        """What the disk holds there."""
        self._socket.sendall(nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.READ, offset, offset, length))
        _, fault, _ = nbd.SIMPLE.unpack(self._receive(nbd.SIMPLE.size))
        if fault:
            raise OSError(fault, os.strerror(fault))
        return self._receive(length)

    def _receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            more = self._socket.recv(length - len(data))
            if not more:
                raise OSError("the connection was closed")
            data += more
        return bytes(data)


def _not_zeros(address: str, port: int, name: str) -> Iterator[tuple[int, int]]:
    """The runs of blocks that are not known to be zeros: first and end."""
    argv = ["qemu-img", "map", "--output=json", "-f", "raw", f"nbd://{address}:{port}/{name}"]
    answer = subprocess.run(argv, check=True, capture_output=True).stdout
    done = 0
    for part in json.loads(answer):
        if part["zero"]:
            continue
        first = max(done, part["start"] // fingerprints.BLOCK)
        done = max(first, fingerprints.blocks(part["start"] + part["length"]))
        yield first, done


def read(address: str, port: int, name: str, result: Path) -> None:
    """Leave the fingerprints of a disk, the whole file or none."""
    disk = Disk(address, port, name)
    unfinished = result.with_name(f"{result.name}.new")
    with unfinished.open("wb") as file:
        file.write(fingerprints.HEADER.pack(disk.size, 0))
        file.truncate(fingerprints.place(fingerprints.blocks(disk.size)))
        for first, end in _not_zeros(address, port, name):
            for block in range(first, end, _AT_ONCE):
                begin = block * fingerprints.BLOCK
                data = disk.read(begin, min(min(block + _AT_ONCE, end) * fingerprints.BLOCK, disk.size) - begin)
                file.seek(fingerprints.place(block))
                for at in range(0, len(data), fingerprints.BLOCK):
                    file.write(fingerprints.of(data[at : at + fingerprints.BLOCK]))
    unfinished.replace(result)


def main() -> None:
    """Read every disk."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pidfile", required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--disk", nargs=3, action="append", required=True, metavar=("NAME", "IMAGE", "RESULT"))
    given = parser.parse_args()
    Path(given.pidfile).write_text(str(os.getpid()), encoding="ascii")
    try:
        for name, image, result in given.disk:
            # What is left out of the copy has to be as safe as what is copied.
            with Path(image).open("rb") as file:
                os.fsync(file.fileno())
            read(given.address, given.port, name, Path(result))
    except subprocess.CalledProcessError as error:
        sys.exit(f"it cannot be read: {error.stderr.decode('utf-8', 'replace').strip()}")
    except OSError as error:
        sys.exit(f"it cannot be read: {error.strerror or error}")


if __name__ == "__main__":
    main()
