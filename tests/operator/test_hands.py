"""One hand: operators as processes that are killed, stopped, doubled, in the middle of whatever they do."""

from __future__ import annotations

import json
import random
import re
import signal
import time

import psutil
import pytest

from demo.world import phase_is, ready
from lifeboat.engines.ledger import FailoverStage
from tests.e2e.conftest import Site
from tests.operator.conftest import SERVER_ID, ShopWorld, until

pytestmark = [pytest.mark.timeout(900), pytest.mark.qemu]
VERB = re.compile(r" INFO +([A-Z][A-Za-z]+)\(.* operation=")


def stage(world: ShopWorld) -> FailoverStage | None:
    record = world.ledger().failover
    return record.stage if record is not None else None


def verbs(said: str) -> list[str]:
    """What an operator has had the engine do, by its log."""
    return VERB.findall(said)


def test_an_operator_that_was_killed_and_started_again_does_not_wait_for_its_own_lease(world: ShopWorld) -> None:
    world.stop_operator(signal.SIGKILL)
    said = world.spoken()
    began = time.monotonic()
    world.start_operator()
    until(lambda: " acting" in world.said(said), 30)
    assert time.monotonic() - began < 10, "a lease lasts 15 s"
    assert "Traceback" not in world.said(said)


def test_a_second_operator_waits_and_follows_one_that_was_killed(world: ShopWorld) -> None:
    said = world.spoken("operator-2")
    world.start_operator("operator-2")
    try:
        time.sleep(5)
        assert not verbs(world.said(said, "operator-2"))
        assert " acting" not in world.said(said, "operator-2")
        began = time.monotonic()
        world.stop_operator(signal.SIGKILL)
        world.fail_over("follow")
        world.until("fo", "follow", lambda fo: bool(fo.get("status", {}).get("phase")), seconds=30)
        assert time.monotonic() - began < 30
        world.until("fo", "follow", lambda fo: phase_is("AwaitingCommit")(fo) and ready(fo))
        world.roll_back("follow")
    finally:
        world.stop_operator(name="operator-2")


def test_a_leader_that_stood_still_past_its_lease_acts_no_more_and_then_follows(world: ShopWorld) -> None:
    pid = world.start_operator()
    followed = world.spoken("operator-2")
    world.start_operator("operator-2")
    first = psutil.Process(pid)
    try:
        # In the middle of a failover, so that it has something to go on with.
        world.fail_over("still")
        until(lambda: stage(world) is not None)
        first.suspend()
        try:
            world.until("fo", "still", phase_is("AwaitingCommit"), seconds=120)
            term, version = world.ledger().term, world.ledger().version
            said, machines = world.spoken(), world.machines()
        finally:
            first.resume()
        until(lambda: "no longer acting" in world.said(said), 20)
        time.sleep(5)
        log = world.said(said)
        # One act may have been under way when it stood still; its end is told when it goes on.
        acted, lost = verbs(log), re.search(r"lease is lost|has taken over", log)
        assert len(acted) <= 1, f"the engine did more for it than it was asked before: {acted}"
        assert lost, log
        assert not verbs(log[lost.end() :]), "the engine did nothing for it after that"
        assert "Traceback" not in log
        assert world.machines() == machines
        assert (world.ledger().term, world.ledger().version - version <= 1) == (term, True)
        # It follows: once the second one is gone, it acts in a term of its own.
        world.stop_operator(signal.SIGKILL, name="operator-2")
        world.roll_back("still")
        assert world.ledger().term > term
        assert verbs(world.said(said))
    finally:
        world.stop_operator(name="operator-2")
    assert "Traceback" not in world.said(followed, "operator-2")


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_again_and_again_a_failover_and_its_end_come_out_right(
    world: ShopWorld, source: Site, recovered: Site, seed: int
) -> None:
    chance = random.Random(seed)
    source.write(4000 + seed)
    rows = source.rows()
    name = f"hunted-{seed}"
    drill = {
        "apiVersion": "lifeboat.dev/v1alpha1",
        "kind": "Drill",
        "metadata": {"name": f"drill-{seed}"},
        "spec": {"serverRef": {"name": SERVER_ID}, "instance": {"memory": "192Mi"}},
    }

    def hunt(done: FailoverStage | None, seconds: float = 240) -> int:
        """Kill operators at random instants until the ledger says that the step is done; how many were killed."""
        killed, deadline = 0, time.monotonic() + seconds
        while stage(world) is not done:
            assert time.monotonic() < deadline, f"{stage(world)} after {killed} kills"
            said = world.spoken()
            world.launch_operator()
            until(lambda said=said: " acting" in world.said(said), 30)  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 2.0))
            world.stop_operator(signal.SIGKILL)
            killed += 1
        world.start_operator()
        return killed

    world.apply(json.dumps(drill))
    world.fail_over(name)
    world.stop_operator(signal.SIGKILL)
    killed = hunt(FailoverStage.AWAITING_COMMIT)
    world.until("fo", name, lambda fo: phase_is("AwaitingCommit")(fo) and ready(fo), seconds=60)
    assert recovered.rows() == rows
    running = [each for each, pid in world.machines().items() if psutil.pid_exists(int(pid))]
    assert len([each for each in running if "failover" in each]) == 1, running
    assert not [each for each in running if each.startswith("zone-a")], "the source is fenced"
    world.patch("fo", name, {"rollback": True})
    world.stop_operator(signal.SIGKILL)
    killed += hunt(None)
    assert killed >= 2
    world.until("fo", name, phase_is("RolledBack"))
    world.until("ps", SERVER_ID, lambda found: phase_is("Replicating")(found) and ready(found))
    assert source.rows() == rows
