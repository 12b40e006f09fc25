"""The road on real machines, in the order in which a person walks it. Each test goes on where the one before ended."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from demo.world import NAMESPACE, RELEASE, phase_is, ready
from tests import rights
from tests.e2e.conftest import ARCHIVE_BYTES, ARCHIVE_USED, PAIR, SERVER, RealWorld, Site
from tests.e2e.rebuilding import rebuild_and_compare, serving

pytestmark = pytest.mark.timeout(900)

DRILL: dict[str, Any] = {
    "apiVersion": "lifeboat.dev/v1alpha1",
    "kind": "Drill",
    "metadata": {"name": "rehearsal"},
    "spec": {
        "serverRef": {"name": "web"},
        "instance": {
            "name": "web-rehearsal",
            "cpu": 2,
            "memory": "256Mi",
            "network": "vpc-b-recovery",
            "ipAddress": "10.20.2.50",
            "useSSD": True,
            "elasticIP": "127.0.23.6",
            "postScript": {"inline": "echo recovered > /tmp/recovered; cat /tmp/recovered; exit 0"},
        },
        "checks": [
            {"name": "web", "httpGet": {"port": 80, "path": "/cgi-bin/info", "contains": "cpus"}},
            {"name": "port", "tcpSocket": {"port": 80}},
            {"name": "script-ran", "exec": {"command": ["cat", "/tmp/recovered"]}},
        ],
    },
}

FAILOVER: dict[str, Any] = {
    "apiVersion": "lifeboat.dev/v1alpha1",
    "kind": "Failover",
    "metadata": {"name": "disaster"},
    "spec": {
        "serverRef": {"name": "web"},
        "instance": {"ipAddress": "10.20.2.10", "elasticIP": "127.0.23.5"},
        "checks": [{"name": "web", "httpGet": {"port": 80, "path": "/cgi-bin/rows"}}],
    },
}

# What would pause or slow replication, of all that can be asked of QEMU.
DISTURBING = {
    "block-job-pause", "block-job-cancel", "block-job-set-speed", "block-job-complete", "stop", "job-pause",
    "job-cancel", "block_set_io_throttle", "blockdev-reopen", "block-export-del", "nbd-server-stop",
}  # fmt: skip


def points_of(world: RealWorld, name: str = "web") -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = world.get("ps", name)["status"].get("recoveryPoints", [])
    return sorted(points, key=lambda point: str(point["time"]))


def commands(world: RealWorld, server: str) -> list[str]:
    """What the operator has asked of the server's own QEMU and of its replica's storage daemon, in order."""
    marks = (f"/servers/{server}/", f"/replicas/{server}/")
    lines = (line for line in world.operator_log.read_text().splitlines() if '"execute": ' in line)
    ours = (line for line in lines if any(mark in line for mark in marks))
    return [str(json.loads(line[line.index("{") : line.rindex("}") + 1])["execute"]) for line in ours]


def test_a_server_replicates_and_the_columns_tell_it(world: RealWorld, source: Site) -> None:
    source.write(1)
    world.apply(SERVER.format(name="web"))
    world.until("ps", "web", phase_is("Replicating"))
    world.kubectl("wait", "--for=condition=Ready", "ps/web", "--timeout=30s")
    source.write(2)
    line = world.kubectl("get", "ps", "web", "--no-headers").split()
    assert line[:5] == ["web", "web", "Replicating", "100", "0"]
    assert "Primary" in line
    # An Event follows the status that it is about. What a copy this small passes on its way may end unseen.
    deadline = time.monotonic() + 30
    while "every write reaches the replica" not in _events(world.kubectl("describe", "ps", "web")):
        assert time.monotonic() < deadline, "no Event tells that it is protected"
        time.sleep(0.1)


def test_applying_everything_twice_changes_nothing(world: RealWorld) -> None:
    manifest = f"{PAIR}\n---\n{SERVER.format(name='web')}"
    generations = [world.get(kind, name)["metadata"]["generation"] for kind, name in (("sp", "a-to-b"), ("ps", "web"))]
    world.apply(manifest)
    assert world.kubectl("diff", "-f", "-", stdin=manifest) == ""
    assert generations == [1, 1], "the operator never writes spec"


def test_a_client_that_comes_up_late_is_completed_by_a_restart(world: RealWorld) -> None:
    world.apply(SERVER.format(name="late"))
    Site("127.0.21.6").get("/cgi-bin/info")
    found = world.until("ps", "late", lambda ps: bool(ps.get("status", {}).get("conditions")))
    assert found["status"]["phase"] == "InstallingAgent"
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    world.kubectl("annotate", "ps", "late", f"lifeboat.dev/restartedAt={now}")
    copying = world.until("ps", "late", phase_is("FullSync", "Replicating"))
    done = world.until("ps", "late", phase_is("Replicating"))
    total = done["status"]["progress"]["totalBytes"]
    assert ARCHIVE_USED < total < ARCHIVE_USED * 1.3, "allocated data, not the disks' size"
    sizes = {disk["name"]: disk["sizeBytes"] for disk in copying["status"]["server"]["disks"]}
    assert sizes["archive"] == ARCHIVE_BYTES
    world.kubectl("patch", "ps", "late", "--type=merge", "-p", '{"spec":{"replication":{"enabled":false}}}')
    world.until("ps", "late", phase_is("Stopped"))


def test_a_drill_has_all_that_was_asked_and_disturbs_nothing(world: RealWorld, source: Site) -> None:
    world.until("ps", "web", lambda ps: ps["status"]["recoveryPointCount"] >= 2)
    point = points_of(world)[-1]["name"]
    before = len(commands(world, "web"))
    drill = {**DRILL, "spec": {**DRILL["spec"], "recoveryPoint": point}}
    world.apply(json.dumps(drill))
    world.kubectl("wait", "--for=condition=Ready", "dr/rehearsal", "--timeout=180s")
    status = world.get("dr", "rehearsal")["status"]
    assert (status["phase"], status["result"]) == ("Running", "Passed")
    assert status["recoveryPoint"]["name"] == point
    assert status["postScript"] == {"exitCode": 0, "output": "recovered\n"}
    assert status["timings"]["rtoSeconds"] > 0
    drilled = Site("127.0.23.6")
    info = json.loads(drilled.get("/cgi-bin/info"))
    assert info["cpus"] == 2
    assert 180_000 < info["memory_kib"] < 262_144
    assert info["ip"] == "10.20.2.50"
    assert list((world.zones / "zone-b/storage/ssd").rglob("*rehearsal*")), "its disks are on the fast tier"
    assert drilled.rows()[:2] == [1, 2]
    for number in range(3, 8):
        source.write(number)
    drilled.write(99)
    count = world.get("ps", "web")["status"]["recoveryPoints"][0]["name"]
    world.until("ps", "web", lambda ps: ps["status"]["recoveryPoints"][0]["name"] != count)
    found = world.get("ps", "web")["status"]
    assert found["phase"] == "Replicating"
    assert found["lagSeconds"] == 0
    asked = commands(world, "web")[before:]
    assert {"query-block-jobs", "transaction"} <= set(asked), "what is asked of QEMU is in the operator's log"
    assert not DISTURBING & set(asked)
    used = next(p for p in found["recoveryPoints"] if p["name"] == point)
    assert (used["state"], used["testedBy"]) == ("InUse", "rehearsal")


def test_what_cannot_be_is_refused_with_a_reason(world: RealWorld) -> None:
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "network": ({"instance": {"network": "nowhere"}}, "UnknownNetwork"),
        "outside": ({"instance": {"ipAddress": "10.99.0.1"}}, "AddressOutsideNetwork"),
        "gateway": ({"instance": {"ipAddress": "10.20.2.2"}}, "AddressTaken"),
        "memory": ({"instance": {"memory": "64Gi"}}, "TooLarge"),
        "elastic": ({"instance": {"elasticIP": "127.0.23.6"}}, "ElasticIPUnavailable"),
        "point": ({"recoveryPoint": "no-such-point"}, "UnknownPoint"),
        "server": ({"serverRef": {"name": "nobody"}}, "ServerNotFound"),
    }
    for name, (spec, _) in cases.items():
        body = {**DRILL, "metadata": {"name": name}, "spec": {"serverRef": {"name": "web"}, **spec}}
        world.apply(json.dumps(body))
    for name, (_, reason) in cases.items():
        found = world.until("dr", name, lambda dr: bool(dr.get("status", {}).get("conditions")), seconds=30)
        said = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
        assert (found["status"]["phase"], said["status"], said["reason"]) == ("Pending", "False", reason), name
        events = world.kubectl("get", "events", "--field-selector", f"involvedObject.name={name}", "-o", "name").split()
        assert len(events) == 1, f"{name}: one event, not {len(events)}"
    world.kubectl("delete", "dr", *cases, "--timeout=30s")


def test_a_pair_with_an_unknown_zone_and_an_unknown_server_say_so(world: RealWorld) -> None:
    world.apply(PAIR.replace("a-to-b", "elsewhere").replace("zone: zone-b", "zone: zone-x"))
    found = world.until("sp", "elsewhere", lambda sp: bool(sp.get("status", {}).get("conditions")))
    said = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
    assert said["status"] == "Unknown"
    assert "zone-x" in said["message"]
    world.apply(SERVER.format(name="nobody"))
    found = world.until("ps", "nobody", lambda ps: bool(ps.get("status", {}).get("conditions")))
    said = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
    assert said["reason"] == "UnknownServer"
    assert "web" in said["message"], "it says which servers there are"
    world.kubectl("delete", "sp/elsewhere", "ps/nobody", "--timeout=30s")


def test_a_corrupt_inventory_names_file_and_line_and_stops_nothing(world: RealWorld, source: Site) -> None:
    inventory = world.zones / "zone-b" / "inventory.yaml"
    good = inventory.read_text()
    inventory.write_text(good.replace("cidr: 10.20.3.0/24", "cidr: nonsense"))
    try:
        found = world.until("sp", "a-to-b", lambda sp: not ready(sp))
        message = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")["message"]
        line = good.splitlines().index(next(text for text in good.splitlines() if "10.20.3.0/24" in text)) + 1
        assert f"inventory.yaml, line {line}" in message
        source.write(20)
    finally:
        inventory.write_text(good)
    world.until("sp", "a-to-b", ready)
    world.until("ps", "web", ready)


def test_clearing_the_drill_removes_its_server_and_keeps_its_record(world: RealWorld) -> None:
    world.patch("dr", "rehearsal", {"running": False})
    world.until("dr", "rehearsal", phase_is("CleanedUp"))
    assert world.get("dr", "rehearsal")["status"]["result"] == "Passed"
    assert not [name for name in serving(world) if "rehearsal" in name]
    assert not list((world.zones / "zone-b/storage").rglob("*rehearsal*"))


def test_a_drill_starts_from_a_point_for_which_the_guest_was_frozen(world: RealWorld, source: Site) -> None:
    spec = {
        "serverRef": {"name": "web"},
        "recoveryPoint": "latest-application-consistent",
        "instance": {"elasticIP": "127.0.23.6"},
        "checks": [{"name": "web", "httpGet": {"port": 80, "path": "/cgi-bin/rows", "contains": "30"}}],
    }
    world.apply(json.dumps({**DRILL, "metadata": {"name": "frozen"}, "spec": spec}))
    found = world.until("dr", "frozen", lambda dr: bool(dr.get("status", {}).get("conditions")), seconds=30)
    said = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
    assert (found["status"]["phase"], said["status"], said["reason"]) == ("Pending", "False", "NoRecoveryPoint")
    assert "no application-consistent recovery point" in said["message"]
    source.write(30)
    acknowledged = source.rows()
    tiers = [{"every": "10s", "for": "10m"}, {"every": "10s", "for": "10m", "applicationConsistent": True}]
    world.patch("ps", "web", {"replication": {"recoveryPoints": tiers}})
    world.kubectl("wait", "--for=condition=Ready", "dr/frozen", "--timeout=180s")
    status = world.get("dr", "frozen")["status"]
    assert (status["phase"], status["result"]) == ("Running", "Passed")
    point = next(point for point in points_of(world) if point["name"] == status["recoveryPoint"]["name"])
    assert (point["consistency"], point["testedBy"]) == ("Application", "frozen")
    assert set(acknowledged) <= set(Site("127.0.23.6").rows())
    source.write(31)
    world.patch("dr", "frozen", {"running": False})
    world.until("dr", "frozen", phase_is("CleanedUp"))
    world.apply(SERVER.format(name="web"))


def test_a_failover_at_current_after_sigkill_loses_no_acknowledged_write(world: RealWorld, source: Site) -> None:
    acknowledged = source.rows()
    for number in range(100, 140):
        source.write(number)
        acknowledged.append(number)
    world.kill_server("web")
    world.apply(json.dumps(FAILOVER))
    world.kubectl("wait", "--for=condition=Ready", "fo/disaster", "--timeout=180s")
    recovered = Site("127.0.23.5")
    assert set(acknowledged) <= set(recovered.rows())
    found = world.get("fo", "disaster")["status"]
    assert (found["phase"], found["result"], found["instance"]["ipAddress"]) == (
        "AwaitingCommit",
        "Passed",
        "10.20.2.10",
    )
    fenced = next(c for c in found["conditions"] if c["type"] == "SourceFenced")
    assert fenced["status"] == "True"
    with pytest.raises(Exception, match="fenced"):
        world.start_server("web")


def test_a_second_failover_is_refused_for_good(world: RealWorld) -> None:
    world.apply(json.dumps({**FAILOVER, "metadata": {"name": "second"}}))
    found = world.until("fo", "second", phase_is("Failed"))
    assert next(c for c in found["status"]["conditions"] if c["type"] == "Ready")["reason"] == "FailoverExists"


def test_losing_every_status_and_object_while_awaiting_commit_changes_nothing(world: RealWorld) -> None:
    rebuild_and_compare(world)


def test_the_point_is_changed_and_changed_back(world: RealWorld) -> None:
    older = points_of(world)[0]
    world.patch("fo", "disaster", {"recoveryPoint": older["name"]})
    world.until("fo", "disaster", _serves(older["name"]))
    recovered = Site("127.0.23.5")
    assert max(recovered.rows()) < 100, "the older point has none of the later rows"
    world.patch("fo", "disaster", {"recoveryPoint": "latest"})
    world.until("fo", "disaster", _serves("latest"))
    assert max(recovered.rows()) == 139
    world.patch("fo", "disaster", {"recoveryPoint": "current"})
    world.until("fo", "disaster", _stalled("CurrentUsed"))
    assert max(recovered.rows()) == 139, "a refused edit leaves the server alone"
    world.patch("fo", "disaster", {"recoveryPoint": "latest"})
    world.until("fo", "disaster", ready)


def test_commit_frees_replica_and_points_and_the_server_is_independent(world: RealWorld) -> None:
    world.patch("fo", "disaster", {"commit": True})
    world.kubectl("wait", "--for=jsonpath={.status.phase}=Committed", "fo/disaster", "--timeout=180s")
    world.until("ps", "web", phase_is("Committed"))
    assert world.get("ps", "web")["status"]["recoveryPointCount"] == 0
    recovered = Site("127.0.23.5")
    recovered.write(500)
    assert 500 in recovered.rows()
    rebuild_and_compare(world)


def test_a_committed_failover_cannot_be_taken_back(world: RealWorld) -> None:
    with pytest.raises(Exception, match=r"spec\.commit cannot be taken back"):
        world.patch("fo", "disaster", {"commit": False})


def test_the_operator_needed_what_the_chart_grants_on_this_road(world: RealWorld) -> None:
    asked = rights.requests(world.control_plane.audit_log, RELEASE, NAMESPACE)
    granted = rights.granted(world.control_plane, RELEASE, NAMESPACE)
    assert rights.refused(asked, granted) == set()
    rest = {(right.resource, right.verb) for right in rights.unused(granted, asked)}
    # Scripts in ConfigMaps, and a second look at what somebody else has changed: tests/chart shows what needs them.
    assert rest <= {(each, "get") for each in ("configmaps", "sitepairs", "protectedservers", "drills", "failovers")}


def _events(described: str) -> str:
    return described.partition("\nEvents:")[2]


def _serves(requested: str) -> Any:
    def wanted(found: dict[str, Any]) -> bool:
        status = found["status"]
        return bool(status["phase"] == "AwaitingCommit" and status["recoveryPoint"]["spec"] == requested)

    return wanted


def _stalled(reason: str) -> Any:
    """Stalled for this reason. That it is not ready says less: so it is until the operator has seen an edit."""

    def wanted(found: dict[str, Any]) -> bool:
        conditions = found["status"]["conditions"]
        return any((c["type"], c["status"], c["reason"]) == ("Stalled", "True", reason) for c in conditions)

    return wanted
