"""The columns of the matrix: how each fault is done and how it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from demo.world import WorldError, end
from lifeboat.engines.ledger import DrillStage
from lifeboat.lifecycle.machines import drill_machine, failover_machine
from tests.e2e.conftest import Site
from tests.faults.faultworld import FaultWorld
from tests.faults.places import SOURCE

OPERATOR_GONE_SECONDS: Final = 2.0
API_GONE_SECONDS: Final = 12.0


@dataclass(frozen=True)
class Fault:
    """A thing that goes wrong.

    Args:
        strike: Does it.
        heal: Ends it, where it does not end by itself; a fault with an end lasts until what it does was told.
        stops_source: Whether the source cannot answer writes meanwhile.
    """

    name: str
    strike: Callable[[FaultWorld], None]
    heal: Callable[[FaultWorld], None] | None = None
    stops_source: bool = False


def _kill_operator(world: FaultWorld) -> None:
    world.stop_operator(signal.SIGKILL)
    time.sleep(OPERATOR_GONE_SECONDS)  # how long it is away is part of the fault
    world.forget_hold()
    world.start_operator()


def _stop_api(world: FaultWorld) -> None:
    world.control_plane.stop()
    world.release()
    time.sleep(API_GONE_SECONDS)  # likewise: longer than a leader may believe that it leads
    world.control_plane.start()


def _kill_replica(world: FaultWorld) -> None:
    assert world.daemon.exists()
    end(world.daemon)


def _kill_source(world: FaultWorld) -> None:
    end(world.source)


def _start_source(world: FaultWorld) -> None:
    try:
        world.start_server(world.server, world.source_zone)
    except WorldError as error:
        # Its owner cannot start what was failed over meanwhile.
        if "is fenced" not in str(error):
            raise


def _reboot_source(_: FaultWorld) -> None:
    assert Site(SOURCE).get("/cgi-bin/reboot") == "ok"


def _fill(world: FaultWorld) -> None:
    with world.filler.open("wb") as filler:
        while free := shutil.disk_usage(world.filler.parent).free:
            with contextlib.suppress(OSError):  # somebody else had some of it meanwhile
                os.posix_fallocate(filler.fileno(), filler.tell(), free)
                filler.seek(free, os.SEEK_CUR)


def _free(world: FaultWorld) -> None:
    world.filler.unlink()


def _kill_machine(world: FaultWorld) -> None:
    ledger = world.ledger()
    drill = next((drill for drill in ledger.drills if drill.stage is not DrillStage.LAUNCHING), None)
    if drill is not None:
        name = drill_machine(drill.name)
    else:
        assert ledger.failover is not None
        running = [failover_machine(ledger, attempt.number) for attempt in ledger.failover.attempts]
        # Where it was halted a moment ago, it is gone already.
        name = next((each for each in running if world.machine(each).exists()), running[-1])
    end(world.machine(name))


FAULTS: Final[Mapping[str, Fault]] = {
    fault.name: fault
    for fault in (
        Fault("operator-killed", _kill_operator),
        Fault("api-stopped", _stop_api),
        Fault("replica-killed", _kill_replica),
        Fault("source-killed", _kill_source, _start_source, stops_source=True),
        Fault("source-rebooted", _reboot_source, stops_source=True),
        Fault("link-cut", lambda world: world.cut_link(), lambda world: world.join_link()),
        Fault("disk-full", _fill, _free),
        Fault("zone-a-silent", lambda world: world.silence("zone-a"), lambda world: world.answer("zone-a")),
        Fault("zone-b-silent", lambda world: world.silence("zone-b"), lambda world: world.answer("zone-b")),
        Fault("machine-killed", _kill_machine),
    )
}
