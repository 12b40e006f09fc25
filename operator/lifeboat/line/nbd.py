"""What the line needs to know of the NBD protocol."""

from __future__ import annotations

import struct

HELLO = b"NBDMAGICIHAVEOPT"
GREETING = 18
"""Bytes of the server's first words: HELLO and flags."""
GO = 7
OPTION = struct.Struct(">QII")
OPTION_MAGIC = 0x49484156454F5054
OPTION_REPLY = struct.Struct(">QIII")
OPTION_REPLY_MAGIC = 0x3E889045565A9
ACK, INFO = 1, 3
CAN_FLUSH = 1 << 2
REQUEST = struct.Struct(">IHHQQI")
REQUEST_MAGIC = 0x25609513
SIMPLE = struct.Struct(">IIQ")
SIMPLE_MAGIC = 0x67446698
STRUCTURED = struct.Struct(">IHHQI")
STRUCTURED_MAGIC = 0x668E33EF
READ, WRITE, DISCONNECT, FLUSH, TRIM, CACHE, ZERO, STATUS = range(8)
CHANGING = {WRITE, FLUSH, TRIM, ZERO}
MAY_TAKE_LONG = {READ, TRIM, CACHE, ZERO, STATUS}
DONE = 1
ERROR_CHUNK = 1 << 15
NOT_SUPPORTED = 95


def export_asked(said: bytes) -> str | None:
    """Which export a client asks for in what it has said of its handshake; None before it does."""
    place = 4
    while len(said) - place >= OPTION.size:
        _, option, length = OPTION.unpack_from(said, place)
        place += OPTION.size
        if option == GO and len(said) - place >= length:
            (size,) = struct.unpack_from(">I", said, place)
            return said[place + 4 : place + 4 + size].decode("utf-8", "replace")
        place += length
    return None
