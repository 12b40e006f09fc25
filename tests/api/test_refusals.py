"""What has the wrong shape is refused at `kubectl apply`, with a message that says what to write."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from lifeboat.api.common import Resource
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair
from tests.api.conftest import Cluster, Refused, Spec

PAIR: Spec = {"primary": {"zone": "eu-1a"}, "recovery": {"zone": "eu-1b"}}
SERVER: Spec = {"sitePairRef": {"name": "eu"}, "serverId": "vm-17"}
BASE: Spec = {"serverRef": {"name": "web"}}
TICK = {"name": "tick", "tcpSocket": {"port": 80}}


@dataclass(frozen=True)
class Case:
    """A manifest, and what the refusal of it says; where `before` is given, the manifest is an edit of that one."""

    id: str
    kind: type[Resource]
    spec: Spec
    message: str
    before: Spec | None = None


def _site(id: str, primary: object, message: str) -> Case:  # noqa: A002 - a test's id
    return Case(f"pair-{id}", SitePair, {**PAIR, "primary": primary}, message)


def _kubevirt(id: str, message: str, **changes: object) -> Case:  # noqa: A002 - a test's id
    recovery = {"secretRef": {"name": "b"}, "compute": {"kubevirt": {**KUBEVIRT, **changes}}}
    engine = {"ceph": {"primary": {"secretRef": {"name": "a"}}, "recovery": recovery}}
    return Case(f"pair-kubevirt-{id}", SitePair, {**PAIR, "engine": engine}, message)


def _replication(id: str, message: str, **replication: object) -> Case:  # noqa: A002 - a test's id
    return Case(f"server-{id}", ProtectedServer, {**SERVER, "replication": replication}, message)


def _tiers(id: str, message: str, *tiers: tuple[str, str]) -> Case:  # noqa: A002 - a test's id
    points = [{"every": every, "for": keep} for every, keep in tiers]
    return _replication(f"tiers-{id}", message, recoveryPoints=points)


def _instance(id: str, message: str, **instance: object) -> Case:  # noqa: A002 - a test's id
    return Case(f"instance-{id}", Drill, {**BASE, "instance": instance}, message)


def _check(id: str, message: str, *checks: object) -> Case:  # noqa: A002 - a test's id
    return Case(f"check-{id}", Failover, {**BASE, "checks": list(checks)}, message)


def _point(kind: type[Resource], point: str, message: str) -> Case:
    return Case(f"{kind.__name__.lower()}-point-{point}", kind, {**BASE, "recoveryPoint": point}, message)


DURATION = "write a duration longer than zero, such as 90s, 1h30m or 24h"
ID = "write 1 to 63 letters, digits, dots, underscores or hyphens"
QUANTITY = "write a positive quantity, such as 512Mi, 4Gi or 2G"
IPV4 = "write an IPv4 address such as 192.168.0.10, or leave the field out for DHCP"
ONE_SCRIPT = "write exactly one of inline, configMapKeyRef and secretKeyRef"
ONE_CHECK = "write exactly one of httpGet, tcpSocket and exec"
DRILL_POINT = "write latest, latest-application-consistent, the name of a recovery point, or an RFC 3339 time"
FAILOVER_POINT = "write current, latest, latest-application-consistent, the name of a recovery point, attempt-<n>"
KEY = {"name": "scripts", "key": "start.sh"}
KUBEVIRT = {
    "clusterID": "rook-ceph",
    "csiSecretRef": {"name": "csi", "namespace": "rook-ceph"},
    "networks": [{"name": "recovery", "pod": {}}],
}

WRONG = [
    Case("pair-no-recovery", SitePair, {"primary": {"zone": "eu-1a"}}, "spec.recovery: Required value"),
    Case("pair-same-zone", SitePair, {**PAIR, "recovery": {"zone": "eu-1a"}}, "write two different zones"),
    Case("pair-no-engine", SitePair, {**PAIR, "engine": {}}, "write exactly one engine, of: qemu"),
    Case("pair-type", SitePair, {**PAIR, "type": "RegionToRegion"}, 'supported values: "ZoneToZone"'),
    _kubevirt("no-network", "should have at least 1 items", networks=[]),
    _kubevirt("same-network", "Duplicate value", networks=[{"name": "a", "pod": {}}, {"name": "a", "multus": "b"}]),
    _kubevirt(
        "both-networks", "write exactly one of pod and multus", networks=[{"name": "a", "pod": {}, "multus": "b"}]
    ),
    _kubevirt("isolated-pod", "write isolated beside multus", networks=[{"name": "a", "pod": {}, "isolated": "b"}]),
    _kubevirt("attachment", "such as production/vlan-20", networks=[{"name": "a", "multus": "a/b/c"}]),
    _kubevirt("cidr", "a range of IPv4 addresses", networks=[{"name": "a", "pod": {}, "cidr": "10.0.0.1/24"}]),
    _kubevirt("namespace", "write a DNS label", namespace="a.b"),
    _kubevirt("mounter", 'supported values: "rbd", "rbd-nbd"', mounter="fuse"),
    _site("no-zone", {"network": "vpc-1"}, "spec.primary.zone: Required value"),
    _site("zone", {"zone": "eu 1a"}, ID),
    _site("zone-empty", {"zone": ""}, ID),
    _site("zone-end", {"zone": "eu-"}, ID),
    _site("zone-long", {"zone": "z" * 64}, "may not be more than 63"),
    _site("network", {"zone": "eu-1a", "network": "-vpc"}, ID),
    _site("replication-network", {"zone": "eu-1a", "replicationNetwork": "a/b"}, ID),
    _site("recovery-network", {"zone": "eu-1a", "recoveryNetwork": "ä"}, ID),
    Case("server-no-pair", ProtectedServer, {"serverId": "vm-17"}, "spec.sitePairRef: Required value"),
    Case("server-no-id", ProtectedServer, {"sitePairRef": {"name": "eu"}}, "spec.serverId: Required value"),
    Case("server-id", ProtectedServer, {**SERVER, "serverId": "vm 17"}, ID),
    Case("server-id-dots", ProtectedServer, {**SERVER, "serverId": "a..b"}, "without two dots in a row"),
    Case("server-pair", ProtectedServer, {**SERVER, "sitePairRef": {"name": "EU"}}, "write the name of an object"),
    Case(
        "server-policy", ProtectedServer, {**SERVER, "deletionPolicy": "Keep"}, 'supported values: "Retain", "Delete"'
    ),
    _replication("direction", 'supported values: "Forward", "Reverse"', direction="Back"),
    _replication("enabled", "must be of type boolean", enabled="yes"),
    _replication(
        "original-forward",
        "originalMachine is for direction: Reverse only",
        originalMachine=True,
        confirmWipe="vm-17",
    ),
    _replication("wipe-forward", "confirmWipe is for direction: Reverse only", confirmWipe="vm-17"),
    _replication(
        "wipe-absent",
        "repeat spec.serverId in spec.replication.confirmWipe",
        direction="Reverse",
        originalMachine=True,
    ),
    _replication(
        "wipe-other",
        "repeat spec.serverId in spec.replication.confirmWipe",
        direction="Reverse",
        originalMachine=True,
        confirmWipe="vm-18",
    ),
    _replication(
        "wipe-other-not-original",
        "write in spec.replication.confirmWipe what spec.serverId says",
        direction="Reverse",
        confirmWipe="vm-18",
    ),
    _replication("network-name", ID, replicationNetwork="a b"),
    _replication("recovery-network-name", ID, recoveryNetwork="a b"),
    _replication("bandwidth", QUANTITY, bandwidthLimit="fast"),
    _replication("bandwidth-zero", QUANTITY, bandwidthLimit=0),
    _tiers("none", "should have at least 1 items"),
    _tiers("nine", "must have at most 8 items", *[("1h", "1h")] * 9),
    _tiers("every-short", "write 10s or more in every", ("9s", "1m")),
    _tiers("for-short", "write in for at least what every says", ("1h", "59m")),
    _tiers("total", "keep at most 128 points in all tiers together", ("1h", "100h"), ("24h", "696h")),
    _tiers("every-word", DURATION, ("hourly", "24h")),
    _tiers("for-days", DURATION, ("1h", "7d")),
    _tiers("zero", DURATION, ("0s", "24h")),
    _replication("tiers-no-for", "recoveryPoints[0].for: Required value", recoveryPoints=[{"every": "1h"}]),
    _instance("name", ID, name="web 1"),
    _instance("cpu", "should be greater than or equal to 1", cpu=0),
    _instance("cpu-fraction", "must be of type integer", cpu=1.5),
    _instance("memory-word", QUANTITY, memory="plenty"),
    _instance("memory-unit", QUANTITY, memory="4GB"),
    _instance("memory-zero", QUANTITY, memory="0"),
    _instance("memory-negative", QUANTITY, memory="-4Gi"),
    _instance("memory-negative-integer", QUANTITY, memory=-1),
    _instance("network", ID, network="a b"),
    _instance("address", IPV4, ipAddress="10.0.0.256"),
    _instance("address-v6", IPV4, ipAddress="fd00::1"),
    _instance("address-cidr", IPV4, ipAddress="10.0.0.1/24"),
    _instance("elastic", "write auto, or an address of the site's pool", elasticIP="yes"),
    _instance("script-none", ONE_SCRIPT, postScript={}),
    _instance("script-two", ONE_SCRIPT, postScript={"inline": "true", "configMapKeyRef": KEY}),
    _instance("script-three", ONE_SCRIPT, postScript={"inline": "a", "configMapKeyRef": KEY, "secretKeyRef": KEY}),
    _instance("script-empty", "should be at least 1 chars long", postScript={"inline": ""}),
    _instance("script-no-key", "key: Required value", postScript={"secretKeyRef": {"name": "scripts"}}),
    _instance("script-key", "write a key", postScript={"secretKeyRef": {"name": "scripts", "key": "a b"}}),
    _check("none", ONE_CHECK, {"name": "web"}),
    _check("two", ONE_CHECK, {**TICK, "exec": {"command": ["true"]}}),
    _check("no-name", "checks[0].name: Required value", {"tcpSocket": {"port": 80}}),
    _check("name", "write a DNS label", {**TICK, "name": "Web"}),
    _check("twice", "Duplicate value", TICK, TICK),
    _check("port-zero", "should be greater than or equal to 1", {"name": "web", "tcpSocket": {"port": 0}}),
    _check("port-high", "should be less than or equal to 65535", {"name": "web", "httpGet": {"port": 65536}}),
    _check("port-name", "must be of type integer", {"name": "web", "httpGet": {"port": "http"}}),
    _check("path", "write a path that begins with /", {"name": "web", "httpGet": {"port": 80, "path": "health"}}),
    _check("status", "should be greater than or equal to 100", {"name": "web", "httpGet": {"port": 80, "status": 20}}),
    _check("exec-empty", "should have at least 1 items", {"name": "web", "exec": {"command": []}}),
    _check("exec-33", "must have at most 32 items", {"name": "web", "exec": {"command": ["a"] * 33}}),
    _check("exec-shell", "must be of type array", {"name": "web", "exec": {"command": "true"}}),
    _check("timeout", "should be greater than or equal to 1", {**TICK, "timeoutSeconds": 0}),
    _check("seventeen", "must have at most 16 items", *({**TICK, "name": f"tick-{n}"} for n in range(17))),
    *(
        _point(Drill, point, DRILL_POINT)
        for point in (
            "",
            "current",
            "attempt-1",
            "Latest",
            "a.b",
            "-a",
            "yesterday at noon",
            "2026-01-31T12:00:00",
            "2026-01-31 12:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-01-31T24:00:00Z",
        )
    ),
    *(
        _point(Failover, point, FAILOVER_POINT)
        for point in ("", "Current", "2026-01-31T12:00:00", "2026-02-30T00:00:00Z")
    ),
    Case("drill-no-server", Drill, {"recoveryPoint": "latest"}, "spec.serverRef: Required value"),
    Case("drill-ttl", Drill, {**BASE, "ttl": "2 hours"}, DURATION),
    Case("drill-ttl-zero", Drill, {**BASE, "ttl": "0s"}, DURATION),
    Case("drill-ttl-negative", Drill, {**BASE, "ttl": "-1h"}, DURATION),
    Case("failover-deadline", Failover, {**BASE, "startDeadline": "soon"}, DURATION),
    Case("failover-deadline-number", Failover, {**BASE, "startDeadline": 600}, "must be of type string"),
    Case("failover-type", Failover, {**BASE, "type": "Switch"}, 'supported values: "Failover", "Failback"'),
    Case(
        "failover-planned-older",
        Failover,
        {**BASE, "planned": True, "recoveryPoint": "latest"},
        "a planned failover loses nothing: write recoveryPoint: current",
    ),
    Case(
        "failover-commit-rollback",
        Failover,
        {**BASE, "commit": True, "rollback": True},
        "rollback excludes commit",
    ),
]

ENABLED: Spec = {**SERVER, "replication": {"enabled": True}}
FULL: Spec = {**BASE, "instance": {"cpu": 2}, "checks": [TICK]}
COMMITTED: Spec = {**FULL, "commit": True}
ALONE = "commit: true stands alone in its edit and freezes the rest of spec"
FIXED_DRILL = "a Drill's spec is immutable except running: create another Drill"


def _edit(id: str, kind: type[Resource], before: Spec, message: str, **changes: object) -> Case:  # noqa: A002 - an id
    changed = {key: value for key, value in {**before, **changes}.items() if value is not None}
    return Case(f"edit-{id}", kind, changed, message, before)


WRONG_EDITS = [
    _edit("primary", SitePair, PAIR, "spec.primary.zone is immutable", primary={"zone": "eu-1c"}),
    _edit("recovery", SitePair, PAIR, "spec.recovery.zone is immutable", recovery={"zone": "eu-1c"}),
    _edit("pair", ProtectedServer, SERVER, "spec.sitePairRef is immutable", sitePairRef={"name": "us"}),
    _edit("server", ProtectedServer, SERVER, "spec.serverId is immutable", serverId="vm-18"),
    _edit("drill-server", Drill, BASE, FIXED_DRILL, serverRef={"name": "db"}),
    _edit("drill-point", Drill, BASE, FIXED_DRILL, recoveryPoint="hourly-1"),
    _edit("drill-instance", Drill, BASE, FIXED_DRILL, instance={"cpu": 4}),
    _edit("drill-instance-gone", Drill, FULL, FIXED_DRILL, instance=None),
    _edit("drill-checks", Drill, FULL, FIXED_DRILL, checks=[{**TICK, "name": "tock"}]),
    _edit("drill-ttl-added", Drill, BASE, FIXED_DRILL, ttl="1h"),
    _edit("drill-ttl-gone", Drill, {**BASE, "ttl": "1h"}, FIXED_DRILL, ttl=None),
    _edit("drill-again", Drill, {**BASE, "running": False}, "a Drill that was cleared does not start", running=True),
    _edit("drill-again-default", Drill, {**BASE, "running": False}, "does not start again", running=None),
    _edit("drill-clear-and-more", Drill, FULL, FIXED_DRILL, running=False, instance={"cpu": 4}),
    _edit("failover-server", Failover, BASE, "spec.serverRef is immutable", serverRef={"name": "db"}),
    _edit("failover-type", Failover, BASE, "spec.type is immutable", type="Failback"),
    _edit("failover-type-gone", Failover, {**BASE, "type": "Failback"}, "spec.type is immutable", type=None),
    _edit("failover-planned", Failover, BASE, "spec.planned is immutable", planned=True),
    _edit("planned-point", Failover, {**BASE, "planned": True}, "a planned failover loses", recoveryPoint="latest"),
    _edit("commit-back", Failover, COMMITTED, "spec.commit cannot be taken back", commit=False),
    _edit("commit-gone", Failover, COMMITTED, "spec.commit cannot be taken back", commit=None),
    _edit("commit-and-point", Failover, FULL, ALONE, commit=True, recoveryPoint="latest"),
    _edit("commit-and-instance", Failover, FULL, ALONE, commit=True, instance={"cpu": 4}),
    _edit("commit-and-no-instance", Failover, FULL, ALONE, commit=True, instance=None),
    _edit("commit-and-checks", Failover, FULL, ALONE, commit=True, checks=[]),
    _edit("commit-and-deadline", Failover, FULL, ALONE, commit=True, startDeadline="1h"),
    _edit("commit-then-point", Failover, COMMITTED, ALONE, recoveryPoint="latest"),
    _edit("commit-then-instance", Failover, COMMITTED, ALONE, instance={"cpu": 4}),
    _edit("commit-then-checks", Failover, COMMITTED, ALONE, checks=None),
    _edit("commit-then-rollback", Failover, COMMITTED, "rollback excludes commit", rollback=True),
    _edit("rollback-to-commit", Failover, {**FULL, "rollback": True}, ALONE, rollback=False, commit=True),
    _edit("rollback-and-commit", Failover, {**FULL, "rollback": True}, "rollback excludes commit", commit=True),
]


@pytest.mark.parametrize("case", [*WRONG, *WRONG_EDITS], ids=lambda case: case.id)
def test_refused_with_advice(cluster: Cluster, case: Case) -> None:
    stored = None if case.before is None else cluster.create(case.kind, case.before)
    with pytest.raises(Refused) as refusal:
        cluster.create(case.kind, case.spec) if stored is None else cluster.replace(case.kind, stored, case.spec)
    assert refusal.value.status in {400, 422}
    assert case.message in refusal.value.message
    assert "evaluation error" not in refusal.value.message
    assert "no such" not in refusal.value.message


RICH: Spec = {
    **BASE,
    "instance": {
        "name": "web-2",
        "cpu": 4,
        "memory": "4Gi",
        "network": "vpc-2",
        "ipAddress": "192.168.0.10",
        "useSSD": True,
        "elasticIP": "203.0.113.7",
        "postScript": {"inline": "#!/bin/sh\nsystemctl restart web\n"},
    },
    "checks": [
        {"name": "web", "httpGet": {"port": 443, "path": "/health?full=1", "status": 200, "contains": "ok"}},
        {"name": "sql", "tcpSocket": {"port": 5432}, "timeoutSeconds": 60},
        {"name": "in-guest", "exec": {"command": ["pg_isready", "-q"]}},
    ],
}
REVERSE = {"enabled": True, "direction": "Reverse"}

RIGHT: list[tuple[str, type[Resource], Spec]] = [
    ("pair", SitePair, PAIR),
    (
        "pair-full",
        SitePair,
        {
            "type": "ZoneToZone",
            "primary": {"zone": "a", "network": "vpc_1", "replicationNetwork": "rep.1", "recoveryNetwork": "R"},
            "recovery": {"zone": "z" * 63},
            "engine": {"qemu": {}},
        },
    ),
    (
        "pair-kubevirt",
        SitePair,
        {
            **PAIR,
            "engine": {
                "ceph": {
                    "primary": {"secretRef": {"name": "a"}, "compute": {"host": {}}},
                    "recovery": {
                        "secretRef": {"name": "b"},
                        "compute": {
                            "kubevirt": {
                                **KUBEVIRT,
                                "kubeconfigSecretRef": {"name": "kubernetes-b"},
                                "namespace": "servers",
                                "driver": "rook-ceph.rbd.csi.ceph.com",
                                "mounter": "rbd-nbd",
                                "networks": [
                                    {"name": "R", "multus": "a/b", "isolated": "c", "cidr": "10.0.0.0/24"},
                                    {"name": "storage", "pod": {}},
                                ],
                            }
                        },
                    },
                }
            },
        },
    ),
    ("server", ProtectedServer, SERVER),
    ("server-enabled", ProtectedServer, ENABLED),
    (
        "server-full",
        ProtectedServer,
        {
            **SERVER,
            "deletionPolicy": "Delete",
            "replication": {
                **REVERSE,
                "originalMachine": True,
                "confirmWipe": "vm-17",
                "recoveryPoints": [
                    {"every": "10s", "for": "60s"},
                    {"every": "1h", "for": "24h", "applicationConsistent": True},
                    {"every": "24h", "for": "2352h"},
                ],
                "useSSD": True,
                "replicationNetwork": "rep",
                "recoveryNetwork": "rec",
                "bandwidthLimit": "50Mi",
            },
        },
    ),
    ("server-reverse-copy", ProtectedServer, {**SERVER, "replication": {**REVERSE, "originalMachine": False}}),
    ("server-bandwidth-integer", ProtectedServer, {**SERVER, "replication": {"bandwidthLimit": 1000000}}),
    (
        "server-128-points",
        ProtectedServer,
        {**SERVER, "replication": {"recoveryPoints": [{"every": "1h", "for": "128h"}]}},
    ),
    ("drill", Drill, BASE),
    ("drill-full", Drill, {**RICH, "ttl": "1h30m", "running": True}),
    ("drill-cleared", Drill, {**BASE, "running": False}),
    ("drill-memory-integer", Drill, {**BASE, "instance": {"memory": 4294967296, "elasticIP": "auto"}}),
    ("failover", Failover, BASE),
    ("failover-full", Failover, {**RICH, "type": "Failover", "planned": True, "startDeadline": "90s", "commit": False}),
    ("failover-committed", Failover, COMMITTED),
    ("failover-rolled-back", Failover, {**BASE, "rollback": True}),
    ("failback", Failover, {**BASE, "type": "Failback"}),
    *(
        (f"{kind.__name__.lower()}-point-{point}", kind, {**BASE, "recoveryPoint": point})
        for kind in (Drill, Failover)
        for point in (
            "latest",
            "latest-application-consistent",
            "p20260131t120000z",
            "2026-01-31T12:00:00Z",
            "2026-01-31T12:00:00.25+02:00",
            "2024-02-29T00:00:00Z",
        )
    ),
    *((f"failover-point-{point}", Failover, {**BASE, "recoveryPoint": point}) for point in ("current", "attempt-2")),
]


def _holds(whole: object, part: object) -> bool:
    """Whether the part is in the whole, which may have defaults beside it."""
    match whole, part:
        case Mapping(), Mapping():
            return all(key in whole and _holds(whole[key], value) for key, value in part.items())
        case _:
            return whole == part


@pytest.mark.parametrize(("kind", "spec"), [case[1:] for case in RIGHT], ids=[case[0] for case in RIGHT])
def test_accepted_and_read_back(cluster: Cluster, kind: type[Resource], spec: Spec) -> None:
    stored = cluster.create(kind, spec)
    assert _holds(stored["spec"], spec)
    assert kind.parse(stored).metadata.name == stored["metadata"]["name"]


RIGHT_EDITS: list[tuple[str, type[Resource], Spec, Spec]] = [
    ("networks", SitePair, PAIR, {**PAIR, "primary": {"zone": "eu-1a", "network": "vpc-9"}}),
    ("engine-spelled-out", SitePair, PAIR, {**PAIR, "engine": {"qemu": {}}}),
    ("engine-left-out", SitePair, {**PAIR, "engine": {"qemu": {}}}, PAIR),
    ("enabled", ProtectedServer, SERVER, ENABLED),
    ("reverse", ProtectedServer, ENABLED, {**SERVER, "replication": REVERSE}),
    ("drill-cleared", Drill, RICH, {**RICH, "running": False}),
    ("drill-default-spelled-out", Drill, BASE, {**BASE, "recoveryPoint": "latest"}),
    ("instance", Failover, FULL, {**FULL, "instance": {"cpu": 4}}),
    ("point", Failover, FULL, {**FULL, "recoveryPoint": "hourly-1"}),
    ("commit", Failover, RICH, {**RICH, "commit": True}),
    ("rollback", Failover, RICH, {**RICH, "rollback": True}),
]


@pytest.mark.parametrize(
    ("kind", "before", "after"), [case[1:] for case in RIGHT_EDITS], ids=[case[0] for case in RIGHT_EDITS]
)
def test_edit_accepted(cluster: Cluster, kind: type[Resource], before: Spec, after: Spec) -> None:
    stored = cluster.replace(kind, cluster.create(kind, before), after)
    assert _holds(stored["spec"], after)


UNKNOWN: list[tuple[type[Resource], Spec, str]] = [
    (SitePair, {**PAIR, "site": "x"}, 'unknown field "spec.site"'),
    (SitePair, {**PAIR, "engine": {"qemu": {}, "hdr": {}}}, 'unknown field "spec.engine.hdr"'),
    (ProtectedServer, {**SERVER, "replication": {"useSsd": True}}, 'unknown field "spec.replication.useSsd"'),
    (Drill, {**BASE, "commit": True}, 'unknown field "spec.commit"'),
    (Failover, {**BASE, "checks": [{**TICK, "retries": 3}]}, 'unknown field "spec.checks[0].retries"'),
]


@pytest.mark.parametrize(("kind", "spec", "message"), UNKNOWN)
def test_unknown_field_refused_when_strict(cluster: Cluster, kind: type[Resource], spec: Spec, message: str) -> None:
    with pytest.raises(Refused, match="strict decoding error") as refusal:
        cluster.create(kind, spec)
    assert refusal.value.status == 400
    assert message in refusal.value.message
    cluster.create(kind, spec, strict=False)
