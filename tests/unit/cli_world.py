"""Objects as the API server gives them: a day on which one zone burns, one server follows and one is being copied."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair
from lifeboat.api.values import format_time
from lifeboat.cli.client import Snapshot

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
GIB = 2**30


def at(**before: float) -> str:
    return format_time(NOW - timedelta(**before))


def condition(kind: str, status: str, reason: str, message: str, **before: float) -> dict[str, Any]:
    since = at(**(before or {"minutes": 5}))
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


def ready(reason: str = "AsAsked", message: str = "as asked", **before: float) -> list[dict[str, Any]]:
    return [condition("Ready", "True", reason, message, **before), condition("Stalled", "False", reason, message)]


def busy(reason: str, message: str) -> list[dict[str, Any]]:
    return [condition("Ready", "False", reason, message), condition("Reconciling", "True", reason, message)]


def stalled(reason: str, message: str, **before: float) -> list[dict[str, Any]]:
    return [condition("Ready", "False", reason, message, **before), condition("Stalled", "True", reason, message)]


def _body(name: str, spec: Mapping[str, Any], status: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "generation": 1, "uid": f"uid-{name}"}
    return {"metadata": metadata, "spec": spec, "status": {"observedGeneration": 1, **status}}


def pair(name: str = "north", namespace: str = "shop", **status: Any) -> SitePair:
    spec = {
        "primary": {"zone": "zone-a", "network": "net"},
        "recovery": {"zone": "zone-b", "network": "net", "recoveryNetwork": "rescue"},
    }
    given = {"engine": "qemu", "servers": {"total": 3, "replicating": 1, "failedOver": 1, "faulty": 0}} | status
    return SitePair.parse(_body(name, spec, {"conditions": ready("SitesAnswer")} | given, namespace))


def server(name: str, server_id: str = "", namespace: str = "shop", **status: Any) -> ProtectedServer:
    spec = {"sitePairRef": {"name": "north"}, "serverId": server_id or f"{name}-1"}
    return ProtectedServer.parse(_body(name, spec, {"conditions": ready()} | status, namespace))


def drill(name: str, of: str, namespace: str = "shop", **status: Any) -> Drill:
    spec = {"serverRef": {"name": of}, "checks": [{"name": "page", "httpGet": {"port": 80}}]}
    return Drill.parse(_body(name, spec, status, namespace))


def failover(name: str, of: str, namespace: str = "shop", kind: str = "Failover", **status: Any) -> Failover:
    spec = {"serverRef": {"name": of}, "type": kind}
    return Failover.parse(_body(name, spec, status, namespace))


FAILOVER_READY = condition("FailoverReady", "True", "AsAsked", "a failover can start now")


def point(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "consistency": "Crash", "state": "Available"} | more


WEB = server(
    "web",
    phase="Replicating",
    direction="Forward",
    activeSite="Primary",
    lagSeconds=0,
    progress={"percent": 100, "copiedBytes": GIB, "totalBytes": GIB},
    server={
        "cpu": 2,
        "memory": "2Gi",
        "disks": [{"name": "system", "sizeBytes": 20 * GIB}, {"name": "data", "sizeBytes": 10 * GIB}],
        "addresses": ["10.0.0.10"],
    },
    recoveryPoints=[
        point("p-1100", time=at(hours=1), consistency="Application", testedBy="monday"),
        point("p-1148", time=at(minutes=12)),
        point("p-1000", time=at(hours=2), state="InUse", reason="drill monday"),
    ],
    recoveryPointCount=3,
    latestRecoveryPointTime=at(minutes=12),
    allowedOperations=["Drill", "Failover", "Restart", "StopReplication"],
    conditions=[
        *ready("Replicating", "every write reaches the replica"),
        FAILOVER_READY,
        condition("SourceFenced", "False", "NotFenced", "nothing has failed over"),
    ],
)
FILES = server(
    "files",
    "nas-3",
    phase="FullSync",
    activeSite="Primary",
    progress={
        "percent": 62,
        "copiedBytes": int(12.4 * GIB),
        "totalBytes": 20 * GIB,
        "bytesPerSecond": 64 * 2**20,
        "secondsLeft": 121,
    },
    recoveryPointCount=0,
    allowedOperations=["StopReplication"],
    conditions=[
        *busy("Copying", "all data is being copied"),
        condition("FailoverReady", "False", "NoRecoveryPoint", "there is no recovery point yet; wait for the copy"),
    ],
)
DB = server(
    "db",
    phase="FailedOver",
    activeSite="Recovery",
    recoveryPointCount=24,
    latestRecoveryPointTime=at(minutes=4),
    recoveredServer={"id": "db-1-fire", "zone": "zone-b", "addresses": ["10.2.0.20"]},
    allowedOperations=["ChangeRecoveryPoint", "Commit", "Rollback"],
    conditions=ready("ServedFromRecovery", "served from zone zone-b"),
)
FIRE = failover(
    "fire",
    "db",
    phase="AwaitingCommit",
    result="Passed",
    recoveryPoint={"spec": "current", "name": "tip-2", "time": at(minutes=4), "ageSeconds": 4},
    instance={
        "id": "db-1-fire",
        "ipAddress": "10.2.0.20",
        "elasticIP": "127.0.10.5",
        "url": "http://127.0.10.5:8080/",
    },
    checks=[
        {"name": "page", "result": "Passed", "message": "200 OK"},
        {"name": "sql", "result": "Passed", "message": "exit code 0"},
    ],
    postScript={"exitCode": 0, "output": "addresses changed\n"},
    timings={"acceptedAt": at(minutes=4), "launchedAt": at(minutes=4), "readyAt": at(minutes=3), "rtoSeconds": 7.25},
    history=[
        {
            "attempt": 1,
            "recoveryPoint": "p-1100",
            "point": "p-1100",
            "pointTime": at(hours=1),
            "startedAt": at(minutes=9),
            "endedAt": at(minutes=5),
            "outcome": "Failed: page: 500; its disks are kept, ask for attempt-1 to return",
        },
        {
            "attempt": 2,
            "recoveryPoint": "current",
            "point": "tip-2",
            "pointTime": at(minutes=4),
            "startedAt": at(minutes=4),
        },
    ],
    conditions=[
        *ready(
            "AwaitingCommit",
            "the server runs from point tip-2, 4 s old when it was chosen; verify it, then set commit: true, or change "
            "recoveryPoint, or set rollback: true. Take care: the source may still be serving: zone zone-a does not "
            "answer; it is fenced first thing when its site answers",
        ),
        condition("SourceFenced", "Unknown", "FencePending", "the source may still be serving"),
    ],
)
MONDAY = drill(
    "monday",
    "web",
    phase="Verifying",
    recoveryPoint={"spec": "latest", "name": "p-1000", "time": at(hours=2), "ageSeconds": 720},
    instance={"id": "web-1-monday", "ipAddress": "10.2.0.10"},
    checks=[{"name": "page"}],
    timings={"acceptedAt": at(seconds=41), "launchedAt": at(seconds=38)},
    conditions=busy("InProgress", "the server runs; its script and checks are under way"),
)
LAST_WEEK = drill(
    "last-week", "web", phase="CleanedUp", result="Passed", conditions=ready("CleanedUp", "cleared", days=7)
)
SILENT_PAIR = pair(
    worstLagSeconds=0,
    conditions=[
        condition(
            "Ready",
            "Unknown",
            "SiteSilent",
            "zone zone-a: zone zone-a does not answer. A failover needs the recovery zone only",
        )
    ],
)
DAY = Snapshot(
    now=NOW,
    namespace="shop",
    pairs=(SILENT_PAIR,),
    servers=(DB, FILES, WEB),
    drills=(LAST_WEEK, MONDAY),
    failovers=(FIRE,),
)
