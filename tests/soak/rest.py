"""What must hold once everything has come to rest: nothing half done, nothing without an owner, nobody untold."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psutil

from lifeboat.api.common import Resource
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair
from lifeboat.engines.ledger import Direction, FailoverStage, Ledger
from lifeboat.engines.qemu import lines, storage_daemon
from lifeboat.engines.qemu.layers import layer_files
from lifeboat.engines.qemu.records import load_replica
from lifeboat.host import processes
from lifeboat.lifecycle.machines import attempt_machines
from tests.soak import places
from tests.soak.book import Book
from tests.soak.people import stalled
from tests.soak.world import SERVERS, SoakWorld, Stored, Undelivered

ZONES: Final = ("zone-a", "zone-b")
REST_SECONDS: Final = 240.0
QUIET_SECONDS: Final = 8.0
TEND_SECONDS: Final = 3.0
OURS: Final = "/operator/lifeboat/"
KINDS: Final[tuple[type[Resource], ...]] = (SitePair, ProtectedServer, Drill, Failover)
_RESTS: Final = {
    ProtectedServer: {
        "InstallingAgent",
        "Initialized",
        "Replicating",
        "Stopped",
        "FailedOver",
        "Committed",
        "ReverseRegistered",
        "ReverseReplicating",
        "FailingBack",  # whose Failover has to be at rest
        "FailedBack",
        "",
    },
    Drill: {"Pending", "Running", "CleanedUp", "Failed"},
    Failover: {"AwaitingCommit", "Committed", "Completed", "RolledBack", "Failed"},
}
_MOVING_VOLUMES: Final = ("recoveryPoints", "recoveryPointCount", "latestRecoveryPointTime", "progress", "lagSeconds")
_STAGES: Final = {FailoverStage.AWAITING_COMMIT, FailoverStage.COMMITTED}
_PHASES: Final = {
    (FailoverStage.AWAITING_COMMIT, False): "FailedOver",
    (FailoverStage.COMMITTED, False): "Committed",
    (FailoverStage.AWAITING_COMMIT, True): "FailingBack",
    (FailoverStage.COMMITTED, True): "FailedBack",
}
Objects = dict[type[Resource], dict[str, Stored]]


def come_to_rest(world: SoakWorld, book: Book, tend: Callable[[], None]) -> Objects:
    """Wait until nothing changes any more but points; what the objects are then. What never rests is a violation.

    `tend` lets people do what is left to them.
    """
    deadline, since, before = time.monotonic() + REST_SECONDS, time.monotonic(), ""
    tended = 0.0
    while True:
        time.sleep(0.5)
        if time.monotonic() - tended > TEND_SECONDS:
            tend()
            tended = time.monotonic()
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
            if phase not in phases and not stalled(each):
                yield f"{kind.__name__} {name} is {phase or 'untold'}: {_said(each, 'Ready')}"
            elif each["metadata"].get("deletionTimestamp") and not _said(each, "Ready"):
                yield f"{kind.__name__} {name} is being deleted"
    for kind in KINDS:
        for name, each in objects[kind].items():
            if each.get("status", {}).get("observedGeneration") != each["metadata"]["generation"]:
                yield f"{kind.__name__} {name}: generation {each['metadata']['generation']} is not observed"


def _still(each: Stored) -> Stored:
    status = {key: value for key, value in each.get("status", {}).items() if key not in _MOVING_VOLUMES}
    status["conditions"] = [(c["type"], c["status"], c["reason"]) for c in status.get("conditions", ())]
    return {"name": each["metadata"]["name"], "status": status}


def _said(each: Stored, condition: str) -> str:
    for found in each.get("status", {}).get("conditions", ()):
        if found["type"] == condition:
            return f"{found['status']} {found['reason']}: {found['message']}"
    return ""


def judge(world: SoakWorld, book: Book, objects: Objects) -> None:
    """Everything that must hold at rest."""
    _everybody_is_told(book, objects)
    for server in SERVERS:
        ledger = world.ledger(server)
        if ledger is None:
            book.violate(f"{server}: it has no ledger")
            continue
        _truthful(book, server, ledger, objects)
        _no_half_step(world, book, server, ledger)
        _no_orphan(world, book, server, ledger)
        for spent in ledger.spent:
            book.count(f"{spent.kind}s that ended {spent.phase} {spent.reason}")
    _no_strange_process(world, book)
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
        expected = _PHASES.get((record.stage, record.failback)) if record is not None else None
        if (phase in _PHASES.values() and phase != expected) or expected not in (None, phase):
            book.violate(f"{server}: phase is {phase}, its ledger says {record.stage if record else 'no failover'}")
        elif record is None and (ledger.direction is Direction.REVERSE) != str(phase).startswith("Reverse"):
            book.violate(f"{server}: phase is {phase}, its ledger says {ledger.direction}")
        site = protected["status"].get("activeSite")
        if site != ledger.active_site.value:
            book.violate(f"{server}: activeSite is {site}, its ledger says {ledger.active_site}")
    for name, failover in objects[Failover].items():
        if failover["spec"]["serverRef"]["name"] != server:
            continue
        phase = failover["status"].get("phase")
        spent = ledger.ended("Failover", name)
        told = record.stage.value if record is not None and record.name == name else None
        told = spent.phase if spent is not None else told
        if protected is not None and told is not None and phase != told:
            book.violate(f"Failover {name} is {phase}, the ledger says {told}")
        if told is None and phase not in {"Failed", "Pending"}:
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
    """Nothing is under way; who should serve does, nobody else, and who is fenced does not run."""
    record = ledger.failover
    if record is not None and record.stage not in _STAGES:
        book.violate(f"{server}: the ledger stays at {record.stage}")
    if ledger.fence is not None and ledger.fence.confirmed_at is None:
        book.violate(f"{server}: both sites answer, and the fence is not confirmed")
    place = places.serving(world, server, ledger)
    serve = set(places.able_to_serve(world, server))
    if place is not None and serve != {place.machine}:
        book.violate(f"{server}: {', '.join(sorted(serve)) or 'nothing'} runs, and {place.machine} should")


def _no_orphan(world: SoakWorld, book: Book, server: str, ledger: Ledger) -> None:
    """Each machine, running or not, and each folder of disks, belongs to something in the ledger."""
    owned = {f"drill-{drill.name}" for drill in ledger.drills} | set(ledger.leftovers)
    owned |= places.registered(world, server)
    if ledger.failover is not None:
        owned |= set(attempt_machines(ledger, ledger.failover))
    for zone in ZONES:
        folder = world.zones / zone
        for place in (folder / "machines" / server, *(folder.glob(f"storage/*/machines/{server}"))):
            for found in place.glob("*"):
                if found.name not in owned:
                    book.violate(f"{server}: {zone}/{found.relative_to(folder)} belongs to nothing in the ledger")
        for path in folder.rglob(".new-*"):
            book.violate(f"{zone}/{path.relative_to(folder)} is left of a write that was cut short")
        _no_orphaned_image(world, book, server, zone)


def _no_orphaned_image(world: SoakWorld, book: Book, server: str, zone: str) -> None:
    record = load_replica(world.zone(zone), server)
    files = set(world.zones.glob(f"{zone}/storage/*/replicas/{server}/*.qcow2"))
    recorded: set[Path] = set()
    if record is not None:
        layers = (*record.layers, *((record.pending.layer,) if record.pending else ()))
        recorded = {path for layer in layers for path in layer_files(world.zone(zone), record, layer)}
    if strange := files - recorded:
        names = ", ".join(sorted(path.name for path in strange))
        book.violate(f"{server}: images in {zone} that no layer of the replica has: {names}")


def _no_strange_process(world: SoakWorld, book: Book) -> None:
    """Each process that works in the zones is one that its folder tells of and that has work; so is who listens."""
    told = {pid: path for path in world.zones.rglob("*.pid") if (pid := processes.find(path)) is not None}
    for pid, path in told.items():
        if (why := _idle(world, path)) is not None:
            book.violate(f"process {pid} ({path.relative_to(world.zones)}) runs although {why}")
    for process in psutil.process_iter(["pid", "cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        ours = str(world.zones) in command and ("qemu-" in command or "lifeboat/line" in command)
        if ours and process.pid not in told and process.is_running():
            book.violate(f"process {process.pid} belongs to nothing: {command[:200]}")
    for connection in psutil.net_connections("tcp4"):
        if not connection.laddr or connection.status != psutil.CONN_LISTEN or connection.pid == os.getpid():
            continue
        host, port = connection.laddr.ip, connection.laddr.port
        if host.startswith(("127.0.51.", "127.0.52.", "127.0.53.")) and connection.pid not in told:
            book.violate(f"{host}:{port} is listened at by process {connection.pid}")


def _idle(world: SoakWorld, pid_file: Path) -> str | None:
    """Why a daemon or a line has nothing to do, None where it has; machines are looked at elsewhere."""
    if pid_file.name == storage_daemon.PID:
        zone, _, server, _ = pid_file.relative_to(world.zones).parts
        record = load_replica(world.zone(zone), server)
        return None if record is not None and record.replicating else "that replica is not written to"
    if pid_file.name == lines.PID:
        zone, _, server, *_ = pid_file.relative_to(world.zones).parts
        other = "zone-a" if zone == "zone-b" else "zone-b"
        record = load_replica(world.zone(other), server)
        return None if record is not None and record.replicating else "nothing is copied from there"
    return None


def _no_fault_of_ours(world: SoakWorld, book: Book) -> None:
    """No operator said that something in it broke. What ends kopf's watches is kopf's to tell, and they begin anew."""
    for log in sorted(world.folder.glob("operator*.log")):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            said = _line(line)
            trouble = "traceback" in said or said.get("level") in {"error", "critical"}
            ours = str(said.get("logger", "")).startswith("lifeboat") or OURS in str(said.get("traceback", ""))
            if trouble and ours:
                book.violate(f"{log.stem}: {said.get('message')}: {str(said.get('traceback', ''))[-600:]}")
            elif line and not said:
                book.violate(f"{log.stem} ended, or said something out of line: {line[:300]}")


def _line(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
