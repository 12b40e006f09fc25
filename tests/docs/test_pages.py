"""The pages are gone through, on real machines: each command that they tell to type is typed and does what they say.

One reader, one world, one story, in the order in which the tests stand: a quick start, looks and drills, days that are
bad in several ways, and the way home.
"""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from demo.controlplane import ControlPlane
from demo.world import NAMESPACE, phase_is, ready
from lifeboat.host import processes
from tests import pages
from tests.conftest import FIRST_BUILD_SECONDS
from tests.docs.conftest import PAGES, Reader

pytestmark = [pytest.mark.timeout(2 * FIRST_BUILD_SECONDS), pytest.mark.qemu]

SERVER = "orders-db"
BY_HAND = "lifeboat operator --zones /var/lib/lifeboat/zones --kubeconfig ~/.kube/config"
PROTECT = "kubectl apply -f demo/manifests/1-sitepair.yaml -f demo/manifests/2-protectedserver.yaml"
ELSEWHERE = {
    "install.md": "tests/chart goes through that page",
    "ceph.md": "tests/ceph types what it prepares, and tells the story that `make demo ENGINE=ceph` tells",
}
NOT_HERE = {
    "make demo": "it is this story, told by itself",
    "make test": "this is a part of it",
    "make test-unit": "likewise",
    "make test-chart": "likewise",
    "make test-docs": "it is this",
    "make test-argocd": "likewise",
    "make image": "tests/image",
    "make image BASE=debian:12-slim": "no registry of images can be reached where tests run",
    "docker build -t lifeboat:0.1.0 .": "there is no Docker; tests/image builds from the same Dockerfile",
    "make test-evaluation": "a run of its own",
    "make test-image": "likewise",
    "make test-faults": "a run of its own",
    "make soak SECONDS=900": "a run of its own",
    "make bench": "it measures, and judges nothing",
    "make bench-copying": "likewise",
    "make bench-large": "likewise",
    "make bench-recovery": "likewise",
    "make bench-resync": "likewise",
    "make bench-scale": "likewise",
    "make bench-start": "likewise",
    "make bench-writes": "likewise",
    "make sbom": "tests/image",
    "pip install .": "a virtual environment is there; tests/image installs the package",
    "kubectl -n argocd patch configmap argocd-cm --type=merge --patch-file argocd/argocd-cm.yaml": "tests/argocd",
    "kubectl apply": "is mentioned",
    "kubectl apply -f": "is mentioned",
    "kubectl describe": "is mentioned",
    "kubectl wait --for=condition=Ready": "is mentioned",
}


def server(reader: Reader) -> dict[str, Any]:
    return reader.world.get("ps", SERVER)


def protected(reader: Reader) -> dict[str, Any]:
    return reader.world.until("ps", SERVER, lambda found: phase_is("Replicating")(found) and ready(found))


def decided(reader: Reader, name: str, *phases: str) -> dict[str, Any]:
    return reader.world.until("fo", name, lambda found: phase_is(*phases)(found) and ready(found))


def reason(found: dict[str, Any]) -> str:
    conditions = {each["type"]: each for each in found.get("status", {}).get("conditions", ())}
    return str(conditions["Ready"]["reason"]) if "Ready" in conditions else ""


def test_from_a_checkout_to_a_drill_that_passed(reader: Reader) -> None:
    reader.goes_through("docs/quick-start.md", until="make down")
    assert reader.world.get("dr", "rehearsal")["status"]["result"] == "Passed"


