"""The one-machine world: a control plane, two zones in folders, an example server in one of them, and the operator.

Everything lives in one folder and outlives the process that started it, so `up` and `down` are separate commands and an
end-to-end test is the same world in a temporary folder. Processes are found by their own pid files and ended by pid.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import psutil

from demo import guest, web
from demo.controlplane import ControlPlane, binaries
from demo.helm import CHART, helm, program
from lifeboat.api import crd
from lifeboat.host import processes

HERE: Final = Path(__file__).parent
MANIFESTS: Final = HERE / "manifests"
NAMESPACE: Final = "demo"
RELEASE: Final = "lifeboat"
STOP_SECONDS: Final = 15.0


class WorldError(RuntimeError):
    """The world is not as it should be; the message says what is wrong and what to do."""


@dataclass
class World:
    """A world in a folder. `servers` are those of zone-a that run, `extra` the operator's options."""

    folder: Path
    sitepair: ClassVar[str] = "1-sitepair.yaml"
    """The example's pair among the manifests."""

    zones_from: Path = HERE / "zones"
    servers: Sequence[str] = ("orders-db",)
    extra: Sequence[str] = ("--log-level", "INFO")
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = self.folder.absolute()
        self.zones = self.folder / "zones"
        self.kubeconfig = self.folder / "kubeconfig"
        self.operator_kubeconfig = self.folder / "operator.kubeconfig"
        self._operator_arguments = self.folder / "operator.json"
        self.control_plane = ControlPlane(self.folder / "controlplane", namespace=NAMESPACE)

    # --- Up and down ---

    def up(self, tell: Callable[[str], None] = print) -> None:
        """Start everything that does not run yet: doing it twice does it once."""
        tell("control plane: etcd and kube-apiserver")
        if not self.control_plane.running:
            self.control_plane.start()
        shutil.copyfile(self.control_plane.kubeconfig, self.kubeconfig)
        self.kubeconfig.chmod(0o600)
        self._programs()
        tell("chart: definitions, rights and settings of the operator")
        self.install_chart()
        tell(f"zones: zone-a with {', '.join(self.servers)}; zone-b to recover in")
        self.lay_zones()
        for server in self.servers:
            self.start_server(server)
        tell("operator")
        self.start_operator()

    def down(self) -> None:
        """End all of it: operator, client, machines, storage daemons, control plane; the folder stays."""
        for log in self.folder.glob("operator*.log"):
            self.stop_operator(name=log.stem)
        for pid_file in self.folder.rglob("*.pid"):
            end(pid_file)
        self.control_plane.stop()

    def lay_zones(self) -> None:
        """Write the zones' inventories and the server's disks, where they are not there yet."""
        for inventory in self.zones_from.glob("*/inventory.yaml"):
            zone = self.zones / inventory.parent.name
            for tier in ("standard", "ssd"):
                (zone / "storage" / tier).mkdir(parents=True, exist_ok=True)
            if not (zone / "inventory.yaml").exists():
                shutil.copyfile(inventory, zone / "inventory.yaml")
        for server in self.servers:
            disks = self.zones / "zone-a" / "storage" / "standard" / server
            if not disks.exists():
                partial = disks.with_name(f"{server}.partial")
                shutil.rmtree(partial, ignore_errors=True)
                self.make_disks(server, partial)
                partial.rename(disks)

    def make_disks(self, server: str, folder: Path) -> None:  # noqa: ARG002 - other worlds have other servers
        """Make the disks of a server in a folder: the example's are those of a database."""
        guest.copy_disks(guest.build("postgres"), folder)

    def install_chart(self) -> None:
        """Install the chart as on a cluster, and wait until the four kinds are served.

        There is nobody here who starts pods. So the operator is started beside it: with the arguments of the pod, and
        with a token of its ServiceAccount, so that it may do what the chart grants and nothing else.
        """
        options = ["--namespace", NAMESPACE, "--set", "logFormat=text"]
        options += ["--take-ownership", "--force-conflicts"]  # kubectl may have applied the definitions before
        options += self.chart_options()
        helm("upgrade", "--install", RELEASE, str(CHART), *options, kubeconfig=self.kubeconfig)
        self.control_plane.write_account_kubeconfig(self.operator_kubeconfig, RELEASE, NAMESPACE)
        [container] = self.get("deployment", RELEASE)["spec"]["template"]["spec"]["containers"]
        self._operator_arguments.write_text(json.dumps(container["args"]), encoding="utf-8")
        names = [f"{kind.PLURAL}.lifeboat.dev" for kind in crd.KINDS]
        # `kubectl wait` gives up on an object whose conditions are not there yet, as those of a new one.
        deadline = time.monotonic() + 60.0
        while not all(map(_established, json.loads(self.kubectl("get", "crd", *names, "-o", "json"))["items"])):
            if time.monotonic() > deadline:
                raise WorldError(f"the API server does not serve {', '.join(names)}")
            time.sleep(0.1)

    def chart_options(self) -> list[str]:
        """What the chart is told besides."""
        return []

    def disks_left(self, zone: str) -> list[str]:
        """What a zone's storage holds for disks."""
        return [str(path) for path in (self.zones / zone / "storage").rglob("*.qcow2")]

    def _programs(self) -> None:
        """Links to kubectl, helm and lifeboat in one folder, to put on the PATH."""
        programs = self.folder / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        for name, target in (
            ("kubectl", binaries() / "kubectl"),
            ("helm", program()),
            ("lifeboat", Path(sys.executable).parent / "lifeboat"),
        ):
            link = programs / name
            link.unlink(missing_ok=True)
            link.symlink_to(target)

    # --- Servers of the primary zone ---

    def start_server(self, server: str, zone: str = "zone-a") -> None:
        """Start a server as its owner does."""
        self._lifeboat("machine", "start", str(self.zones / zone), server)

    def kill_server(self, server: str, zone: str = "zone-a") -> int:
        """Kill a server's process, as a power cut does; the answer is the pid it had."""
        pid_file = self.zones / zone / "servers" / server / "machine.pid"
        pid = processes.find(pid_file)
        if pid is None:
            raise WorldError(f"server {server} does not run")
        end(pid_file)
        return pid

    def silence(self, zone: str) -> None:
        """Let the operator get no answer from a zone any more; what runs there goes on."""
        (self.zones / zone / "DOWN").touch()

    def answer(self, zone: str) -> None:
        """Let a silent zone answer again."""
        (self.zones / zone / "DOWN").unlink(missing_ok=True)

    # --- The operator ---

    @property
    def operator_log(self) -> Path:
        """What the operator says."""
        return self.folder / "operator.log"

    def start_operator(self, name: str = "operator", *, seconds: float = 60.0) -> int:
        """Start an operator in a session of its own, and wait until it is ready; the answer is its pid."""
        pid, port = self.launch_operator(name)
        deadline = time.monotonic() + seconds
        while not _answers(port):
            if not processes.alive(pid) or time.monotonic() > deadline:
                tail = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-2000:]
                raise WorldError(f"the operator did not become ready:\n{tail}")
            time.sleep(0.05)
        return pid

    def launch_operator(self, name: str = "operator") -> tuple[int, int]:
        """Start an operator of that name unless it runs, and wait for nothing: its pid, and the port of its pages."""
        pid_file = self.folder / f"{name}.pid"
        if (running := _noted(pid_file)) is not None:
            return running
        port = _free_port()
        arguments = json.loads(self._operator_arguments.read_text(encoding="utf-8"))
        command = [sys.executable, "-m", "lifeboat", *arguments, "--kubeconfig", str(self.operator_kubeconfig)]
        command += ["--zones", str(self.zones), "--http", f"127.0.0.1:{port}", *self.extra]
        with (self.folder / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        processes.keep(child)
        created = psutil.Process(child.pid).create_time()
        pid_file.write_text(json.dumps({"pid": child.pid, "created": created, "port": port}))
        return child.pid, port

    def stop_operator(self, how: signal.Signals = signal.SIGTERM, name: str = "operator") -> None:
        """End an operator: SIGTERM asks it to, SIGKILL is a crash."""
        pid_file = self.folder / f"{name}.pid"
        running = _noted(pid_file)
        if running is not None:
            process = psutil.Process(running[0])
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(how)
                _reap(process)
        pid_file.unlink(missing_ok=True)

    # --- kubectl and lifeboat ---

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120.0) -> str:
        """Run kubectl as a person would; a failure raises with its message."""
        return self.control_plane.kubectl("--namespace", NAMESPACE, *arguments, stdin=stdin, timeout=timeout)

    def apply(self, manifest: str) -> None:
        """Apply one of the example manifests by its file name, or the text of one."""
        if manifest.endswith(".yaml"):
            self.kubectl("apply", "-f", str(MANIFESTS / manifest))
        else:
            self.kubectl("apply", "-f", "-", stdin=manifest)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """An object as the API server has it."""
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def patch(self, kind: str, name: str, spec: Mapping[str, Any]) -> None:
        """Merge fields into an object's spec."""
        self.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def until(
        self, kind: str, name: str, wanted: Callable[[dict[str, Any]], bool], *, seconds: float = 300.0
    ) -> dict[str, Any]:
        """The object once it is as wanted; what it looked like last where it never was."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.get(kind, name)
            if wanted(found):
                return found
            if time.monotonic() > deadline:
                status = json.dumps(found.get("status", {}), indent=1)
                raise WorldError(f"{kind} {name} is not as wanted after {seconds:.0f} s:\n{status}")
            time.sleep(0.1)

    def _lifeboat(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "lifeboat", *arguments]
        environment = {**os.environ, **self.environment, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
        if done.returncode != 0:
            raise WorldError(f"lifeboat {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


def phase_is(*phases: str) -> Callable[[dict[str, Any]], bool]:
    """A condition for `World.until`: the phase is one of these."""
    return lambda found: found.get("status", {}).get("phase") in phases


def ready(found: dict[str, Any]) -> bool:
    """A condition for `World.until`: Ready is True for the spec as it is now."""
    return any(
        c["type"] == "Ready" and c["status"] == "True" and c["observedGeneration"] == found["metadata"]["generation"]
        for c in found.get("status", {}).get("conditions", ())
    )


def _established(definition: Mapping[str, Any]) -> bool:
    conditions = definition.get("status", {}).get("conditions") or ()
    return any((c["type"], c["status"]) == ("Established", "True") for c in conditions)


def end(pid_file: Path) -> None:
    """Kill the program that carries this pid file, if it runs."""
    asyncio.run(processes.kill(pid_file))


def _noted(pid_file: Path) -> tuple[int, int] | None:
    """The pid and the port of the operator that a file tells of, None where it does not run."""
    try:
        noted = json.loads(pid_file.read_text(encoding="ascii"))
        process = psutil.Process(noted["pid"])
        same = abs(process.create_time() - noted["created"]) < 0.1
        return (noted["pid"], noted["port"]) if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, KeyError, psutil.Error):
        return None


def _reap(process: psutil.Process) -> None:
    try:
        process.wait(STOP_SECONDS)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(STOP_SECONDS)


def _answers(port: int) -> bool:
    try:
        web.get(f"http://127.0.0.1:{port}/readyz", 2.0)
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
