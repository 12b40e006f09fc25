"""What must hold once everything has come to rest: nothing half done, nothing without an owner, nobody untold."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import psutil

from lifeboat.api.common import Resource
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair
from lifeboat.engines.ledger import FailoverStage, Ledger
from tests.soak.book import Book
from tests.soak.world import SoakWorld, Stored, Undelivered

REST_SECONDS: Final = 240.0
QUIET_SECONDS: Final = 8.0
KINDS: Final[tuple[type[Resource], ...]] = (SitePair, ProtectedServer, Drill, Failover)
_RESTS: Final = {
    ProtectedServer: {"InstallingAgent", "Initialized", "Replicating", "Stopped", "FailedOver", "Committed", ""},
    Drill: {"Pending", "Running", "CleanedUp", "Failed"},
    Failover: {"AwaitingCommit", "Committed", "RolledBack", "Failed"},
}
_MOVING_VOLUMES: Final = ("recoveryPoints", "recoveryPointCount", "latestRecoveryPointTime", "progress", "lagSeconds")
_STAGES: Final = {FailoverStage.AWAITING_COMMIT, FailoverStage.COMMITTED}
Objects = dict[type[Resource], dict[str, Stored]]


def come_to_rest(world: SoakWorld, book: Book) -> Objects:
    """Wait until nothing changes any more but points; what the objects are then. What never rests is a violation."""
    deadline, since, before = time.monotonic() + REST_SECONDS, time.monotonic(), ""
    while True:
        time.sleep(0.5)
        try:
            objects: Objects = {kind: world.all(kind) for kind in KINDS}
        except Undelivered:
            continue
        restless = list(_restless(objects))
        now = json.dumps([_still(each) for found in objects.values() for each in found.values()], sort_keys=True)
        if restless or now != before:
            since, before = time.monotonic(), now
        elif time.monotonic() - since > QUIET_SECONDS:
            return objects
        if time.monotonic() > deadline:
            for each in restless or ["statuses change and change"]:
                book.violate(f"it does not come to rest within {REST_SECONDS:.0f} s: {each}")
            return objects


def _restless(objects: Objects) -> Iterator[str]:
    for kind, phases in _RESTS.items():
        for name, each in objects[kind].items():
            phase = each.get("status", {}).get("phase", "")
            if phase not in phases and not _stalled(each):
                yield f"{kind.__name__} {name} is {phase or 'untold'}: {_said(each, 'Ready')}"
            elif each["metadata"].get("deletionTimestamp") and not _said(each, "Ready"):
                yield f"{kind.__name__} {name} is being deleted"
    for kind in KINDS:
        for name, each in objects[kind].items():
            if each.get("status", {}).get("observedGeneration") != each["metadata"]["generation"]:
                yield f"{kind.__name__} {name}: generation {each['metadata']['generation']} is not observed"


def _stalled(each: Stored) -> bool:
    return any(c["type"] == "Stalled" and c["status"] == "True" for c in each.get("status", {}).get("conditions", ()))


def _still(each: Stored) -> Stored:
    status = {key: value for key, value in each.get("status", {}).items() if key not in _MOVING_VOLUMES}
    status["conditions"] = [(c["type"], c["status"], c["reason"]) for c in status.get("conditions", ())]
    return {"name": each["metadata"]["name"], "status": status}


def _said(each: Stored, condition: str) -> str:
    for found in each.get("status", {}).get("conditions", ()):
        if found["type"] == condition:
            return f"{found['status']} {found['reason']}: {found['message']}"
    return ""


def judge(world: SoakWorld, book: Book, objects: Objects, living: Iterable[str], dead: Iterable[str]) -> None:
    """Everything that must hold at rest."""
    living, dead = list(living), list(dead)
    _everybody_is_told(book, objects)
    for server in living:
        ledger = world.ledger(server)
        if ledger is None:
            book.violate(f"{server}: it has no ledger")
            continue
        _truthful(book, server, ledger, objects)
        _no_half_step(world, book, server, ledger)
        _no_orphan(world, book, server, ledger)
    _no_strange_process(world, book, {*living, *dead})
    _no_fault_of_ours(world, book)


def _everybody_is_told(book: Book, objects: Objects) -> None:
    for kind in KINDS:
        for name, each in objects[kind].items():
            said = {c["type"]: c for c in each.get("status", {}).get("conditions", ())}
            ready = said.get("Ready")
            if ready is None:
                book.violate(f"{kind.__name__} {name} has no condition Ready")
            elif ready["status"] != "True" and not (ready["reason"] and ready["message"]):
                book.violate(f"{kind.__name__} {name} is not Ready and says nothing: {ready}")


def _truthful(book: Book, server: str, ledger: Ledger, objects: Objects) -> None:
    """Statuses say what the ledger says."""
    record = ledger.failover
    protected = objects[ProtectedServer].get(server)
    if protected is not None and _owner(ledger, server):
        phase = protected["status"].get("phase")
        served = record is not None and record.stage in _STAGES
        if served != (phase in {"FailedOver", "Committed"}):
            book.violate(f"{server}: phase is {phase}, its ledger says {record.stage if record else 'no failover'}")
        site = protected["status"].get("activeSite")
        if site != ledger.active_site.value:
            book.violate(f"{server}: activeSite is {site}, its ledger says {ledger.active_site}")
    for name, failover in objects[Failover].items():
        if failover["spec"]["serverRef"]["name"] != server:
            continue
        phase = failover["status"].get("phase")
        spent = ledger.ended("Failover", name)
        expected = record.stage.value if record is not None and record.name == name else None
        expected = spent.phase if spent is not None else expected
        if protected is not None and expected is not None and phase != expected:
            book.violate(f"Failover {name} is {phase}, the ledger says {expected}")
        if expected is None and phase not in {"Failed", "Pending"}:
            book.violate(f"Failover {name} is {phase}, and the ledger knows nothing of it")
    for name, drill in objects[Drill].items():
        if drill["spec"]["serverRef"]["name"] != server:
            continue
        phase, spent = drill["status"].get("phase"), ledger.ended("Drill", name)
        if spent is not None and phase != spent.phase and protected is not None:
            book.violate(f"Drill {name} is {phase}, the ledger says {spent.phase}")
        if phase == "Running" and ledger.drill(name) is None:
            book.violate(f"Drill {name} is Running, and the ledger knows nothing of it")


def _owner(ledger: Ledger, server: str) -> bool:
    return ledger.claim is not None and ledger.claim.name == server


def _no_half_step(world: SoakWorld, book: Book, server: str, ledger: Ledger) -> None:
    record = ledger.failover
    source = world.source_pid(server)
    if record is not None and record.stage not in _STAGES:
        book.violate(f"{server}: the ledger stays at {record.stage}")
    if ledger.fence is not None and ledger.fence.confirmed_at is None:
        book.violate(f"{server}: its site answers, and the fence is not confirmed")
    if ledger.fence is not None and source is not None:
        book.violate(f"{server}: the source runs (process {source}) though it is fenced")
    if record is None and source is None:
        book.violate(f"{server}: no failover has it, and its source does not run")


def _no_orphan(world: SoakWorld, book: Book, server: str, ledger: Ledger) -> None:
    """Each machine, running or not, and each folder of disks, belongs to something in the ledger."""
    owned = {f"drill-{drill.name}" for drill in ledger.drills} | set(ledger.leftovers)
    serving: str | None = None
    if ledger.failover is not None:
        owned |= {f"failover-{ledger.epoch}-{attempt.number}" for attempt in ledger.failover.attempts}
        serving = f"failover-{ledger.epoch}-{ledger.failover.attempts[-1].number}"
    zone = world.zones / "zone-b"
    places = [zone / "machines" / server, *(zone.glob(f"storage/*/machines/{server}"))]
    for place in places:
        for found in place.glob("*"):
            if found.name not in owned:
                book.violate(f"{server}: {found.relative_to(zone)} belongs to nothing in the ledger")
    for name in world.recovered(server):
        if name != serving:
            book.violate(f"{server}: {name} runs, and {serving or 'nothing'} should")
    for path in zone.rglob(".new-*"):
        book.violate(f"{path.relative_to(zone)} is left of a write that was cut short")
    replica = zone / "replicas" / server / "replica.json"
    files = {path.name for folder in zone.glob(f"storage/*/replicas/{server}") for path in folder.glob("*.qcow2")}
    recorded: set[str] = set()
    if replica.exists():
        record = json.loads(replica.read_text())
        recorded = {f"{disk}.{layer['number']}.qcow2" for layer in record["layers"] for disk in layer["disks"]}
    if strange := files - recorded:
        book.violate(f"{server}: images that no layer of the replica has: {', '.join(sorted(strange))}")


def _no_strange_process(world: SoakWorld, book: Book, servers: set[str]) -> None:
    """Each process that works in the zones is one that its folder tells of, and listens where it may."""
    told: set[int] = set()
    for server in servers:
        told |= set(world.launched(server).values())
        told |= {pid for pid in (world.source_pid(server), world.replica_pid(server)) if pid is not None}
    for process in psutil.process_iter(["pid", "name", "cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if str(world.zones) in command and "qemu" in (process.info["name"] or "") and process.pid not in told:
            book.violate(f"process {process.pid} belongs to nothing: {command[:200]}")
    for connection in psutil.net_connections("tcp4"):
        if not connection.laddr:
            continue
        host, port = connection.laddr.ip, connection.laddr.port
        ours = host.startswith(("127.0.51.", "127.0.52.", "127.0.53."))
        if ours and connection.status == psutil.CONN_LISTEN and connection.pid not in told:
            book.violate(f"{host}:{port} is listened at by process {connection.pid}")


def _no_fault_of_ours(world: SoakWorld, book: Book) -> None:
    """No operator said that something in it broke."""
    for log in sorted(world.folder.glob("operator*.log")):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            said = _line(line)
            if said.get("traceback") or " broke" in str(said.get("message", "")):
                book.violate(f"{log.stem}: {said.get('message')}: {str(said.get('traceback', ''))[-600:]}")
            elif line and not said:
                book.violate(f"{log.stem} ended, or said something out of line: {line[:300]}")


def _line(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