def test_looking_at_it(reader: Reader) -> None:
    assert "Replicating" in reader.types("kubectl get sp,ps,dr,fo")
    assert "Replicating" in reader.types("kubectl get sp,ps,fo,dr")
    assert SERVER in reader.types("lifeboat status")
    assert "a-to-b" in reader.types("kubectl describe sp a-to-b")
    assert "zone-a" in reader.types("kubectl describe sp")
    assert "Replicating" in reader.types("kubectl describe ps orders-db")
    assert "Replicating" in reader.types("kubectl describe ps")
    assert "Normal" in reader.types("kubectl get events --field-selector")
    assert json.loads(reader.types("{.status.allowedOperations}")) == server(reader)["status"]["allowedOperations"]
    assert "condition met" in reader.types("kubectl wait ps/orders-db --for=condition=Ready --timeout=2h")
    reader.watches("kubectl get ps -w", "Replicating")
    assert re.search(
        r"^rp-\S+\t\S+Z\tCrash\tAvailable\t", reader.types("{range .status.recoveryPoints[*]}"), re.MULTILINE
    )
    assert "rp-" in reader.types("{.status.recoveryPoints[*].name}")
    holder = reader.types("kubectl get lease lifeboat").split()
    assert len(holder) == 2
    zones = f"{reader.world.folder.name}/zones/"
    assert reader.types("du -sh", folder=zones)
    assert "qemu-storage-daemon" in reader.types("ps -eo rss,args")
    assert SERVER in reader.types("lifeboat machine list", folder=zones)
    rights = reader.types("helm template lifeboat charts/lifeboat")
    assert {each["kind"] for each in yaml.safe_load_all(rights)} >= {"ServiceAccount", "ClusterRole"}
    assert "sitepairs.lifeboat.dev" in reader.types("kubectl apply -f crds/")
    assert "unchanged" in reader.types(PROTECT)


def test_a_drill_of_ones_own(reader: Reader) -> None:
    [manifest] = [each.text for each in pages.blocks(page("drill.md")) if each.language == "yaml"]
    reader.world.apply(manifest)
    reader.watches("kubectl get dr -w", "rehearsal-2026-11")
    reader.world.until("dr", "rehearsal-2026-11", phase_is("Running"))
    assert "rehearsal-2026-11" in reader.types("kubectl get dr -A")
    assert "Passed" in reader.types("kubectl describe dr rehearsal-2026-11")
    reader.types("kubectl patch dr rehearsal-2026-11")
    reader.world.until("dr", "rehearsal-2026-11", phase_is("CleanedUp"))
    assert "CleanedUp" in reader.types("kubectl get dr")
    reader.types("kubectl delete dr rehearsal-2026-11")
    assert "rehearsal-2026-11" not in reader.types("kubectl get dr")


def test_a_source_is_restarted_for_its_client(reader: Reader) -> None:
    before = machine_pid(reader, "zone-a")
    reader.types("kubectl annotate --overwrite ps orders-db lifeboat.dev/restartedAt=")
    reader.watches("kubectl get ps orders-db -w", "Replicating")
    protected(reader)
    assert machine_pid(reader, "zone-a") == before, "it is booted anew, its machine goes on"


def test_no_operator_and_then_one_that_somebody_starts_by_hand(reader: Reader) -> None:
    reader.world.stop_operator(signal.SIGKILL)
    assert len(reader.types("kubectl get lease lifeboat").split()) == 2, "who acted last, and since when not"
    zones, config = str(reader.world.zones), str(reader.world.kubeconfig)
    with reader.works("lifeboat operator --zones /var/lib/lifeboat/zones", zones=zones) as said:
        reader.until(lambda: " acting" in said())
    with reader.works(BY_HAND, zones=zones, kubeconfig=config) as said:
        reader.until(lambda: " acting" in said())
    reader.types("make up", 300)
    protected(reader)


def test_another_cluster_takes_over_what_the_ledgers_say(reader: Reader, tmp_path: Path) -> None:
    copied = server(reader)["status"]["progress"]["copiedBytes"]
    run = ledger_run(reader)
    reader.world.stop_operator(signal.SIGKILL)
    mine = reader.shell.environment
    with ControlPlane(tmp_path / "controlplane", namespace=NAMESPACE) as other:
        reader.shell.types(f"export KUBECONFIG={other.kubeconfig}")
        reader.types("kubectl apply -f crds/")
        reader.types(PROTECT)
        with reader.works(
            BY_HAND,
            zones=str(reader.world.zones),
            kubeconfig=str(other.kubeconfig),
        ):
            reader.shell.types("kubectl wait ps/orders-db --for=condition=Ready --timeout=2m")
        assert ledger_run(reader) == run, "nothing was copied anew"
    reader.shell.environment = mine
    reader.types("make up", 300)
    assert protected(reader)["status"]["progress"]["copiedBytes"] == copied


