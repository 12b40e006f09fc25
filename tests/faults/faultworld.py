"""The real world with one server at a time, brought to where a fault is to hit it, and looked at afterwards.

A server that a cell left in good order is used by the next one; any other is cleared away with all that it has, and a
fresh one takes its place. The operator can be held: it is stopped, by a signal, at the moment when its ledger says that
it has got so far, so that a phase that passes in milliseconds can be hit every time.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import psutil
import yaml

from demo import guest
from demo.guest import copy_disks
from demo.world import NAMESPACE, WorldError, end, phase_is, ready
from lifeboat.host import processes
from tests.faults.places import RECOVERED, SOURCE, Places
from tests.faults.relay import Relay
from tests.faults.watcher import Told, Watcher
from tests.faults.writer import Writer

HERE = Path(__file__).parent
DRILLED: Final = "127.0.33.6"
STORAGE_MIB: Final = 1024
# By the zone that holds the replica: where the source reaches it, and where it listens, as the zone's inventory says.
LINKS: Final = {"zone-a": ("127.0.34.4", "127.0.31.3"), "zone-b": ("127.0.34.3", "127.0.32.3")}
SLOW: Final = 1 << 20
PATIENCE: Final = 120.0

PAIR = """
apiVersion: lifeboat.dev/v1alpha1
kind: SitePair
metadata: {name: a-to-b}
spec:
  primary: {zone: zone-a, network: vpc-a, replicationNetwork: vpc-a-replication}
  recovery:
    {zone: zone-b, network: vpc-b, replicationNetwork: vpc-b-replication, recoveryNetwork: vpc-b-recovery}
