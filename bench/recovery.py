"""How fast an application answers after a disaster, and what is lost, each against the same guest booted by hand.

Every failover follows a SIGKILL of the source under write load. The guest by hand boots from overlays on the disks that
the killed source left, so that it has the same journals to replay on the same machine. A drill boots while the source
runs, so the guest that it is compared with does too, from overlays on the point of the drill.
"""

from __future__ import annotations

import json
import queue
import random
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from bench.results import Figure, Measured, Samples, Target
from demo import guest, web
from demo.world import World, phase_is, ready
from lifeboat.host import machine
from lifeboat.host.inventory import NetworkSpec

RUNS: Final = 10
KILLS: Final = 30
SECONDS: Final = 900.0
PROBE_SECONDS: Final = 0.1
SERVER: Final = "shop"
SOURCE: Final = "127.0.41.5"
RECOVERED: Final = "127.0.43.5"
DRILLED: Final = "127.0.43.6"
BY_HAND: Final = "127.0.44.5"
DISKS: Final = ("system", "data")
BESIDE: Final = "by hand, beside the source"
TARGETS: Final = (Target(1.10), Target(0.5, "difference"))
ZONES: Final = Path(__file__).parent / "zones"


class ShopWorld(World):
    """The one-machine world with a server that boots within seconds."""

    def make_disks(self, server: str, folder: Path) -> None:  # noqa: ARG002 - there is one
        """Make the disks of the one server."""
        guest.copy_disks(guest.build("tiny"), folder)