def test_the_zone_is_lost_and_the_first_point_was_not_the_right_one(reader: Reader) -> None:
    assert reader.types("{.status.conditions[?(@.type==") == "a failover can start now\n"
    reader.types("touch .lifeboat/zones/zone-a/DOWN")
    reader.world.until("sp", "a-to-b", lambda found: not ready(found))
    assert machine_pid(reader, "zone-a") is not None, "the zone is half lost: the source lives"
    reader.types("lifeboat machine stop .lifeboat/zones/zone-a orders-db")
    point = server(reader)["status"]["recoveryPoints"][1]["name"]
    reader.types("kubectl apply -f demo/manifests/4-failover.yaml")
    reader.watches("kubectl get fo -w", "zone-a-lost")
    assert "condition met" in reader.types("kubectl wait fo/zone-a-lost --for=condition=Ready --timeout=15m", 600)
    decided(reader, "zone-a-lost", "AwaitingCommit")
    assert "zone-a-lost" in reader.types("kubectl describe fo zone-a-lost")
    assert "zone-a-lost" in reader.types("kubectl describe fo")
    assert "AwaitingCommit" in reader.types("kubectl get fo")
    assert reader.types("{.status.instance.url}") == "http://127.0.10.5/\n"
    assert "SourceFenced=" in reader.types("{range .status.conditions[*]}")

    reader.types('{"spec":{"recoveryPoint":"rp-20261125-000604"}}', point=point)
    tried = reader.world.until("fo", "zone-a-lost", lambda found: attempts(found) == 2 and ready(found))
    assert tried["status"]["recoveryPoint"]["name"] == point
    reader.types('{"spec":{"instance":{"memory":"2Gi"}}}')
    reader.world.until("fo", "zone-a-lost", lambda found: memory(reader) == 2048 and ready(found))


def test_it_was_a_false_alarm(reader: Reader) -> None:
    reader.types('{"spec":{"rollback":true}}')
    (reader.world.zones / "zone-a" / "DOWN").unlink()
    decided(reader, "zone-a-lost", "RolledBack")
    assert reason(server(reader)) == "SourceDown", "a source that was down before stays down"
    reader.types("lifeboat machine start /var/lib", zones=str(reader.world.zones))
    protected(reader)


def test_a_failover_that_is_refused_for_five_reasons(reader: Reader) -> None:
    refused = {
        "apiVersion": "lifeboat.dev/v1alpha1",
        "kind": "Failover",
        "metadata": {"name": "second"},
        "spec": {
            "serverRef": {"name": SERVER},
            "recoveryPoint": "rp-20200101-000000",
            "instance": {
                "cpu": 64,
                "ipAddress": "10.99.0.1",
                "postScript": {"configMapKeyRef": {"name": "none", "key": "run"}},
            },
        },
    }
    reader.world.apply(json.dumps(refused))
    cures = {
        "UnknownPoint": '{"spec":{"recoveryPoint":"latest"}}',
        "AddressOutsideNetwork": '{"spec":{"instance":{"ipAddress":null,"elasticIP":"auto"}}}',
        "TooLarge": '{"spec":{"instance":{"cpu":1,"memory":"512Mi","useSSD":false}}}',
        "ScriptUnavailable": '{"spec":{"instance":{"postScript":null}}}',
    }
    while cures:
        found = reader.world.until("fo", "second", lambda found: reason(found) in cures)
        reader.types(cures.pop(reason(found)), failover="second")
    decided(reader, "second", "AwaitingCommit")
    assert machine_pid(reader, "zone-a") is None, "the source is fenced"


def test_it_is_committed_and_goes_home(reader: Reader) -> None:
    reader.types('{"spec":{"commit":true}}', failover="second")
    decided(reader, "second", "Committed")
    reader.types('{"spec":{"replication":{"direction":"Reverse"}}}')
    reader.world.until("ps", SERVER, lambda found: phase_is("ReverseReplicating")(found) and ready(found))
    reader.types("kubectl apply -f demo/manifests/5-failback.yaml")
    decided(reader, "home-again", "Completed")
    assert '"count"' in reader.shell.types("curl --noproxy '*' -s http://127.0.11.5/cgi-bin/rows")
    reader.types('{"spec":{"replication":{"direction":"Forward"}}}')
    protected(reader)
    reader.types('{"direction":"Forward","originalMachine":null,"confirmWipe":null}')
    protected(reader)


