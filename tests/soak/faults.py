"""What goes wrong: each fault begins, lasts, and is over; some are over at once.

To add one, write a function that hurts and returns how it is undone (None where there is nothing to undo), or raises
`NotNow`, and give it a row in `FAULTS`.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

from demo import web
from demo.controlplane.plane import ControlPlaneError
from lifeboat.engines.ledger import Direction
from tests.faults.relay import Relay
from tests.soak import places
from tests.soak.world import SoakWorld, kill

SLOW_LINK = 200_000
"""Bytes per second."""

Undo = Callable[[], None]


class NotNow(Exception):
    """Raised where a fault makes no sense at the moment."""


@dataclass(frozen=True)
class Hurt:
    """What a fault has in hand; `server` is the one that it is about, if it is about one."""

    world: SoakWorld
    server: str
    chance: random.Random


Fault = Callable[[Hurt], Undo | None]


def operator_killed(hurt: Hurt) -> Undo | None:
    """SIGKILL, and a start some seconds later."""
    hurt.world.stop_operator(signal.SIGKILL)

    def start() -> None:
        hurt.world.launch_operator()

    return start


def operator_stopped(hurt: Hurt) -> Undo | None:
    """SIGSTOP, and SIGCONT later: before or after its lease has run out."""
    pid, _ = hurt.world.launch_operator()
    os.kill(pid, signal.SIGSTOP)

    def resume() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    return resume


def second_operator(hurt: Hurt) -> Undo | None:
    """Another operator, started by mistake."""
    hurt.world.launch_operator("operator-2")
    how = hurt.chance.choice([signal.SIGTERM, signal.SIGKILL])
    return lambda: hurt.world.stop_operator(how, "operator-2")


def api_server_away(hurt: Hurt) -> Undo | None:
    """API server and etcd are stopped, and come back with what they had."""
    plane = hurt.world.control_plane
    if not plane.running:
        raise NotNow
    plane.stop()

    def start() -> None:
        with contextlib.suppress(ControlPlaneError):
            plane.start()

    return start


def primary_silent(hurt: Hurt) -> Undo | None:
    """The primary zone does not answer; what runs there goes on."""
    hurt.world.silence("zone-a")
    return lambda: hurt.world.answer("zone-a")


def recovery_silent(hurt: Hurt) -> Undo | None:
    """The recovery zone does not answer; what runs there goes on."""
    hurt.world.silence("zone-b")
    return lambda: hurt.world.answer("zone-b")


def replica_killed(hurt: Hurt) -> Undo | None:
    """SIGKILL of the storage daemon that takes the copy."""
    _kill_one(hurt, hurt.world.replica_pids(hurt.server))
    return None


def line_killed(hurt: Hurt) -> Undo | None:
    """SIGKILL of the process that carries the copy, at whichever site it runs."""
    _kill_one(hurt, hurt.world.line_pids(hurt.server))
    return None


def link_swallows(hurt: Hurt) -> Undo | None:
    """The link to the zone of the replica takes everything and lets nothing through."""
    relay = _relay(hurt)
    relay.swallow()
    return relay.heal


def link_refuses(hurt: Hurt) -> Undo | None:
    """The link to the zone of the replica is closed, and refuses whoever comes."""
    relay = _relay(hurt)
    relay.refuse()
    return relay.heal


def link_crawls(hurt: Hurt) -> Undo | None:
    """The link to the zone of the replica is very slow."""
    relay = _relay(hurt)
    relay.limit(SLOW_LINK)
    return relay.heal


def _relay(hurt: Hurt) -> Relay:
    ledger = hurt.world.ledger(hurt.server)
    back = ledger is not None and ledger.direction is Direction.REVERSE
    return hurt.world.relays["zone-a" if back else "zone-b"]


def server_killed(hurt: Hurt) -> Undo | None:
    """A power cut where the server serves; its owner starts it later, if the zone lets him."""
    place = _place(hurt)
    pid = places.pid(hurt.world, hurt.server, place)
    if pid is None:
        raise NotNow
    kill(pid)

    def owner_starts() -> None:
        if hurt.world.answers(place.zone):
            hurt.world.owner_starts(hurt.server, place.zone)

    return owner_starts


def server_reboots(hurt: Hurt) -> Undo | None:
    """The guest reboots by itself."""
    try:
        web.get(f"http://{_place(hurt).host}/cgi-bin/reboot", 5.0)
    except OSError as error:
        raise NotNow from error
    return None


def launched_killed(hurt: Hurt) -> Undo | None:
    """SIGKILL of any machine that was launched."""
    _kill_one(hurt, list(hurt.world.launched(hurt.server).values()))
    return None


def _kill_one(hurt: Hurt, pids: list[int]) -> None:
    if not pids:
        raise NotNow
    kill(hurt.chance.choice(sorted(pids)))


def _place(hurt: Hurt) -> places.Place:
    found = places.serving(hurt.world, hurt.server, hurt.world.ledger(hurt.server))
    if found is None:
        raise NotNow
    return found


def disk_full(hurt: Hurt) -> Undo | None:
    """Something fills the recovery zone's disk."""
    filler = hurt.world.fill()
    if filler is None:
        raise NotNow
    return lambda: filler.unlink(missing_ok=True)


# weight, how long in seconds from and to, what it is
FAULTS: tuple[tuple[int, float, float, Fault], ...] = (
    (5, 0.5, 5, operator_killed),
    (2, 3, 20, operator_stopped),
    (1, 10, 40, second_operator),
    (2, 5, 20, api_server_away),
    (2, 3, 25, primary_silent),
    (1, 3, 12, recovery_silent),
    (3, 0, 0, replica_killed),
    (3, 0, 0, line_killed),
    (2, 2, 20, link_swallows),
    (2, 2, 20, link_refuses),
    (2, 2, 20, link_crawls),
    (3, 3, 20, server_killed),
    (1, 0, 0, server_reboots),
    (1, 0, 0, launched_killed),
    (2, 5, 20, disk_full),
)
