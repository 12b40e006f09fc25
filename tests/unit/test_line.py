"""When a line breaks, and what it lets through: without QEMU, on pairs of sockets."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from lifeboat.line import nbd
from lifeboat.line.connection import Connection
from lifeboat.line.watch import OWN, Broken, Request, Watch

MIB = 1 << 20


def watch(kind: int = nbd.WRITE, length: int = 4096, end: int = 0) -> Watch:
    made = Watch()
    made.begin(1, Request(kind, length, 0.0, end))
    return made


def kind(found: Broken | None) -> str | None:
    return None if found is None else found.kind


def test_nothing_under_way_is_never_a_break() -> None:
    assert Watch().problem(1e6) is None


def test_silence_is_a_break_and_an_answer_begins_the_wait_anew() -> None:
    made = watch()
    assert made.problem(0.65) is None
    assert kind(made.problem(0.75)) == "silent"
    made.begin(2, Request(nbd.WRITE, 4096, 0.1, 0))
    made.moved = 0.6
    made.end(1, 0.6)
    assert made.problem(1.2) is None
    assert kind(made.problem(1.35)) == "silent"


def test_bytes_that_the_other_side_takes_count_until_it_has_all_of_the_oldest_request() -> None:
    made = watch(end=1000)
    made.taken(500, 0.6)
    assert made.problem(1.2) is None
    made.taken(1000, 1.2)
    made.taken(2000, 1.8)
    assert kind(made.problem(1.95)) == "silent", "what follows it says nothing of its answer"


def test_a_slow_connection_is_given_the_time_that_its_pace_asks_for() -> None:
    made = watch(length=MIB)
    made.begin(2, Request(nbd.WRITE, MIB, 0.0, 0))
    made.moved = 1.0
    made.end(1, 1.0)
    assert made.problem(2.9) is None, "1 MiB/s: the next one is due after a second, and may be late"
    assert kind(made.problem(3.1)) == "silent"


def test_a_disk_that_does_not_keep_up_is_told_from_a_dead_link() -> None:
    for what, limit in ((nbd.WRITE, 2.0), (nbd.ZERO, 10.0)):
        made = watch(what, length=512)
        made.moved = limit - 0.1
        assert made.problem(limit - 0.05) is None
        made.moved = limit
        assert kind(made.problem(limit + 0.05)) == "slow"


class Ends:
    """A connection with both its peers in hand, past the handshake."""

    def __init__(self) -> None:
        self.qemu, near = socket.socketpair()
        self.replica, far = socket.socketpair()
        self.qemu.settimeout(1)
        self.replica.settimeout(1)
        self.connection = Connection(near, far, 0.0)
        self.connection.transmitting = True

    def request(self, kind: int, handle: int, length: int = 0, payload: bytes = b"") -> None:
        self.qemu.sendall(nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, kind, handle, 0, length) + payload)
        self.connection.upward(0.0)

    def answer(self, data: bytes) -> None:
        self.replica.sendall(data)
        self.connection.downward(0.0)

    def nothing_for_qemu(self) -> bool:
        self.qemu.settimeout(0)
        with pytest.raises(BlockingIOError):
            self.qemu.recv(1)
        return True

    def close(self) -> None:
        self.connection.close_far()
        self.connection.close_near()
        self.qemu.close()
        self.replica.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


def simple(handle: int, fault: int = 0) -> bytes:
    return nbd.SIMPLE.pack(nbd.SIMPLE_MAGIC, fault, handle)


def test_a_write_goes_through_whole_whatever_pieces_it_comes_in(ends: Ends) -> None:
    payload = bytes(range(256)) * 1024
    whole = nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.WRITE, 7, 0, len(payload)) + payload
    got = b""
    for start in range(0, len(whole), 50_001):
        ends.qemu.sendall(whole[start : start + 50_001])
        ends.connection.upward(0.0)
        while len(got) < min(start + 50_001, len(whole)):
            got += ends.replica.recv(MIB)
    assert got == whole
    ends.answer(simple(7)[:9])
    assert ends.nothing_for_qemu(), "half an answer is none"
    ends.answer(simple(7)[9:])
    assert ends.qemu.recv(100) == simple(7)
    assert not ends.connection.watch.under_way


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize(("fault", "expected"), [(errno.ENOSPC, "full"), (errno.EIO, "failed")])
def test_a_write_that_failed_breaks_the_line_before_qemu_hears_of_it(
    ends: Ends, structured: bool, fault: int, expected: str
) -> None:
    ends.request(nbd.WRITE, 7, 4, b"data")
    chunk = nbd.STRUCTURED.pack(nbd.STRUCTURED_MAGIC, nbd.DONE, nbd.ERROR_CHUNK | 1, 7, 6)
    error = fault.to_bytes(4, "big") + bytes(2)
    with pytest.raises(Broken) as caught:
        ends.answer(chunk + error if structured else simple(7, fault))
    assert caught.value.kind == expected
    assert ends.nothing_for_qemu()


def test_a_quick_clearing_that_is_not_possible_is_no_break(ends: Ends) -> None:
    ends.request(nbd.ZERO, 7, 4096)
    ends.answer(simple(7, nbd.NOT_SUPPORTED))
    assert ends.qemu.recv(100) == simple(7, nbd.NOT_SUPPORTED)


def test_an_answer_to_the_line_itself_is_not_passed_on(ends: Ends) -> None:
    ends.connection.watch.begin(OWN, Request(nbd.READ, 512, 0.0, 0))
    ends.answer(simple(OWN) + bytes(512))
    assert ends.nothing_for_qemu()
    assert not ends.connection.watch.under_way


def test_the_handshake_is_followed_and_flushing_hidden(ends: Ends) -> None:
    ends.connection.transmitting = False
    ends.answer(nbd.HELLO + b"\0\3")
    info = b"\0\0" + (MIB).to_bytes(8, "big") + (0xFF).to_bytes(2, "big")
    ends.answer(nbd.OPTION_REPLY.pack(nbd.OPTION_REPLY_MAGIC, nbd.GO, nbd.INFO, len(info)) + info)
    states = [ends.connection.transmitting]
    ends.answer(nbd.OPTION_REPLY.pack(nbd.OPTION_REPLY_MAGIC, nbd.GO, nbd.ACK, 0))
    states.append(ends.connection.transmitting)
    assert states == [False, True]
    seen = ends.qemu.recv(1000)
    assert int.from_bytes(seen[18 + 30 : 18 + 32], "big") == 0xFF & ~nbd.CAN_FLUSH


def test_either_side_that_hangs_up_breaks_the_line(ends: Ends) -> None:
    ends.replica.close()
    with pytest.raises(Broken) as caught:
        ends.connection.downward(0.0)
    assert caught.value.kind == "closed"
    ends.qemu.close()
    with pytest.raises(Broken) as caught:
        ends.connection.upward(0.0)
    assert caught.value.kind == "source"
