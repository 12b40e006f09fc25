"""A real Argo CD syncs the examples from a git repository; each test goes on where the one before ended."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from demo.argocd.server import ArgoCD
from demo.argocd.settings import ARGOCD
from demo.controlplane import ControlPlane
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.engines.facts import Disk, Hardware
from tests.api.operators import Site
from tests.conftest import connect

pytestmark = pytest.mark.timeout(1800)
SERVER = "orders-db"
EXAMPLES = ARGOCD / "examples"


def example(path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((EXAMPLES / path).read_text(encoding="utf-8"))
    return found


def pair() -> dict[str, Any]:
    """The example's pair with the networks of the simulated zones."""
    found = example("protection/1-site-pair.yaml")
    for side in ("primary", "recovery"):
        found["spec"][side] |= {"network": "net", "replicationNetwork": "net", "recoveryNetwork": "net"}
    return found


def failover(**spec: Any) -> dict[str, Any]:
    found = copy.deepcopy(example("failover/failover.yaml"))
    found["spec"] |= spec
    del found["spec"]["checks"]
    return found


def drill() -> dict[str, Any]:
    found = example("protection/3-drill.yaml")
    del found["spec"]["checks"]
    return found


@pytest.fixture(scope="module")
def site(control_plane: ControlPlane) -> Iterator[Site]:
    with connect(control_plane) as connection:
        made = Site(connection, control_plane.kubeconfig)
        made.world.add_server(SERVER, Hardware(2, 2**30, (Disk("vda", 40 * 2**30, 2 * 2**30),)))
        with made.operator():
            yield made


@pytest.fixture(scope="module")
def argo(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgoCD]:
    made = ArgoCD(control_plane, tmp_path_factory.mktemp("argocd"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def done(status: dict[str, Any]) -> bool:
    return bool(status.get("operationState", {}).get("phase") == "Succeeded")


def settled(status: dict[str, Any]) -> bool:
    synced = status.get("sync", {}).get("status") == "Synced"
    return done(status) and synced and status.get("health", {}).get("status") == "Healthy"


def test_waves_wait_for_replication(argo: ArgoCD, site: Site) -> None:
    argo.lay("protection", pair(), example("protection/2-server.yaml"), drill())
    argo.push("Protect the orders")
    argo.apply("protection", "protection", site.namespace, automated={"prune": True, "selfHeal": True})
    phases = set()

    def synced(status: dict[str, Any]) -> bool:
        drilled = bool(site.all(Drill))
        if site.exists(ProtectedServer, SERVER):
            phase = site.phase(ProtectedServer, SERVER)
            phases.add(phase)
            assert not drilled or phase == "Replicating"
            assert phase == "Replicating" or not done(status)
        return settled(status)

    argo.until("protection", synced)
    assert "FullSync" in phases
    assert len(site.all(Drill)) == 1
    assert site.phase(Drill, site.all(Drill)[0]["metadata"]["name"]) == "Running"


def test_there_is_no_drift_and_self_heal_does_not_fight_the_operator(argo: ArgoCD, site: Site) -> None:
    before = argo.status("protection")["history"]
    generation = site.get(ProtectedServer, SERVER)["metadata"]["generation"]
    reconciled = argo.status("protection")["reconciledAt"]
    argo.refresh("protection")
    told = argo.until("protection", lambda status: status["reconciledAt"] > reconciled)
    assert settled(told)
    assert told["history"] == before
    assert site.get(ProtectedServer, SERVER)["metadata"]["generation"] == generation == 1


def test_a_failover_is_synced_while_the_primary_zone_is_dead(argo: ArgoCD, site: Site) -> None:
    site.world.silence("zone-a")
    argo.lay("failover", failover())
    argo.push("Fail the orders over")
    argo.apply("failover", "failover", site.namespace)
    argo.until("failover", lambda status: status.get("sync", {}).get("status") == "OutOfSync")
    assert not site.exists(Failover, "zone-a-lost"), "nothing syncs it by itself"
    argo.sync("failover")
    argo.until("failover", done)
    site.until_phase(Failover, "zone-a-lost", "AwaitingCommit", 60)
    assert site.phase(ProtectedServer, SERVER) == "FailedOver"


def test_a_revert_of_the_recovery_point_is_refused_and_the_server_left_alone(argo: ArgoCD, site: Site) -> None:
    points = site.get(ProtectedServer, SERVER)["status"]["recoveryPoints"]
    other = next(point["name"] for point in points if not point["name"].startswith("tip-"))
    argo.lay("failover", failover(recoveryPoint=other))
    argo.push("An earlier point")
    argo.refresh("failover")
    argo.until("failover", lambda status: status["sync"]["status"] == "OutOfSync")
    argo.sync("failover")

    def at(point: str) -> bool:
        status = site.get(Failover, "zone-a-lost")["status"]
        return bool(status["phase"] == "AwaitingCommit" and status["recoveryPoint"]["name"] == point)

    site.until(lambda: at(other), 60)
    argo.revert()
    argo.refresh("failover")
    argo.until("failover", lambda status: status["sync"]["status"] == "OutOfSync")
    argo.sync("failover")
    site.until(lambda: site.condition(Failover, "zone-a-lost", "Stalled") == ("True", "CurrentUsed"), 60)
    assert at(other)
    argo.until("failover", lambda status: status["health"]["status"] == "Degraded")


def test_a_prune_of_what_the_examples_protect_destroys_nothing(argo: ArgoCD, site: Site) -> None:
    recovered = site.get(ProtectedServer, SERVER)["status"]["recoveredServer"]
    argo.lay("failover")
    argo.lay("protection", pair())
    argo.push("Take it all out")
    for name in ("failover", "protection"):
        argo.refresh(name)
        argo.until(name, lambda status: status["sync"].get("revision") == argo.head)
    argo.sync("failover", prune=True)
    argo.until("failover", lambda status: done(status) and revision_of(status) == argo.head)
    for kind, name in ((Failover, "zone-a-lost"), (ProtectedServer, SERVER)):
        assert "deletionTimestamp" not in site.get(kind, name)["metadata"]
    assert site.get(ProtectedServer, SERVER)["status"]["recoveredServer"] == recovered


def revision_of(status: dict[str, Any]) -> str | None:
    """The revision of the last sync."""
    found: str | None = status["operationState"].get("syncResult", {}).get("revision")
    return found
