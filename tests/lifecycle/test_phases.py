"""The table of phases: every phase is reached, has a way out, and nothing follows that the table lacks."""

from __future__ import annotations

from datetime import timedelta

from lifeboat.api.protectedserver import ProtectedServerPhase as Phase
from lifeboat.engines.ledger import Direction
from lifeboat.lifecycle.phases import TRANSITIONS
from lifeboat.lifecycle.view import FAILOVER, PROTECTED_SERVER
from tests.lifecycle.cluster import HARDWARE, SERVER, Cluster, world


def test_the_table_is_closed_and_has_no_dead_end() -> None:
    assert set(TRANSITIONS) == set(Phase)
    for followers in TRANSITIONS.values():
        assert followers
        assert followers <= set(Phase)


def test_every_phase_is_reached() -> None:
    made = world()
    made.remove_server(SERVER)
    made.add_server(SERVER, HARDWARE, agent_after_reboot=True)
    cluster = Cluster(made)
    cluster.protect()
    cluster.until("InstallingAgent")
    made.set_agent(SERVER, connected=True)
    cluster.until("Initialized")
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"enabled": True})
    cluster.until("FullSync")
    cluster.until("Replicating")
    made.write(SERVER)
    made.cut_link()
    cluster.until("Interrupted")
    made.write(SERVER)
    made.restore_link()
    cluster.until("Resyncing")
    cluster.until("Replicating")
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"enabled": False})
    cluster.until("Stopped")
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"enabled": True})
    cluster.until("Replicating")
    cluster.run(timedelta(seconds=5))
    cluster.failover("first")
    cluster.until("FailedOver")
    cluster.edit(FAILOVER, "first", rollback=True)
    cluster.until("Replicating")
    cluster.failover("second")
    cluster.until("FailedOver")
    cluster.edit(FAILOVER, "second", recoveryPoint="latest", instance={"cpu": 1})
    cluster.run(timedelta(seconds=10))
    cluster.edit(FAILOVER, "second", commit=True)
    cluster.until("Committed")
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"direction": "Reverse"})
    cluster.until("ReverseRegistered")
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"direction": "Reverse", "enabled": True})
    cluster.until("ReverseFullSync")
    cluster.until("ReverseReplicating")
    made.cut_link()
    cluster.until("ReverseInterrupted")
    made.write(SERVER, direction=Direction.REVERSE)
    made.restore_link()
    cluster.until("ReverseResyncing")
    cluster.until("ReverseReplicating")
    cluster.run(timedelta(seconds=5))
    cluster.failover("home", type="Failback")
    cluster.until("FailedBack")
    cluster.edit(PROTECTED_SERVER, SERVER, replication={})
    cluster.until("Initialized")
    told = {Phase(phase) for phase in cluster.phases if phase}
    assert told == set(Phase)
    for before, after in zip(cluster.phases, cluster.phases[1:], strict=False):
        if before and after:
            assert Phase(after) in TRANSITIONS[Phase(before)]
