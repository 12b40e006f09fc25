"""A real Argo CD syncs the shipped examples from a git repository, with real machines in both zones.

Each test goes on where the one before ended.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo import rows, world
from demo.argocd import settings
from demo.argocd.server import NAMESPACE, ArgoCD
from demo.story import DATABASE, SERVER, writing
from demo.world import World, phase_is, ready
from tests.unit.test_docs import blocks

pytestmark = pytest.mark.timeout(1800)
ROOT = settings.ARGOCD.parent
EXAMPLES = settings.ARGOCD / "examples"
PAGE = ROOT / "docs" / "how-to" / "gitops.md"
SOURCE, RECOVERED = "127.0.61.5", "127.0.60.5"
PAIR, FAILOVER = "a-to-b", "zone-a-lost"
PROTECTION, FAILOVERS = "lifeboat-protection", "lifeboat-failover"  # the two Applications

Object = dict[str, Any]


def example(path: str) -> Object:
    found: Object = yaml.safe_load((EXAMPLES / path).read_text(encoding="utf-8"))
    return found


def pair() -> Object:
    return example("protection/1-site-pair.yaml")


def server() -> Object:
    return example("protection/2-server.yaml")


def failover(recovery_point: str = "current") -> Object:
    """The example at an address that is reached from here, and at a point."""
    found = example("failover/failover.yaml")
    found["spec"] |= {"recoveryPoint": recovery_point, "instance": {"elasticIP": RECOVERED}}
    return found


def unprotected(manifest: Object) -> Object:
    """A manifest without what keeps Argo CD from pruning it."""
    found = copy.deepcopy(manifest)
    del found["metadata"]["annotations"]["argocd.argoproj.io/sync-options"]
    return found


@pytest.fixture(scope="module")
def site() -> Iterator[World]:
    """The demo's world, at addresses of its own."""
    folder = Path(tempfile.mkdtemp(prefix="lifeboat-argocd-"))
    zones = folder / "inventories"
    shutil.copytree(world.HERE / "zones", zones)
    for inventory in zones.glob("*/inventory.yaml"):
        inventory.write_text(inventory.read_text(encoding="utf-8").replace("127.0.1", "127.0.6"), encoding="utf-8")
    made = World(folder, zones_from=zones)
    try:
        made.up(lambda _: None)
        yield made
    finally:
        made.down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def argo(site: World) -> Iterator[ArgoCD]:
    made = ArgoCD(site.control_plane, site.folder / "argocd")
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def log(site: World) -> Path:
    """The rows that the source has acknowledged to a client outside."""
    return site.folder / "acknowledged-rows.log"


def last_sync(status: Object) -> Object:
    """What an Application's status says of the last sync; nothing between the order for one and its start."""
    found: Object = status.get("operationState", {})
    return found


def synced_to_head(argo: ArgoCD, status: Object) -> bool:
    """Whether the last sync was of what was pushed last, and ended well."""
    last = last_sync(status)
    revisions = {status.get("sync", {}).get("revision"), last.get("syncResult", {}).get("revision")}
    return bool(last.get("phase") == "Succeeded" and revisions == {argo.head})


def well(status: Object) -> bool:
    told = (status.get("sync", {}).get("status"), status.get("health", {}).get("status"))
    return bool(last_sync(status).get("phase") == "Succeeded" and told == ("Synced", "Healthy"))


def sync_by_itself(argo: ArgoCD, *, seconds: float = 180.0) -> None:
    """Wait until `protection` has been synced to what was pushed last, and is well."""
    argo.refresh(PROTECTION)
    argo.until(PROTECTION, lambda status: synced_to_head(argo, status) and well(status), seconds=seconds)


def outcome(status: Object, kind: str) -> tuple[str, str]:
    """What the last sync says that it did to the one object of a kind."""
    (found,) = (each for each in last_sync(status)["syncResult"]["resources"] if each["kind"] == kind)
    return found["status"], found["message"]


def objects(site: World, kind: str) -> list[Object]:
    found: list[Object] = json.loads(site.kubectl("get", kind, "-o", "json"))["items"]
    return found


def ready_since(found: Object) -> str:
    (condition,) = (each for each in found["status"]["conditions"] if each["type"] == "Ready")
    assert condition["status"] == "True"
    return str(condition["lastTransitionTime"])


def points(site: World) -> set[str]:
    return {point["name"] for point in site.get("ps", SERVER)["status"]["recoveryPoints"]}


def processes(site: World, name: str = "*.pid") -> dict[str, str]:
    """Machines and storage daemons of both zones: what must not change where nothing is to be disturbed."""
    return {str(file.relative_to(site.zones)): file.read_text().strip() for file in site.zones.rglob(name)}


def present() -> set[int]:
    """The rows that the recovered server has."""
    return asyncio.run(rows.present(RECOVERED, DATABASE))


def serves(point: str) -> Callable[[Object], bool]:
    def wanted(found: Object) -> bool:
        return bool(ready(found) and found["status"]["recoveryPoint"]["spec"] == point)

    return wanted


