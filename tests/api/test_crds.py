"""The API server takes the CRDs as they are, keeps a full status, and adds nothing where Git would see drift."""

from datetime import UTC, datetime
from typing import Any

import pytest

from demo.controlplane import ControlPlane
from lifeboat.api import common, drill, failover, protectedserver, sitepair
from lifeboat.api.common import Condition, Resource
from lifeboat.api.crd import KINDS
from tests.api.conftest import Cluster, Spec
from tests.conftest import conditions_of

TIME = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
POINT_TIME = TIME.replace(microsecond=250_000)
INVENTORY = sitepair.SiteInventory(
    servers=("db-1", "web-1"),
    server_count=2,
    networks=(
        sitepair.SiteNetwork(
            name="net", cidr="10.0.0.0/24", taken=(sitepair.TakenAddress(address="10.0.0.5", by="web-1"),)
        ),
    ),
    elastic_ips=(sitepair.SiteElasticIP(address="203.0.113.7", used_by="web-1"),),
    cpu=8,
    memory=2**34,
    ssd=True,
)
READY = Condition(
    type="Ready",
    status="True",
    observed_generation=1,
    last_transition_time=TIME,
    reason="Replicating",
    message="The replica follows.",
)
SPECS: dict[type[Resource], Spec] = {
    sitepair.SitePair: {"primary": {"zone": "eu-1a"}, "recovery": {"zone": "eu-1b"}},
    protectedserver.ProtectedServer: {"sitePairRef": {"name": "eu"}, "serverId": "vm-17"},
    drill.Drill: {"serverRef": {"name": "web"}},
    failover.Failover: {"serverRef": {"name": "web"}},
}
RECOVERY: dict[str, Any] = {
    "observed_generation": 1,
    "result": common.Result.PASSED,
    "recovery_point": common.ResolvedPoint(spec="latest", name="p-1", time=POINT_TIME, age_seconds=59),
    "instance": common.RunningInstance(
        id="vm-99", ip_address="10.0.0.9", elastic_ip="203.0.113.7", url="http://203.0.113.7/"
    ),
    "checks": (common.CheckStatus(name="web", result=common.Result.PASSED, message="200 OK"),),
    "post_script": common.PostScriptStatus(exit_code=0, output="started"),
    "timings": common.Timings(accepted_at=TIME, launched_at=TIME, ready_at=TIME, rto_seconds=7.25),
    "conditions": (READY,),
}
STATUSES: dict[type[Resource], common.Model] = {
    sitepair.SitePair: sitepair.SitePairStatus(
        observed_generation=1,
        engine="qemu",
        servers=sitepair.SitePairServers(total=4, replicating=2, failed_over=1, faulty=1),
        worst_lag_seconds=3,
        inventory=sitepair.SitePairInventory(primary=INVENTORY, recovery=INVENTORY),
        conditions=(READY,),
    ),
    protectedserver.ProtectedServer: protectedserver.ProtectedServerStatus(
        observed_generation=1,
        phase=protectedserver.ProtectedServerPhase.REPLICATING,
        direction=protectedserver.Direction.FORWARD,
        active_site=common.ActiveSite.PRIMARY,
        server=protectedserver.ServerFacts(
            cpu=2,
            memory=2**31,
            disks=(protectedserver.Disk(name="system", size_bytes=2**33),),
            addresses=("10.0.0.5",),
        ),
        progress=protectedserver.Progress(
            percent=42, copied_bytes=42, total_bytes=100, bytes_per_second=1, seconds_left=58
        ),
        lag_seconds=2,
        recovery_points=(
            protectedserver.RecoveryPoint(
                name="p-1",
                time=POINT_TIME,
                consistency=protectedserver.Consistency.APPLICATION,
                state=protectedserver.PointState.IN_USE,
                reason="DrillRunning",
                tested_by="monday",
            ),
        ),
        recovery_point_count=1,
        latest_recovery_point_time=POINT_TIME,
        recovered_server=protectedserver.RecoveredServer(id="vm-99", zone="eu-1b", addresses=("10.0.0.9",)),
        allowed_operations=("Drill", "Failover"),
        conditions=(READY,),
    ),
    drill.Drill: drill.DrillStatus(phase=drill.DrillPhase.RUNNING, **RECOVERY),
    failover.Failover: failover.FailoverStatus(
        phase=failover.FailoverPhase.AWAITING_COMMIT,
        history=(
            failover.Attempt(
                attempt=1,
                recovery_point="current",
                point="tip-1",
                point_time=POINT_TIME,
                started_at=TIME,
                ended_at=TIME,
                outcome="RecoveryPointChanged",
            ),
        ),
        **RECOVERY,
    ),
}


