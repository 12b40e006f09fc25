"""etcd goes back to an older copy of itself: what is asked is of yesterday, what was done is in the ledgers.

The engine is simulated: it remembers each step that took effect. Nothing may be copied again, launched twice, forgotten
or left behind, whether the operator lived through it or was started afterwards.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.controlplane import ControlPlane
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.engines import verbs
from lifeboat.engines.facts import MachineState
from lifeboat.engines.ledger import Ledger
from tests.api.operators import Site
from tests.conftest import connect, install_crds

pytestmark = pytest.mark.timeout(300)
DISTURBING = (
    verbs.StartReplication,
    verbs.ResumeReplication,
    verbs.StopReplication,
    verbs.Launch,
    verbs.Halt,
    verbs.RemoveMachine,
    verbs.MakeIndependent,
    verbs.ReleaseReplica,
    verbs.Fence,
    verbs.Unfence,
    verbs.Restart,
)


class Etcd:
    """The control plane, and copies of what its etcd holds."""

    def __init__(self, folder: Path) -> None:
        self.plane = ControlPlane(folder)
        self._data = folder / "etcd"
        self._backup = folder / "backup"

    def back_up(self) -> None:
        """Keep a copy."""
        self.plane.stop()
        shutil.copytree(self._data, self._backup)
        self.plane.start()

    def restore(self) -> None:
        """Go back to the copy."""
        self.plane.stop()
        shutil.rmtree(self._data)
        shutil.copytree(self._backup, self._data)
        self.plane.start()


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    made = Etcd(tmp_path)
    made.plane.start()
    try:
        yield made
    finally:
        made.plane.stop()


def machines(site: Site) -> dict[str, dict[str, MachineState]]:
    tracks = {server: site.world._track(server) for server in ("web", "db", "mail", "late")}
    return {server: {name: each.state for name, each in track.machines.items()} for server, track in tracks.items()}


def ledger_of(site: Site, server: str) -> Ledger:
    found = site.world._track(server).ledger
    assert found is not None
    return found


@pytest.mark.parametrize("survives", [True, False], ids=["the-operator-lives-on", "the-operator-is-started-anew"])
def test_nothing_that_was_done_is_done_again_or_forgotten(etcd: Etcd, *, survives: bool) -> None:
    with connect(etcd.plane) as connection:
        install_crds(connection)
        site = Site(connection, etcd.plane.kubeconfig)
        with site.operator() as operator:
            _yesterday(site)
            etcd.back_up()
            _today(site)
            site.until_quiet(30)
            before, there = len(site.world.performed), machines(site)
            ledgers = {server: ledger_of(site, server) for server in there}
            if not survives:
                operator.stop()
            etcd.restore()
            if survives:
                _find_out(site, before, there)
                assert operator.failed is None
        if not survives:
            with site.operator():
                _find_out(site, before, there)
        for server, ledger in ledgers.items():
            now = ledger_of(site, server)
            assert now.spent == ledger.spent, server
            assert (now.run, now.epoch, now.failover is None) == (ledger.run, ledger.epoch, ledger.failover is None)
        with site.operator():
            _go_on(site)


def _yesterday(site: Site) -> None:
    """What the copy holds: three servers that replicate, a failover that was rolled back later, a drill that runs."""
    site.pair()
    for server in ("web", "db", "mail"):
        site.protect(server)
        site.until_phase(ProtectedServer, server, "Replicating", 30)
    site.create(Failover, "rehearsed", {"serverRef": {"name": "db"}})
    site.until_phase(Failover, "rehearsed", "AwaitingCommit", 30)
    site.create(Drill, "cleared", {"serverRef": {"name": "mail"}})
    site.until_phase(Drill, "cleared", "Running", 30)


def _today(site: Site) -> None:
    """What happened since: the end of both, a failover, a server that was added."""
    site.until(lambda: site.phase(Drill, "cleared") == "Running", 30)
    site.edit(Failover, "rehearsed", {"rollback": True})
    site.until_phase(Failover, "rehearsed", "RolledBack", 30)
    site.until_phase(ProtectedServer, "db", "Replicating", 30)
    site.delete(Failover, "rehearsed")
    site.edit(Drill, "cleared", {"running": False})
    site.until_phase(Drill, "cleared", "CleanedUp", 30)
    site.delete(Drill, "cleared")
    site.create(Failover, "today", {"serverRef": {"name": "web"}})
    site.until_phase(Failover, "today", "AwaitingCommit", 30)
    site.protect("late")
    site.until_phase(ProtectedServer, "late", "Replicating", 30)


def _find_out(site: Site, before: int, there: dict[str, dict[str, MachineState]]) -> None:
    """The statuses come to say what is, and nothing is done to get there."""
    site.until_phase(ProtectedServer, "web", "FailedOver", 60)
    site.until_phase(ProtectedServer, "db", "Replicating", 60)
    site.until_phase(ProtectedServer, "mail", "Replicating", 60)
    assert not site.exists(Failover, "today")
    assert not site.exists(ProtectedServer, "late")
    # They are back, and their names are spent: they show how they ended, and act no more.
    site.until_phase(Failover, "rehearsed", "RolledBack", 30)
    site.until_phase(Drill, "cleared", "CleanedUp", 30)
    site.until_quiet(30)
    done = [verb for _, verb in site.world.performed[before:] if isinstance(verb, DISTURBING)]
    assert not done
    assert machines(site) == there
    assert site.phase(Failover, "rehearsed") == "RolledBack"
    assert site.world.running("db")
    assert not site.world.running("web"), "it is fenced"


def _go_on(site: Site) -> None:
    """What was lost is asked for again, and carries on from what is there."""
    before = len(site.world.performed)
    spec = {"sitePairRef": {"name": "pair"}, "serverId": "late", "replication": {"enabled": True}}
    site.create(ProtectedServer, "late", spec)
    site.until_phase(ProtectedServer, "late", "Replicating", 30)
    site.create(Failover, "heir", {"serverRef": {"name": "web"}})
    site.until_phase(Failover, "heir", "AwaitingCommit", 30)
    done = [verb for _, verb in site.world.performed[before:] if isinstance(verb, DISTURBING)]
    assert not done, "neither a copy nor a start: both are there"
    site.delete(Failover, "rehearsed")
    site.delete(Drill, "cleared")
    site.until(lambda: not site.exists(Drill, "cleared") and not site.exists(Failover, "rehearsed"))
    site.edit(Failover, "heir", {"commit": True})
    site.until_phase(Failover, "heir", "Committed", 30)