@pytest.mark.usefixtures("argo")
def test_the_page_s_commands_teach_argo_cd_the_four_kinds(site: World) -> None:
    environment = {
        **os.environ,
        "KUBECONFIG": str(site.kubeconfig),
        "PATH": f"{site.folder / 'bin'}:{os.environ.get('PATH', os.defpath)}",
    }
    (commands,) = blocks(PAGE, "sh")
    subprocess.run(["bash", "-euc", commands], cwd=ROOT, env=environment, check=True, timeout=60)
    known = json.loads(site.control_plane.kubectl("-n", NAMESPACE, "get", "configmap", "argocd-cm", "-o", "json"))
    assert known["data"] == settings.data()


def test_waves_wait_for_real_replication(argo: ArgoCD, site: World) -> None:
    shutil.copytree(EXAMPLES / "protection", argo.repository / "protection")
    argo.push("Protect the orders")
    argo.apply(example("protection-application.yaml"))
    argo.until(PROTECTION, lambda status: synced_to_head(argo, status) and well(status), seconds=300)
    sites, protected, (drill,) = site.get("sp", PAIR), site.get("ps", SERVER), objects(site, "dr")
    moments = [
        ready_since(sites),
        protected["metadata"]["creationTimestamp"],
        ready_since(protected),
        drill["metadata"]["creationTimestamp"],
        ready_since(drill),
    ]
    assert moments == sorted(moments), "pair Ready, then the server; server replicates, then the drill"
    assert protected["status"]["phase"] == "Replicating"
    assert protected["status"]["progress"]["copiedBytes"] > 100 << 20, "the disks were copied before"
    assert (drill["status"]["phase"], drill["status"]["result"]) == ("Running", "Passed")


def test_an_edit_by_hand_is_put_back_and_nothing_is_disturbed(argo: ArgoCD, site: World) -> None:
    before, running = site.get("ps", SERVER), processes(site)
    tiers, unsaid = [{"every": "5m", "for": "1h"}], {"bandwidthLimit": "1Gi"}
    site.patch("ps", SERVER, {"replication": {"recoveryPoints": tiers, **unsaid}})
    after = site.until("ps", SERVER, lambda ps: ps["metadata"]["generation"] == 3 and ready(ps), seconds=60)
    assert before["metadata"]["generation"] == 1
    assert after["spec"]["replication"] == before["spec"]["replication"] | unsaid, "Git is silent about the limit"
    assert ready_since(after) == ready_since(before), "it was protected all the time"
    assert processes(site) == running
    argo.until(PROTECTION, well)
    assert len(objects(site, "dr")) == 1, "what is put back is no new sync with a drill"


def test_replication_that_is_turned_off_by_hand_is_turned_on_again(argo: ArgoCD, site: World) -> None:
    oldest, machines = min(points(site)), processes(site, "machine.pid")
    site.patch("ps", SERVER, {"replication": {"enabled": False}})
    site.until("ps", SERVER, lambda ps: ps["metadata"]["generation"] == 5 and ready(ps), seconds=120)
    assert site.get("ps", SERVER)["status"]["phase"] == "Replicating"
    assert oldest in points(site), "of an hour the first point is kept"
    assert processes(site, "machine.pid") == machines
    argo.until(PROTECTION, well)


def test_then_there_is_no_drift_and_nobody_fights(argo: ArgoCD, site: World) -> None:
    before = argo.until(PROTECTION, well)
    argo.refresh(PROTECTION)
    after = argo.until(PROTECTION, lambda status: status["reconciledAt"] > before["reconciledAt"])
    assert well(after)
    assert last_sync(after) == last_sync(before)
    assert site.get("ps", SERVER)["metadata"]["generation"] == 5


def test_a_prune_of_an_unprotected_server_keeps_what_was_copied_for_its_return(argo: ArgoCD, site: World) -> None:
    site.kubectl("delete", "dr", "--all", "--timeout=60s")
    argo.lay("protection", pair(), unprotected(server()))
    argo.push("Protect the server no more from pruning")
    sync_by_itself(argo)
    oldest, machines = min(points(site)), processes(site, "machine.pid")
    disks = set(site.zones.rglob("*.qcow2"))
    argo.lay("protection", pair())
    argo.push("Lose the server's manifest")
    sync_by_itself(argo)
    assert objects(site, "ps") == []
    assert processes(site, "machine.pid") == machines, "the source goes on"
    assert disks <= set(site.zones.rglob("*.qcow2"))
    argo.lay("protection", pair(), server())
    argo.push("Put the server's manifest back")
    sync_by_itself(argo)
    assert site.get("ps", SERVER)["status"]["phase"] == "Replicating"
    assert oldest in points(site), "the failover goes back to it below"