def _holes(model: common.Model, path: str = "status") -> list[str]:
    """Return the paths of fields that are absent or empty."""
    found = []
    for name in type(model).model_fields:
        value = getattr(model, name)
        parts = value if isinstance(value, tuple) else (value,)
        if value is None or value == ():
            found.append(f"{path}.{name}")
        found += [hole for part in parts if isinstance(part, common.Model) for hole in _holes(part, f"{path}.{name}")]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_established_and_structural(cluster: Cluster, kind: type[Resource]) -> None:
    stored = cluster.definitions.read_custom_resource_definition(f"{kind.PLURAL}.lifeboat.dev")
    conditions = conditions_of(stored)
    assert conditions["Established"] == "True"
    assert conditions["NamesAccepted"] == "True"
    assert "NonStructuralSchema" not in conditions


@pytest.mark.parametrize("kind", KINDS)
def test_full_status_survives(cluster: Cluster, kind: type[Resource]) -> None:
    status = STATUSES[kind]
    assert _holes(status) == []
    stored = cluster.apply_status(kind, cluster.create(kind, SPECS[kind]), status.as_dict())
    assert stored["status"] == status.as_dict()
    read: Any = kind.parse(stored)
    assert read.status == status


@pytest.mark.parametrize("kind", KINDS)
def test_one_condition_can_be_applied_alone(cluster: Cluster, kind: type[Resource]) -> None:
    stored = cluster.create(kind, SPECS[kind])
    cluster.apply_status(kind, stored, {"conditions": [READY.as_dict()]})
    stalled = READY.model_copy(update={"type": "Stalled"}).as_dict()
    applied = cluster.apply_status(kind, stored, {"conditions": [READY.as_dict(), stalled]})
    assert [condition["type"] for condition in applied["status"]["conditions"]] == ["Ready", "Stalled"]


def test_columns(control_plane: ControlPlane, cluster: Cluster) -> None:
    headings = {
        "sp": "NAME PRIMARY RECOVERY ENGINE SERVERS REPLICATING READY AGE",
        "ps": "NAME SERVER PHASE PROGRESS LAG POINTS LATEST ACTIVE READY AGE",
        "dr": "NAME SERVER POINT POINT AGE PHASE RESULT IP RTO AGE",
        "fo": "NAME SERVER TYPE POINT POINT AGE PHASE RESULT IP RTO AGE",
    }
    for kind in KINDS:
        stored = cluster.create(kind, SPECS[kind])
        cluster.apply_status(kind, stored, STATUSES[kind].as_dict())
        shown = control_plane.kubectl("get", kind.SHORT_NAME, stored["metadata"]["name"])
        heading, row = shown.splitlines()
        assert " ".join(heading.split()) == headings[kind.SHORT_NAME]
        assert "<none>" not in row
        assert "<unknown>" not in row
    assert "drill.lifeboat.dev/" in control_plane.kubectl("get", "lifeboat", "-o", "name")


DEFAULTS: dict[type[Resource], dict[str, Any]] = {
    sitepair.SitePair: {"type": "ZoneToZone"},
    protectedserver.ProtectedServer: {"deletionPolicy": "Retain"},
    drill.Drill: {"recoveryPoint": "latest", "running": True},
    failover.Failover: {
        "type": "Failover",
        "planned": False,
        "recoveryPoint": "current",
        "startDeadline": "10m",
        "commit": False,
        "rollback": False,
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_that_the_api_server_adds(cluster: Cluster, kind: type[Resource]) -> None:
    assert cluster.create(kind, SPECS[kind])["spec"] == {**SPECS[kind], **DEFAULTS[kind]}


def test_nothing_is_added_inside_of_lists(cluster: Cluster) -> None:
    checks = [{"name": "web", "httpGet": {"port": 80}}]
    tiers = [{"every": "1h", "for": "24h"}]
    stored = cluster.create(drill.Drill, {**SPECS[drill.Drill], "checks": checks})
    assert stored["spec"]["checks"] == checks
    server = protectedserver.ProtectedServer
    stored = cluster.create(server, {**SPECS[server], "replication": {"recoveryPoints": tiers}})
    assert stored["spec"]["replication"]["recoveryPoints"] == tiers
