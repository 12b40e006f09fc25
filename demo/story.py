"""The story, told end to end on this machine: everything in it is measured while it happens, and it ends by itself.

A client outside both zones commits rows all the time. Then a zone's server is killed, the server is failed over, and
the rows that were promised are held against those that are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from demo import rows, web
from demo.world import World, WorldError, phase_is, ready
from lifeboat.host import machine

SOURCE = "127.0.11.5"
RECOVERED = "127.0.10.5"
DATABASE = 5432
SERVER = "orders-db"


@dataclass
class Figures:
    """What the closing table shows. Times are seconds."""

    boot: float = 0.0
    drill_rto: float = 0.0
    drill_point_age: int = 0
    failover_rto: float = 0.0
    change_rto: list[float] = field(default_factory=list)
    acknowledged: int = 0
    recovered: int = 0
    lost: int = 0
    failback_rto: float = 0.0
    acknowledged_there: int = 0
    lost_on_the_way_home: int = 0


@contextlib.contextmanager
def writing(log: Path, host: str = SOURCE) -> Iterator[subprocess.Popen[bytes]]:
    """The client that commits rows while the block runs, or until its database is gone."""
    command = [sys.executable, "-m", "demo.rows", host, str(DATABASE), str(log)]
    client = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield client
    finally:
        if client.poll() is None:
            client.terminate()
        client.wait(20)


def tell_story(world: World) -> None:
    """Tell it in a world that is made for it, and taken down whatever happens."""
    console = Console(highlight=False)
    world.down()
    shutil.rmtree(world.folder, ignore_errors=True)
    _alone()
    try:
        _tell(world, console)
    finally:
        world.down()


def _alone() -> None:
    """Two worlds at once would share addresses."""
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex((SOURCE, DATABASE)) == 0:
            raise WorldError(f"another world answers at {SOURCE}:{DATABASE}; end it first: make down")


def _tell(world: World, console: Console) -> None:
    figures = Figures()
    log = world.folder / "acknowledged-rows.log"

    console.rule("1. A world on this machine")
    world.up(lambda step: console.print(f"  {step}"))
    figures.boot = _boot_time(world)
    console.print(f"  the example server boots to an answering database in {figures.boot:.1f} s")

    console.rule("2. Pair and protect")
    _apply(world, console, world.sitepair)
    world.until("sp", "a-to-b", ready, seconds=60)
    _apply(world, console, "2-protectedserver.yaml")
    with writing(log) as client:
        _show_copy(world, console)
        _wait_for_points(world, console, 2)
        _rehearse(world, console, log, figures)
        _lose_zone(world, console, client, log)
    _fail_over(world, console, log, figures)
    _change_point(world, console, log, figures)
    _commit(world, console)
    there = world.folder / "acknowledged-rows-in-zone-b.log"
    shutil.copyfile(log, there)
    with writing(there, RECOVERED) as client:
        _replicate_back(world, console, there)
        _fail_back(world, console, client, there, figures)
    _register(world, console)
    _close(console, figures)
    if lost := figures.lost + figures.lost_on_the_way_home:
        raise WorldError(f"{lost} acknowledged rows were lost")


def _apply(world: World, console: Console, manifest: str) -> None:
    console.print(f"  [bold]kubectl apply -f demo/manifests/{manifest}[/bold]")
    world.apply(manifest)


def _table(world: World, console: Console, kinds: str) -> None:
    console.print(world.kubectl("get", kinds).rstrip(), soft_wrap=True)


def _patch(world: World, console: Console, kind: str, name: str, spec: dict[str, Any]) -> None:
    told = json.dumps({"spec": spec}, separators=(",", ":"))
    console.print(f"  [bold]kubectl patch {kind} {name} --type=merge -p '{told}'[/bold]")
    world.patch(kind, name, spec)


def _boot_time(world: World) -> float:
    """How long the guest takes by itself from power-on to an answering database: no recovery can be faster."""
    world.kill_server(SERVER)
    began = time.monotonic()
    world.start_server(SERVER)
    asyncio.run(_answers(SOURCE))
    return time.monotonic() - began


async def _answers(host: str) -> None:
    connection = await rows.connect(host, DATABASE, seconds=120)
    await connection.close(timeout=5)


def _show_copy(world: World, console: Console, until: str = "Replicating") -> None:
    columns = (
        TextColumn("  {task.description:<22}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[text]}"),
    )
    with Progress(*columns, console=console, transient=False) as bar:
        task = bar.add_task("", total=100, text="")
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            status = world.get("ps", SERVER).get("status", {})
            progress = status.get("progress", {})
            bar.update(
                task,
                description=status.get("phase", ""),
                completed=progress.get("percent", 0),
                text=_progress(progress),
            )
            if status.get("phase") == until:
                return
            time.sleep(0.2)
    raise WorldError("the full copy did not end within 10 minutes")


def _progress(progress: dict[str, Any]) -> str:
    if not progress.get("totalBytes"):
        return ""
    mib = 1 << 20
    told = f"{progress.get('copiedBytes', 0) / mib:.0f} of {progress['totalBytes'] / mib:.0f} MiB"
    if progress.get("bytesPerSecond"):
        told += f", {progress['bytesPerSecond'] / mib:.0f} MiB/s"
    if progress.get("secondsLeft") is not None:
        told += f", {progress['secondsLeft']} s left"
    return told


def _wait_for_points(world: World, console: Console, count: int) -> None:
    console.rule("3. Real time, and recovery points")
    world.until("ps", SERVER, lambda found: found["status"].get("recoveryPointCount", 0) >= count, seconds=120)
    _table(world, console, "ps,sp")


def _points(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.get("ps", SERVER)["status"]["recoveryPoints"]
    return sorted(found, key=lambda point: str(point["time"]))


def _rehearse(world: World, console: Console, log: Path, figures: Figures) -> None:
    console.rule("4. A drill from an older point, while writes go on")
    point = _points(world)[0]
    before = rows.last_acknowledged(log)
    text = (Path(__file__).parent / "manifests" / "3-drill.yaml").read_text(encoding="utf-8")
    console.print(f"  [bold]kubectl apply -f demo/manifests/3-drill.yaml[/bold] with recoveryPoint: {point['name']}")
    world.apply(text.replace("recoveryPoint: latest", f"recoveryPoint: {point['name']}"))
    status = world.until("dr", "rehearsal", phase_is("Running", "Failed"), seconds=300)["status"]
    if status.get("result") != "Passed":
        raise WorldError(f"the drill did not pass: {json.dumps(status, indent=1)}")
    figures.drill_rto = status["timings"]["rtoSeconds"]
    figures.drill_point_age = status["recoveryPoint"]["ageSeconds"]
    _table(world, console, "dr")
    for check in status.get("checks", ()):
        console.print(f"  check {check['name']}: {check['result']} ({check.get('message', '')})")
    console.print(f"  script: exit code {status['postScript']['exitCode']}: {status['postScript']['output'].strip()}")
    console.print(
        f"  look at it: {status['instance']['url']}cgi-bin/rows says {_fetch(status['instance']['elasticIP'])}"
    )
    written = rows.last_acknowledged(log) - before
    phase = world.get("ps", SERVER)["status"]["phase"]
    console.print(f"  meanwhile {written} more rows were acknowledged; the server is {phase} all the while")
    _patch(world, console, "dr", "rehearsal", {"running": False})
    world.until("dr", "rehearsal", phase_is("CleanedUp"), seconds=60)
    console.print("  the drill's environment is cleared; its record stays")


def _fetch(host: str) -> str:
    try:
        return web.get(f"http://{host}/cgi-bin/rows", 20.0).strip()
    except OSError as error:
        raise WorldError(f"http://{host}/cgi-bin/rows does not answer: {error}") from error


def _lose_zone(world: World, console: Console, client: subprocess.Popen[bytes], log: Path) -> None:
    console.rule("5. zone-a is lost")
    pid = world.kill_server(SERVER)
    console.print(f"  SIGKILL of the server's process {pid}, while rows are written")
    client.wait(30)
    console.print(f"  the client outside has {len(rows.acknowledged(log))} acknowledged rows in its log")


def _fail_over(world: World, console: Console, log: Path, figures: Figures) -> None:
    console.rule("6. Failover")
    _apply(world, console, "4-failover.yaml")
    status = world.until("fo", "zone-a-lost", phase_is("AwaitingCommit", "Failed"), seconds=300)["status"]
    if status.get("result") != "Passed":
        raise WorldError(f"the failover did not pass its checks: {json.dumps(status, indent=1)}")
    figures.failover_rto = status["timings"]["rtoSeconds"]
    _table(world, console, "ps,fo")
    promised = set(rows.acknowledged(log))
    there = asyncio.run(rows.present(RECOVERED, DATABASE))
    figures.acknowledged, figures.recovered = len(promised), len(there)
    figures.lost = len(promised - there)
    console.print(f"  rows acknowledged: {len(promised)}, rows recovered: {len(there)}, lost: {figures.lost}")


def _change_point(world: World, console: Console, log: Path, figures: Figures) -> None:
    console.rule("7. Change of recovery point, and back")
    points = [point for point in _points(world) if not point["name"].startswith("tip")]
    older = points[0]
    for wanted in (older["name"], "latest"):
        _patch(world, console, "fo", "zone-a-lost", {"recoveryPoint": wanted})
        found = world.until("fo", "zone-a-lost", _serves(wanted), seconds=300)
        figures.change_rto.append(found["status"]["timings"]["rtoSeconds"])
        there = asyncio.run(rows.present(RECOVERED, DATABASE))
        promised = rows.acknowledged(log)
        name = found["status"]["recoveryPoint"]["name"]
        later = len(set(promised) - there)
        console.print(f"  served from {name}: {len(there)} rows; {later} acknowledged ones are younger than the point")
        _expect_rows_of_point(promised, there, found["status"]["recoveryPoint"]["time"])


def _serves(requested: str) -> Callable[[dict[str, Any]], bool]:
    def wanted(found: dict[str, Any]) -> bool:
        status = found["status"]
        return bool(status.get("phase") == "AwaitingCommit" and status["recoveryPoint"]["spec"] == requested)

    return wanted


def _expect_rows_of_point(promised: dict[int, datetime], there: set[int], time_of_point: str) -> None:
    """Every row that was acknowledged before the point was taken has to be in it."""
    taken = datetime.fromisoformat(time_of_point).astimezone(UTC)
    missing = [number for number, at in promised.items() if at < taken and number not in there]
    if missing:
        raise WorldError(f"{len(missing)} rows from before the point are not in it, the first is {missing[0]}")


def _commit(world: World, console: Console) -> None:
    console.rule("8. Commit")
    _patch(world, console, "fo", "zone-a-lost", {"commit": True})
    world.until("fo", "zone-a-lost", phase_is("Committed"), seconds=600)
    _table(world, console, "ps,dr,fo,sp")
    console.print(f"  the recovered server is independent and answers: {_fetch(RECOVERED)}")
    console.print(f"  disks left in zone-b: {len(world.disks_left('zone-b'))}, all of the recovered server")


def _replicate_back(world: World, console: Console, log: Path) -> None:
    console.rule("9. Back again: reverse replication onto the original machine")
    before = rows.last_acknowledged(log)
    back = {"direction": "Reverse", "originalMachine": True, "confirmWipe": SERVER}
    _patch(world, console, "ps", SERVER, {"replication": back})
    _show_copy(world, console, "ReverseReplicating")
    world.until("ps", SERVER, lambda found: found["status"].get("recoveryPointCount", 0) >= 1, seconds=120)
    _table(world, console, "ps")
    written = rows.last_acknowledged(log) - before
    console.print(f"  meanwhile {written} more rows were acknowledged by the recovered server in zone-b")


def _fail_back(world: World, console: Console, client: subprocess.Popen[bytes], log: Path, figures: Figures) -> None:
    console.rule("10. Failback")
    _apply(world, console, "5-failback.yaml")
    status = world.until("fo", "home-again", phase_is("Completed", "Failed"), seconds=600)["status"]
    if status.get("result") != "Passed":
        raise WorldError(f"the failback did not pass its checks: {json.dumps(status, indent=1)}")
    client.wait(60)
    figures.failback_rto = status["timings"]["rtoSeconds"]
    _table(world, console, "ps,fo")
    promised = set(rows.acknowledged(log))
    there = asyncio.run(rows.present(SOURCE, DATABASE))
    before = set(rows.acknowledged(log.with_name("acknowledged-rows.log")))
    figures.acknowledged_there = len(promised - before)
    figures.lost_on_the_way_home = len(promised - there)
    console.print(
        f"  rows written in zone-b and acknowledged: {figures.acknowledged_there}; all rows promised: {len(promised)}, "
        f"rows in zone-a: {len(there)}, lost: {figures.lost_on_the_way_home}"
    )


def _register(world: World, console: Console) -> None:
    console.rule("11. Registered again: protected as at the start")
    forward = {"direction": "Forward", "originalMachine": None, "confirmWipe": None}
    _patch(world, console, "ps", SERVER, {"replication": forward})
    _show_copy(world, console)
    world.until("ps", SERVER, lambda found: found["status"].get("recoveryPointCount", 0) >= 1, seconds=120)
    world.until("ps", SERVER, lambda _: not list((world.zones / "zone-b" / "machines").rglob("*.json")), seconds=60)
    _table(world, console, "ps,dr,fo,sp")
    console.print("  the disks that the recovered server had in zone-b are gone; its replica is there again")


def _close(console: Console, figures: Figures) -> None:
    console.rule("What it took")
    table = Table("", "measured", "the guest's boot alone", box=None, pad_edge=False)
    boot = f"{figures.boot:.1f} s"
    lost = "0 of" if not figures.lost else f"[red]{figures.lost}[/red] of"
    table.add_row("RPO: acknowledged rows lost", f"{lost} {figures.acknowledged}", "")
    table.add_row("RTO of the drill", f"{figures.drill_rto:.1f} s (point {figures.drill_point_age} s old)", boot)
    table.add_row("RTO of the failover", f"{figures.failover_rto:.1f} s", boot)
    for seconds in figures.change_rto:
        table.add_row("RTO of a change of point", f"{seconds:.1f} s", boot)
    lost = "0 of" if not figures.lost_on_the_way_home else f"[red]{figures.lost_on_the_way_home}[/red] of"
    table.add_row("Failback: acknowledged rows lost", f"{lost} {figures.acknowledged_there} written in zone-b", "")
    table.add_row("RTO of the failback", f"{figures.failback_rto:.1f} s, clean shutdown included", boot)
    console.print(table)
    console.print(f"  on {os.cpu_count()} cores, machines run by {machine.accelerator()}")
