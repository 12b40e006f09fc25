"""The relay that stands for the network between the zones."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from tests.faults.relay import Relay

LISTEN = "127.0.31.9"
SERVES = "127.0.31.10"


@pytest.fixture
def port() -> Iterator[int]:
    """An echo at the far end."""
    with closing(socket.create_server((SERVES, 0))) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=echo, args=(connection,), daemon=True).start()

        def echo(connection: socket.socket) -> None:
            with connection:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def connect(port: int) -> socket.socket:
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection((LISTEN, port), timeout=10)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_what_was_swallowed_arrives_once_it_heals_and_not_before(port: int) -> None:
    with Relay(LISTEN, SERVES, lambda: [port]) as relay, connect(port) as client:
        client.sendall(b"one")
        assert client.recv(10) == b"one"
        relay.swallow()
        client.sendall(b"two")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(10)
        relay.heal()
        client.settimeout(10)
        assert client.recv(10) == b"two"


def test_a_refusing_relay_ends_connections_and_takes_none_until_it_heals(port: int) -> None:
    with Relay(LISTEN, SERVES, lambda: [port]) as relay:
        with connect(port) as client:
            client.sendall(b"one")
            assert client.recv(10) == b"one"
            relay.refuse()
            with suppress(ConnectionResetError):
                assert client.recv(10) == b"", "closed is as good as reset"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LISTEN, port), timeout=10)
        relay.heal()
        with connect(port) as again:
            again.sendall(b"two")
            assert again.recv(10) == b"two"


def test_a_limited_relay_is_slow_and_loses_nothing(port: int) -> None:
    with Relay(LISTEN, SERVES, lambda: [port]) as relay, connect(port) as client:
        relay.limit(1 << 20)
        began, sent, seen = time.monotonic(), b"x" * (256 << 10), 0
        client.sendall(sent)
        while seen < len(sent):
            seen += len(client.recv(1 << 16))
        assert time.monotonic() - began > 0.2