def test_a_failover_is_synced_while_the_primary_zone_is_dead(argo: ArgoCD, site: World, log: Path) -> None:
    with writing(log, SOURCE) as client:
        deadline = time.monotonic() + 60
        while rows.last_acknowledged(log) < 20:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        site.silence("zone-a")
        site.kill_server(SERVER)
        client.wait(30)
    argo.lay("failover", failover())
    argo.push("Fail the orders over")
    argo.apply(example("failover-application.yaml"))
    argo.until(FAILOVERS, lambda status: status.get("sync", {}).get("status") == "OutOfSync")
    assert objects(site, "fo") == [], "nothing syncs it by itself"
    argo.sync(FAILOVERS)
    found = site.until("fo", FAILOVER, serves("current"))
    assert (found["status"]["phase"], found["status"]["result"]) == ("AwaitingCommit", "Passed")
    argo.until(FAILOVERS, well)
    assert rows.acknowledged(log).keys() <= present()


def test_a_revert_of_the_recovery_point_is_refused_and_the_point_s_name_is_not(
    argo: ArgoCD, site: World, log: Path
) -> None:
    earlier = min(point for point in points(site) if point.startswith("rp-"))
    argo.lay("failover", failover(earlier))
    argo.push("Try an earlier point")
    argo.sync(FAILOVERS)
    site.until("fo", FAILOVER, serves(earlier))
    assert not rows.acknowledged(log).keys() & present(), "it is of before the first row"
    machines = processes(site, "machine.pid")
    argo.revert()
    argo.sync(FAILOVERS)
    told = argo.until(FAILOVERS, lambda status: status["health"]["status"] == "Degraded")
    assert told["sync"]["status"] == "Synced"
    (stalled,) = (c for c in site.get("fo", FAILOVER)["status"]["conditions"] if c["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "CurrentUsed")
    assert processes(site, "machine.pid") == machines, "the running server is left alone"
    argo.lay("failover", failover("tip-1"))
    argo.push("Go back to today's data")
    argo.sync(FAILOVERS)
    site.until("fo", FAILOVER, serves("tip-1"))
    assert rows.acknowledged(log).keys() <= present()


def test_a_prune_of_what_the_examples_protect_is_skipped_and_reported(argo: ArgoCD, site: World) -> None:
    machines = processes(site, "machine.pid")
    argo.lay("failover")
    argo.lay("protection", pair())
    argo.push("Lose all manifests but the pair's")
    assert outcome(argo.sync(FAILOVERS, prune=True), "Failover") == ("PruneSkipped", "ignored (no prune)")
    argo.refresh(PROTECTION)
    waits = f"waiting for healthy state of lifeboat.dev/SitePair/{PAIR}"
    argo.until(PROTECTION, lambda status: last_sync(status).get("message") == waits)
    site.answer("zone-a")
    told = argo.until(PROTECTION, lambda status: synced_to_head(argo, status))
    assert outcome(told, "ProtectedServer") == ("PruneSkipped", "ignored (no prune)")
    for kind, name in (("ps", SERVER), ("fo", FAILOVER)):
        assert "deletionTimestamp" not in site.get(kind, name)["metadata"]
    assert processes(site, "machine.pid") == machines


def test_a_pruned_failover_leaves_the_recovered_server_serving_and_its_record(
    argo: ArgoCD, site: World, log: Path
) -> None:
    before, machines = site.get("fo", FAILOVER)["status"], processes(site, "machine.pid")
    argo.lay("failover", unprotected(failover("tip-1")))
    argo.push("Protect the failover no more from pruning")
    argo.sync(FAILOVERS)
    argo.lay("failover")
    argo.push("Lose its manifest")
    assert outcome(argo.sync(FAILOVERS, prune=True), "Failover") == ("Pruned", "pruned")
    assert objects(site, "fo") == []
    assert rows.acknowledged(log).keys() <= present()
    site.until("ps", SERVER, phase_is("FailedOver"))
    argo.lay("failover", failover("tip-1"))
    argo.push("Put it back")
    argo.sync(FAILOVERS)
    after = site.until("fo", FAILOVER, serves("tip-1"))["status"]
    assert (after["history"], after["timings"]) == (before["history"], before["timings"])
    assert processes(site, "machine.pid") == machines
    argo.until(FAILOVERS, well)


def test_a_commit_in_git_is_not_taken_back_by_a_revert(argo: ArgoCD, site: World, log: Path) -> None:
    committed = failover("tip-1")
    committed["spec"]["commit"] = True
    argo.lay("failover", committed)
    argo.push("Commit")
    argo.sync(FAILOVERS)
    site.until("fo", FAILOVER, phase_is("Committed"))
    argo.revert()
    with pytest.raises(AssertionError, match=r"spec\.commit cannot be taken back"):
        argo.sync(FAILOVERS)
    assert site.get("fo", FAILOVER)["spec"]["commit"]
    assert rows.acknowledged(log).keys() <= present()


def test_deleting_the_applications_leaves_what_the_examples_protect(argo: ArgoCD, site: World) -> None:
    for name in (PROTECTION, FAILOVERS):
        argo.delete(name)
    for kind, name in (("sp", PAIR), ("ps", SERVER), ("fo", FAILOVER)):
        assert "deletionTimestamp" not in site.get(kind, name)["metadata"]