def test_a_zone_is_emptied_on_purpose(reader: Reader) -> None:
    [manifest] = [each.text for each in pages.blocks(page("runbook.md")) if "planned: true" in each.text]
    reader.world.apply(manifest)
    found = decided(reader, "zone-a-maintenance", "AwaitingCommit")
    assert found["status"]["result"] == "Passed"
    reader.types('{"spec":{"rollback":true}}', failover="zone-a-maintenance")
    decided(reader, "zone-a-maintenance", "RolledBack")
    protected(reader)


def test_machines_are_stopped_and_started_by_their_owner(reader: Reader) -> None:
    zones = f"{reader.world.folder.name}/zones/"
    reader.types("lifeboat machine stop zones/zone-a orders-db", folder=zones)
    reader.world.until("ps", SERVER, phase_is("Interrupted"))
    reader.types("lifeboat machine start zones/zone-a orders-db", folder=zones)
    protected(reader)


def test_what_was_copied_is_kept_adopted_and_freed(reader: Reader) -> None:
    run = ledger_run(reader)
    assert layers(reader)
    reader.types("kubectl delete ps orders-db")
    assert layers(reader)
    reader.types(PROTECT)
    protected(reader)
    assert ledger_run(reader) == run + 1, "all is copied once more"
    reader.types("lifeboat machine stop zones/zone-a orders-db", folder=f"{reader.world.folder.name}/zones/")
    reader.types('{"spec":{"deletionPolicy":"Delete"}}')
    with reader.works("kubectl delete ps orders-db"):
        reader.world.until("ps", SERVER, lambda found: reason(found) == "SourceDown")
        assert layers(reader), "it may be the only copy"
        reader.types("kubectl annotate ps orders-db lifeboat.dev/discard=orders-db")
        reader.until(lambda: not layers(reader))


@pytest.mark.parametrize("name", sorted({each.name for each in PAGES}))
def test_every_manifest_of_the_pages_is_taken(reader: Reader, name: str) -> None:
    for block in pages.blocks(page(name)):
        if "apiVersion: lifeboat.dev/" in block.text and "kind: Application" not in block.text:
            reader.world.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=block.text)


def test_the_world_ends(reader: Reader) -> None:
    reader.types("make down")
    ours = [each for each in psutil.process_iter(["cmdline"]) if str(reader.world.folder) in str(each.info["cmdline"])]
    assert not ours


def test_every_command_of_the_pages_was_typed(reader: Reader) -> None:
    there = {command for name in ELSEWHERE for command in pages.commands(page(name))}
    left = set(reader.told) - reader.typed - there - set(NOT_HERE)
    assert not left
    assert set(NOT_HERE) <= set(reader.told) - reader.typed, "what is typed here needs no excuse"


def page(name: str) -> Path:
    return next(each for each in PAGES if each.name == name)


def attempts(found: dict[str, Any]) -> int:
    return len(found.get("status", {}).get("history", ()))


def machine_pid(reader: Reader, zone: str) -> int | None:
    folders = (reader.world.zones / zone).rglob("machine.pid")
    return next((pid for pid in map(processes.find, folders) if pid is not None), None)


def layers(reader: Reader) -> list[Path]:
    """The files of replica and points."""
    return list((reader.world.zones / "zone-b" / "storage").glob(f"*/replicas/{SERVER}/*.qcow2"))


def memory(reader: Reader) -> int:
    """What the recovered server's machine was given, in MiB."""
    pid = machine_pid(reader, "zone-b")
    if pid is None:
        return 0
    options = psutil.Process(pid).cmdline()
    return int(options[options.index("-m") + 1].removesuffix("M"))


def ledger_run(reader: Reader) -> int:
    """The number of the full copy, as the recovery site has it."""
    record = reader.world.zones / "zone-b" / "replicas" / SERVER / "replica.json"
    return int(json.loads(record.read_text(encoding="utf-8"))["run"])
