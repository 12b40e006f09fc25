"""The operators that are measured side by side, each a process of its own: Lifeboat and the two baselines."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from bench.cluster import NAMESPACE
from demo import go
from demo.cache import built, cache_root

CONTROLLER: Final = Path(__file__).parent / "baselines" / "controller"
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Used:
    """What a process has used: seconds of CPU since it began, and the memory that it has now."""

    cpu: float
    rss_bytes: int


class Process:
    """An operator that runs."""

    def __init__(self, child: subprocess.Popen[bytes], log: Path) -> None:
        self._child = child
        self._process = psutil.Process(child.pid)
        self.log = log

    def used(self) -> Used:
        """What it has used until now.

        Raises:
            RuntimeError: it has ended.
        """
        try:
            times = self._process.cpu_times()
            return Used(times.user + times.system, self._process.memory_info().rss)
        except psutil.NoSuchProcess:
            raise RuntimeError(f"it has ended:\n{self.log.read_text(errors='replace')[-2000:]}") from None

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._child.send_signal(number)

    def end(self) -> None:
        """End it, by asking first."""
        self._child.terminate()
        try:
            self._child.wait(20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


@contextlib.contextmanager
def lifeboat(folder: Path, kubeconfig: Path, servers: int) -> Iterator[Process]:
    """Lifeboat on the simulated engine, with so many servers that could be protected. Calls go to `folder/calls`."""
    arguments = ["--calls", str(folder / "calls"), "--servers", str(servers), "--http", "127.0.0.1:0"]
    arguments += ["--lease-namespace", NAMESPACE, "--log-level", "WARNING"]
    with _running([sys.executable, "-m", "bench.simulated", *arguments], folder / "lifeboat.log", kubeconfig) as made:
        yield made


@contextlib.contextmanager
def controller(folder: Path, kubeconfig: Path, status: Path, writes: int) -> Iterator[Process]:
    """The operator on controller-runtime."""
    command = [str(controller_program()), f"--status={status}", f"--writes={writes}"]
    with _running(command, folder / "controller.log", kubeconfig) as made:
        yield made


@contextlib.contextmanager
def bare(folder: Path, kubeconfig: Path, status: Path, writes: int) -> Iterator[Process]:
    """The operator on kopf."""
    command = [sys.executable, "-m", "bench.baselines.bare", "--status", str(status), "--writes", str(writes)]
    with _running(command, folder / "kopf.log", kubeconfig) as made:
        yield made


def controller_program() -> Path:
    """The baseline's program, which is built from its Go module once.

    Raises:
        BuildError: Go is missing or too old, or the build failed.
    """
    return built(cache_root() / f"controller-{go.fingerprint(CONTROLLER, 'main.go')}", "the baseline", _build)


def _build(target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{target.name}-", dir=target.parent) as scratch:
        made = Path(scratch) / "controller"
        what = "building the baseline from its Go module: about 1 minute on two cores, once"
        go.run_build(what, go.build_command(go.find_go(), ".", made), CONTROLLER)
        made.rename(target)


@contextlib.contextmanager
def _running(command: list[str], log: Path, kubeconfig: Path) -> Iterator[Process]:
    with log.open("ab") as out:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, "KUBECONFIG": str(kubeconfig)}
        )
    made = Process(child, log)
    try:
        yield made
    finally:
        made.end()