class Writer:
    """A client that writes rows into the source, and keeps the numbers that were acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: set[int] = set()
        self._number = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Write, row after row."""
        self._ended.clear()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def stop(self) -> frozenset[int]:
        """Write no more. All that were ever acknowledged, the last answer's row among them."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        return frozenset(self.acknowledged)

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            self._number += 1
            try:
                if web.get(f"http://{SOURCE}/cgi-bin/write?n={self._number}", 5.0).strip() == "ok":
                    self.acknowledged.add(self._number)
            except OSError:
                continue


def rows(host: str) -> set[int] | None:
    """The rows that a server has, None while it does not answer."""
    try:
        return {int(row) for row in web.get(f"http://{host}/cgi-bin/rows", 2.0).split()}
    except (OSError, ValueError):
        return None


def answered(host: str, wanted: Callable[[set[int]], bool] = lambda _: True, seconds: float = 120.0) -> set[int]:
    """The rows of the first answer that is as wanted, and that a second one confirms.

    A try begins every tenth of a second, whatever became of those before it: QEMU accepts connections for a guest that
    is not up yet, and who has one then hears nothing until its time is over. An answer whose machine ends while it is
    given has no end of its own, and looks like one with fewer rows.

    Raises:
        TimeoutError: there was none in time.
    """
    deadline = time.monotonic() + seconds
    answers: queue.SimpleQueue[set[int] | None] = queue.SimpleQueue()
    while (began := time.monotonic()) < deadline:
        threading.Thread(target=lambda: answers.put(rows(host)), name="probe", daemon=True).start()
        while (left := began + PROBE_SECONDS - time.monotonic()) > 0:
            try:
                found = answers.get(timeout=left)
            except queue.Empty:
                break
            if found is not None and wanted(found) and (again := rows(host)) is not None and found <= again:
                return found
    raise TimeoutError(f"{host} did not answer as wanted within {seconds:g} s")


def disks_of_source(world: ShopWorld) -> dict[str, Path]:
    """The disks of the source, by name."""
    return {path.stem: path for path in (world.zones / f"zone-a/storage/standard/{SERVER}").glob("*.qcow2")}


def points_of_drill(world: ShopWorld) -> dict[str, Path]:
    """What the disks of the one drill that runs lie upon: the files of its point, by disk."""
    disks = (world.zones / "zone-b").glob(f"storage/*/machines/{SERVER}/*/*.qcow2")
    return {path.stem: Path(_info(path)["full-backing-filename"]).resolve() for path in disks}


@contextmanager
def by_hand(below: Mapping[str, Path], folder: Path) -> Iterator[None]:
    """The guest from overlays on these images (by disk), with the command line of a recovered machine."""
    folder.mkdir()
    disks = []
    for name in DISKS:
        image, overlay = below[name], folder / f"{name}.qcow2"
        make = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", str(image), str(overlay)]
        subprocess.run([*make, str(_info(image)["virtual-size"])], check=True)
        block = {"driver": "qcow2", "discard": "unmap", "file": {"driver": "file", "filename": str(overlay)}}
        disks.append(machine.MachineDisk(name, block))
    network = NetworkSpec(name="vpc-b-recovery", cidr="10.20.2.0/24", address="127.0.42.2")
    spec = machine.MachineSpec(SERVER, SERVER, folder, 1, 192 << 20, tuple(disks), network, "10.20.2.10")
    command = machine.command_line(spec, machine.accelerator())
    at = command.index("-netdev") + 1
    command[at] = json.dumps({**json.loads(command[at]), "hostfwd": [{"str": f"tcp:{BY_HAND}:80-10.20.2.10:80"}]})
    with (folder / machine.LOG).open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()
        for left in folder.iterdir():
            left.unlink()
        folder.rmdir()


def manifest(kind: str, name: str, address: str, elastic: str, **spec: str) -> str:
    """A Drill or a Failover of the one server."""
    check = {"name": "web", "httpGet": {"port": 80, "path": "/cgi-bin/rows"}, "timeoutSeconds": 120}
    instance = {"ipAddress": address, "elasticIP": elastic}
    body = {"serverRef": {"name": SERVER}, "instance": instance, "checks": [check], **spec}
    return json.dumps({"apiVersion": "lifeboat.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": body})


def protect(world: ShopWorld) -> None:
    """Protect the server, with a point every ten seconds."""
    zones = {
        "primary": {"zone": "zone-a", "network": "vpc-a", "replicationNetwork": "vpc-a-replication"},
        "recovery": {
            "zone": "zone-b",
            "network": "vpc-b",
            "replicationNetwork": "vpc-b-replication",
            "recoveryNetwork": "vpc-b-recovery",
        },
    }
    replication = {"enabled": True, "recoveryPoints": [{"every": "10s", "for": "10m"}]}
    server = {"sitePairRef": {"name": "a-to-b"}, "serverId": SERVER, "replication": replication}
    for kind, name, spec in (("SitePair", "a-to-b", zones), ("ProtectedServer", SERVER, server)):
        head = {"apiVersion": "lifeboat.dev/v1alpha1", "kind": kind, "metadata": {"name": name}}
        world.apply(json.dumps({**head, "spec": spec}))


def replicating(world: ShopWorld, *, with_point: bool) -> None:
    """Wait until the server is protected, and has a point where one is needed."""
    whole = phase_is("Replicating")

    def protected(ps: dict[str, Any]) -> bool:
        return whole(ps) and ready(ps) and (bool(ps["status"].get("recoveryPointCount")) or not with_point)

    world.until("ps", SERVER, protected)


def older(world: ShopWorld, used: str) -> str:
    """The oldest point that is not the one in use: rows were written since, so its answer tells it apart."""
    points = [point for point in world.get("ps", SERVER)["status"]["recoveryPoints"] if point["name"] != used]
    return str(min(points, key=lambda point: str(point["time"]))["name"])


class Rounds:
    """Disasters, one after the other, and what each took."""

    def __init__(self, world: ShopWorld, folder: Path) -> None:
        self.writer = Writer()
        self.took: dict[str, list[float]] = {
            each: [] for each in ("by hand", "failover", "point change", BESIDE, "drill")
        }
        self.shares: dict[str, list[float]] = {"kubectl": [], "accepted to launched": [], "launched to ready": []}
        self.kills = self.lost = 0
        self._world = world
        self._folder = folder

    def run(self) -> None:
        """Kill the source under write load, fail over, count what is lost, and go back."""
        name = f"run-{self.kills}"
        timed = self.kills < RUNS
        self.writer.start()
        answered(SOURCE)
        if timed:
            self._drill(name)
        time.sleep(random.uniform(0.5, 2.0))  # so that the kill comes at any moment of the copy
        self._world.kill_server(SERVER)
        acknowledged = self.writer.stop()
        # In turn, so that neither is always the one that finds the caches cold.
        hand_first = self.kills % 2 == 0
        if timed and hand_first:
            self._boot_by_hand("by hand", disks_of_source(self._world))
        found = self._fail_over(name, timed)
        if timed and not hand_first:
            self._boot_by_hand("by hand", disks_of_source(self._world))
        self.kills += 1
        self.lost += len(acknowledged - found)
        status = self._world.until("fo", name, phase_is("AwaitingCommit"))["status"]
        if timed:
            self._shares(status["timings"])
            self._change_point(name, status["recoveryPoint"]["name"], found)
        self._world.patch("fo", name, {"rollback": True})
        self._world.until("fo", name, phase_is("RolledBack"))
        self._world.start_server(SERVER)
        replicating(self._world, with_point=self.kills < RUNS)
        print(f"  kill {self.kills}: { ({each: round(v[-1], 2) for each, v in self.took.items() if v}) }", flush=True)

    @contextmanager
    def _timed(self, what: str, count: bool = True) -> Iterator[None]:
        began = time.monotonic()
        yield
        if count:
            self.took[what].append(time.monotonic() - began)

    def _drill(self, name: str) -> None:
        with self._timed("drill"):
            self._world.apply(manifest("Drill", name, "10.20.2.11", DRILLED))
            answered(DRILLED)
        self._world.until("dr", name, phase_is("Running"))
        points = points_of_drill(self._world)
        self._world.patch("dr", name, {"running": False})
        self._world.until("dr", name, phase_is("CleanedUp"))
        self._boot_by_hand(BESIDE, points)

    def _boot_by_hand(self, what: str, below: Mapping[str, Path]) -> None:
        began = time.monotonic()
        with by_hand(below, self._folder / "hand"):
            answered(BY_HAND)
            self.took[what].append(time.monotonic() - began)

    def _fail_over(self, name: str, timed: bool) -> set[int]:
        with self._timed("failover", timed):
            began = time.monotonic()
            self._world.apply(manifest("Failover", name, "10.20.2.10", RECOVERED, recoveryPoint="current"))
            if timed:
                self.shares["kubectl"].append(time.monotonic() - began)
            return answered(RECOVERED)

    def _change_point(self, name: str, used: str, before: set[int]) -> None:
        other = older(self._world, used)
        with self._timed("point change"):
            self._world.patch("fo", name, {"recoveryPoint": other})
            answered(RECOVERED, lambda now: now != before)
        self._world.until("fo", name, phase_is("AwaitingCommit"))

    def _shares(self, timings: Mapping[str, str]) -> None:
        accepted, launched, there = (_seconds(timings[each]) for each in ("acceptedAt", "launchedAt", "readyAt"))
        self.shares["accepted to launched"].append(launched - accepted)
        self.shares["launched to ready"].append(there - launched)


def measure(folder: Path) -> Measured:
    """Kill, boot by hand, drill, fail over, change the point and roll back, again and again."""
    began = time.monotonic()
    world = ShopWorld(folder / "world", zones_from=ZONES, servers=(SERVER,))
    rounds = Rounds(world, folder)
    try:
        world.up(lambda _: None)
        protect(world)
        replicating(world, with_point=True)
        while rounds.kills < KILLS and time.monotonic() - began < SECONDS:
            rounds.run()
    finally:
        rounds.writer.stop()
        world.down()
    return _told(rounds)


def _told(rounds: Rounds) -> Measured:
    took = rounds.took
    against = {"failover": "by hand", "point change": "by hand", "drill": BESIDE}
    figures = [
        Figure(
            f"{name}, until the application answers",
            statistics.median(took[name]),
            "s",
            statistics.median(took[base]),
            base,
            TARGETS,
        )
        for name, base in against.items()
    ]
    figures.append(
        Figure(f"rows lost over {rounds.kills} hard kills", rounds.lost, "rows", targets=(Target(0, "value"),))
    )
    figures += [Figure(f"of a failover: {name}", statistics.median(v), "s") for name, v in rounds.shares.items()]
    rows = len(rounds.writer.acknowledged)
    notes = [
        f"Medians of {len(took['failover'])} failovers. {rows} rows were acknowledged over {rounds.kills} kills.",
        "The operator's times are those of status.",
    ]
    return Measured(figures, [Samples("recovery", "Until the application answers", "s", took)], notes)


def _info(image: Path) -> dict[str, Any]:
    """What qemu-img says of an image, in use or not."""
    found: dict[str, Any] = json.loads(subprocess.check_output(["qemu-img", "info", "-U", "--output=json", str(image)]))
    return found


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