"""


class Base(StrEnum):
    """Where a server stands between two cells."""

    REPLICATING = "Replicating"
    FAILED_OVER = "FailedOver"
    COMMITTED = "Committed"
    REVERSE_REPLICATING = "ReverseReplicating"
    FAILED_BACK = "FailedBack"
    NONE = "None"


class FaultWorld(Places):
    """See the module. `server` is the present one; `base` where it stands.

    `judged` are the acknowledged rows that were looked for last, `lost` those of them that were not there.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, zones_from=HERE / "zones", servers=())
        self.base = Base.NONE
        self.server = ""
        self.failover = ""
        self.drill = ""
        self.writer = Writer()
        self.watcher: Watcher
        self.relays = [Relay(*link, functools.partial(self.ports_of, zone)) for zone, link in LINKS.items()]
        self._count = 0
        self._seconds = 60
        self._log_began = 0
        self._began = 0.0
        self._before: list[int] = []
        self._wanted: dict[tuple[str, str], int] = {}
        self._held: int | None = None
        self.tmpfs = False
        self.judged: list[int] = []
        self.lost: list[int] = []

    # --- Cells ---

    def begin_cell(self) -> float:
        """Note where a cell begins; the answer is the moment (`time.monotonic`)."""
        self._log_began = self.operator_log.stat().st_size
        self._began = time.monotonic()
        self.judged, self.lost = [], []
        self.writer.measure()
        return self._began

    def logged(self) -> str:
        """How the operator's process is, and what it logged since the cell began."""
        state = "gone"
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            pid = json.loads((self.folder / "operator.pid").read_text())["pid"]
            state = f"{pid} is {psutil.Process(pid).status()}"
        with self.operator_log.open("rb") as log:
            log.seek(self._log_began)
            free = shutil.disk_usage(self.filler.parent).free >> 20
            said = log.read().decode("utf-8", "replace")
        return f"process {state}, held: {self._held}, {free} MiB free in zone-b\n{said}"

    def told(self, kind: str | None = None) -> list[Told]:
        """What was told since the cell began."""
        return self.watcher.since(self._began, kind)

    # --- Up and down ---

    def begin(self) -> None:
        """Start everything but a server."""
        for relay in self.relays:
            relay.start()
        storage = self.zones / "zone-b" / "storage"
        storage.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={STORAGE_MIB}m", "tmpfs", str(storage)]
        self.tmpfs = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        self.up(lambda _: None)
        self.watcher = Watcher(self.kubeconfig, NAMESPACE)
        self.apply(PAIR)
        self.kubectl("wait", "--for=condition=Ready", "sp/a-to-b", "--timeout=60s")

    def finish(self) -> None:
        """End all of it."""
        self.writer.close()
        self.release()
        for relay in self.relays:
            relay.close()
        self.down()
        if hasattr(self, "watcher"):
            self.watcher.close()
        if self.tmpfs:
            subprocess.run(["umount", str(self.zones / "zone-b" / "storage")], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- The server ---

    def ensure(self, base: Base) -> None:
        """Bring a server to where it is to stand."""
        if self.base is base:
            return
        match base:
            case Base.REPLICATING if self.base is Base.FAILED_OVER:
                self.roll_back()
            case Base.REPLICATING:
                self.fresh()
            case Base.FAILED_OVER:
                self.ensure(Base.REPLICATING)
                self.base = Base.NONE
                self.fail_over()
            case Base.COMMITTED:
                self.ensure(Base.FAILED_OVER)
                self.base = Base.NONE
                self.patch("fo", self.failover, {"commit": True})
                self.until("fo", self.failover, phase_is("Committed"))
                self.until("ps", self.server, phase_is("Committed"))
            case Base.REVERSE_REPLICATING:
                self.ensure(Base.COMMITTED)
                self.base = Base.NONE
                self.turn_back()
            case Base.FAILED_BACK:
                self.ensure(Base.REVERSE_REPLICATING)
                self.base = Base.NONE
                self.begin_failback()
                self.until("fo", self.failover, lambda fo: ready(fo) and fo["status"]["phase"] == "Completed")
                self.until("ps", self.server, phase_is("FailedBack"))
                self.writer.aim(SOURCE)
                self.writer.until_acknowledged(PATIENCE)
            case Base.NONE:
                pass
        self.base = base

    def fresh(self) -> None:
        """Clear the present server away, and let a new one replicate."""
        self.clear()
        self._count += 1
        self.server = f"web-{self._count}"
        disks = copy_disks(guest.build("tiny", data_disks=2), self.disks_folder)
        self._inventory(
            [
                {
                    "id": self.server,
                    "cpu": 1,
                    "memory": "192Mi",
                    "network": "vpc-a",
                    "ipAddress": "10.10.1.10",
                    "elasticIP": SOURCE,
                    "ports": [80],
                    "disks": [
                        {"name": disk.stem, "file": str(disk.relative_to(self.zones / "zone-a"))} for disk in disks
                    ],
                }
            ]
        )
        self.start_server(self.server)
        self.writer.aim(SOURCE)
        spec = {
            "sitePairRef": {"name": "a-to-b"},
            "serverId": self.server,
            "replication": {"enabled": True, "recoveryPoints": [{"every": "10s", "for": "1m"}]},
        }
        self.create("ProtectedServer", self.server, spec)
        self.until("ps", self.server, lambda ps: ready(ps) and ps["status"]["recoveryPointCount"] > 0)
        self.writer.until_acknowledged(PATIENCE)
        self.base = Base.REPLICATING

    def clear(self) -> None:
        """Clear the present server away with all that it has, whatever state it is in."""
        self.writer.pause()
        self.writer.keep([])
        self.heal_everything()
        self.base, server, self.server = Base.NONE, self.server, ""
        if not server:
            return
        self.stop_operator()
        for kind in ("dr", "fo", "ps"):
            for name in self.kubectl("get", kind, "-o", "name").split():
                self.kubectl("patch", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
                self.kubectl("delete", name, "--timeout=30s")
        for pid_file in self.zones.rglob("*.pid"):
            end(pid_file)
        self._inventory([])
        for folder in [path for path in self.zones.rglob(server) if path.is_dir()]:
            shutil.rmtree(folder, ignore_errors=True)
        self.start_operator()

    def heal_everything(self) -> None:
        """End every fault that a cell may have left."""
        self.release()
        self.join_link()
        for zone in ("zone-a", "zone-b"):
            self.answer(zone)
        self.filler.unlink(missing_ok=True)
        if not self.control_plane.running:
            self.control_plane.stop()
            self.control_plane.start()

    def cut_link(self) -> None:
        """Let nothing through between the zones any more, in either direction, without a word."""
        for relay in self.relays:
            relay.swallow()

    def join_link(self) -> None:
        """Let the zones reach each other again."""
        for relay in self.relays:
            relay.heal()

    def fail_over(self, **spec: Any) -> None:
        """Fail the server over at `current`, and let the writer write to the recovered one."""
        self.begin_failover(**spec)
        self.until("fo", self.failover, lambda fo: ready(fo) and fo["status"]["phase"] == "AwaitingCommit")
        self.writer.aim(RECOVERED)
        self.writer.until_acknowledged(PATIENCE)

    def begin_failover(self, **spec: Any) -> None:
        """Ask for a failover of the server. What is acknowledged until its source is fenced is not to be lost."""
        self._before = self.writer.numbers()
        self._count += 1
        self.failover = f"failover-{self._count}"
        wanted = {
            "serverRef": {"name": self.server},
            "instance": {"elasticIP": RECOVERED},
            "checks": [{"name": "web", "httpGet": {"port": 80, "path": "/cgi-bin/rows"}}],
        }
        self.create("Failover", self.failover, wanted | spec)

    def turn_back(self) -> None:
        """Have the committed server copied back onto the machine that it came from."""
        back = {"direction": "Reverse", "enabled": True, "originalMachine": True, "confirmWipe": self.server}
        self.patch("ps", self.server, {"replication": back})
        self.until("ps", self.server, lambda ps: ready(ps) and ps["status"]["phase"] == "ReverseReplicating")
        self.until("ps", self.server, lambda ps: ps["status"]["recoveryPointCount"] > 0)

    def begin_failback(self) -> None:
        """Ask for the server to go back to its primary site. What is acknowledged is not to be lost."""
        self.begin_failover(type="Failback", instance={"ipAddress": "10.10.1.10", "elasticIP": SOURCE})

    def roll_back(self) -> None:
        """Go back to the source, which knows nothing of what the recovered server acknowledged."""
        self.base = Base.NONE
        self.writer.pause()
        self.patch("fo", self.failover, {"rollback": True})
        self.until("fo", self.failover, phase_is("RolledBack"))
        if processes.find(self.source) is None:
            # It did not run any more when it was fenced, so it is its owner who starts it.
            self.start_server(self.server)
        self.rolled_back()

    def rolled_back(self) -> None:
        """Wait until a rollback has ended and the source is protected again."""
        self.until("fo", self.failover, phase_is("RolledBack"))
        self.writer.keep(self._before)
        self.writer.aim(SOURCE)
        self.until("ps", self.server, lambda ps: ready(ps) and ps["status"]["phase"] == "Replicating")
        self.writer.until_acknowledged(PATIENCE)
        self.kubectl("delete", "fo", self.failover, "--timeout=30s")
        self.base = Base.REPLICATING

    def begin_drill(self) -> None:
        """Ask for a drill of the server."""
        self._count += 1
        self.drill = f"drill-{self._count}"
        spec = {
            "serverRef": {"name": self.server},
            "instance": {"elasticIP": DRILLED},
            "checks": [{"name": "web", "httpGet": {"port": 80, "path": "/cgi-bin/rows"}}],
        }
        self.create("Drill", self.drill, spec)

    def ask_operator(self) -> None:
        """See that the operator is there: it tells of a spec that was changed, in something that matters to nobody."""
        self._seconds = 60 + (self._seconds + 1) % 10
        tiers = [{"every": "10s", "for": f"{self._seconds}s"}]
        self.patch("ps", self.server, {"replication": {"recoveryPoints": tiers}})
        self.until("ps", self.server, lambda _: True)

    # --- The operator, held ---

    @contextlib.contextmanager
    def held(self, when: Callable[[], bool], seconds: float = PATIENCE) -> Iterator[None]:
        """Stop the operator at the moment when something on disk says so, which what is in the block leads to.

        Raises:
            WorldError: it never came to that.
        """
        yield
        pid = self.start_operator()
        deadline = time.monotonic() + seconds
        while not when():
            if time.monotonic() > deadline:
                raise WorldError("the operator never came to where it was to be held")
            time.sleep(0.002)
        os.kill(pid, signal.SIGSTOP)
        self._held = pid
        if not when():
            self.release()
            raise WorldError("the operator had gone on before it could be held")

    def release(self) -> None:
        """Let a held operator go on."""
        pid, self._held = self._held, None
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def forget_hold(self) -> None:
        """Know that the held operator was killed."""
        self._held = None

    # --- Objects, by the watch instead of a kubectl for each look ---

    def create(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Create an object."""
        body = {"apiVersion": "lifeboat.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        self.apply(json.dumps(body))

    def patch(self, kind: str, name: str, spec: Any) -> None:
        """Merge fields into an object's spec; `until` then waits for a status about this spec."""
        answer = self.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps({"spec": spec}), "-o", "json")
        self._wanted[kind, name] = json.loads(answer)["metadata"]["generation"]

    def until(
        self, kind: str, name: str, wanted: Callable[[dict[str, Any]], bool], *, seconds: float = PATIENCE
    ) -> dict[str, Any]:
        """The object once its status is as wanted and about the newest spec."""
        found: dict[str, Any] = {}

        def as_wanted() -> bool:
            nonlocal found
            found = self.watcher.get(kind, name) or {}
            status = found.get("status", {})
            generation = max(found.get("metadata", {}).get("generation", 1), self._wanted.get((kind, name), 1))
            return bool(status.get("observedGeneration") == generation and wanted(found))

        if not self.watcher.wait(as_wanted, seconds):
            status = json.dumps(found.get("status", {}), indent=1)
            raise WorldError(f"{kind} {name} is not as wanted after {seconds:.0f} s:\n{status}")
        return found

    def until_told(self, wanted: Callable[[Told], bool], since: float, seconds: float) -> Told | None:
        """The first status from a moment on that is as wanted, None where none came in time."""
        found: Told | None = None

        def there() -> bool:
            nonlocal found
            found = next((told for told in self.watcher.since(since) if wanted(told)), None)
            return found is not None

        self.watcher.wait(there, seconds)
        return found

    def _inventory(self, servers: list[dict[str, Any]]) -> None:
        path = self.zones / "zone-a" / "inventory.yaml"
        found = yaml.safe_load(path.read_text())
        fresh = path.with_suffix(".new")
        fresh.write_text(yaml.safe_dump({**found, "servers": servers}))
        fresh.replace(path)
