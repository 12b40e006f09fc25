"""What does not answer: the API server in the middle of the work, and a source that is cut off and goes on serving."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import psutil
import pytest

from demo.world import phase_is, ready
from lifeboat.engines.ledger import FailoverStage
from tests.e2e.conftest import Site
from tests.operator.conftest import SERVER_ID, ShopWorld, until

pytestmark = [pytest.mark.timeout(900), pytest.mark.qemu]
OUTAGE_SECONDS = 60
GROWTH_BYTES = 50 << 20


def condition(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(c for c in found["status"]["conditions"] if c["type"] == name)


def stage(world: ShopWorld) -> FailoverStage | None:
    record = world.ledger().failover
    return record.stage if record is not None else None


def test_points_are_taken_and_writes_are_copied_for_a_minute_without_an_api_server(
    world: ShopWorld, source: Site
) -> None:
    pid, said = world.start_operator(), world.spoken()
    memory = psutil.Process(pid).memory_info().rss
    began = datetime.now(UTC)
    world.control_plane.stop()
    try:
        number = 1000

        def minute_is_over() -> bool:
            nonlocal number
            source.write(number)
            number += 1
            return (datetime.now(UTC) - began).total_seconds() > OUTAGE_SECONDS

        until(minute_is_over, OUTAGE_SECONDS + 60)
    finally:
        world.control_plane.start()
    taken = [point["name"] for point in world.points() if datetime.fromisoformat(point["time"]) > began]
    assert len(taken) >= OUTAGE_SECONDS // 10 - 1, taken
    found = world.until(
        "ps", SERVER_ID, lambda ps: {p["name"] for p in ps["status"]["recoveryPoints"]} >= set(taken), seconds=60
    )
    assert (found["status"]["phase"], found["status"]["lagSeconds"]) == ("Replicating", 0)
    assert ready(found)
    assert world.start_operator() == pid, "the process that was there is there"
    assert psutil.Process(pid).memory_info().rss < memory + GROWTH_BYTES
    log = world.said(said)
    assert "no longer acting" not in log
    assert "Traceback" not in log
    assert log.count("the status could not be written") <= 6, "what is said all the time is not heard"


def test_a_failover_goes_on_to_its_end_without_an_api_server(world: ShopWorld, source: Site, recovered: Site) -> None:
    source.write(2000)
    rows, pid = source.rows(), world.start_operator()
    world.fail_over("no-api")
    until(lambda: stage(world) is not None)
    world.control_plane.stop()
    try:
        until(lambda: stage(world) is FailoverStage.AWAITING_COMMIT, 120)
        recovered.write(2001)
        assert recovered.rows() == [*rows, 2001]
    finally:
        world.control_plane.start()
    found = world.until("fo", "no-api", lambda fo: phase_is("AwaitingCommit")(fo) and ready(fo), seconds=60)
    assert found["status"]["result"] == "Passed"
    assert condition(found, "SourceFenced")["status"] == "True"
    assert world.start_operator() == pid
    world.until("ps", SERVER_ID, phase_is("FailedOver"), seconds=30)
    world.roll_back("no-api")


def test_a_source_that_is_cut_off_is_fenced_first_thing_when_its_site_answers(
    world: ShopWorld, source: Site, recovered: Site
) -> None:
    source.write(3000)
    world.silence("zone-a")
    world.fail_over("cut-off")
    found = world.until("fo", "cut-off", phase_is("AwaitingCommit"), seconds=180)
    fenced = condition(found, "SourceFenced")
    assert fenced["status"] == "Unknown"
    assert "may still" in fenced["message"] or "may still" in condition(found, "Ready")["message"], found["status"]
    source.write(3001)
    assert 3000 in recovered.rows()
    world.answer("zone-a")
    pid_file = world.zones / "zone-a/servers" / SERVER_ID / "machine.pid"
    took = until(lambda: not psutil.pid_exists(int(pid_file.read_text())) if pid_file.exists() else True, 30)
    assert took < 5, f"it went on serving for {took:.1f} s"
    world.until("fo", "cut-off", lambda fo: condition(fo, "SourceFenced")["status"] == "True", seconds=15)
    command = [sys.executable, "-m", "lifeboat", "machine", "start", str(world.zones / "zone-a"), SERVER_ID]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "fenced" in refused.stderr
    assert "rollback" in refused.stderr, "it says what lifts the fence"
    assert 3000 in recovered.rows()
    world.roll_back("cut-off")
    assert 3001 in source.rows(), "what the source wrote after the failover is on its own disks again"
