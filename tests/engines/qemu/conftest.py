"""Two zones on this host and a server whose machine boots nothing: its disks are written through its monitor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lifeboat.engines.contract import Pair, Target
from lifeboat.engines.facts import Known, Machine, Replica, ReplicaState, Way
from lifeboat.engines.ledger import Ledger
from lifeboat.engines.qemu import QemuEngine, lines, storage_daemon
from lifeboat.engines.verbs import Launch, Shape, StartReplication, Verb
from lifeboat.host import machine, processes
from lifeboat.host.qmp import Monitors

MIB = 1 << 20
SERVER = "web-1"
DISKS = ("system", "data")


class World:
    """The zones, an engine over them, and the hands of their people."""

    def __init__(self, folder: Path, storage: Path | None = None) -> None:
        self.folder = folder
        self.storage = storage or folder / "zone-b" / "storage"
        self.a, self.b = folder / "zone-a", folder / "zone-b"
        self.engine = QemuEngine(folder)
        self.monitors = Monitors()
        self.pair = Pair("zone-a", "zone-b")
        self.target = Target(self.pair, SERVER, 1)
        self.write_inventory("zone-a", servers=[server()])
        self.write_inventory("zone-b", storage=storage)

    def write_inventory(
        self, zone: str, storage: Path | None = None, reached_at: str | None = None, **more: Any
    ) -> None:
        number = 1 if zone == "zone-a" else 2
        (self.folder / zone).mkdir(exist_ok=True)
        replication: dict[str, Any] = {"name": "replication", "cidr": f"10.{number}.9.0/24"}
        replication |= {"address": f"127.0.2{number}.9"} | ({"reachedAt": reached_at} if reached_at else {})
        inventory: dict[str, Any] = {
            "zone": zone,
            "namespaces": ["default"],
            "networks": [
                {"name": "app", "cidr": f"10.{number}.0.0/24", "address": f"127.0.2{number}.1"},
                replication,
            ],
            "storage": {"standard": str(storage or "storage"), "ssd": "ssd"},
            "elasticIPs": [f"127.0.1{number}.5", f"127.0.1{number}.6"],
            "limits": {"cpu": 4, "memory": "2Gi"},
            **more,
        }
        (self.folder / zone / "inventory.yaml").write_text(yaml.safe_dump(inventory, sort_keys=False))

    async def perform(self, *verbs: Verb) -> None:
        for verb in verbs:
            await self.engine.perform(self.target, verb)

    async def copy(self, run: int = 1, limit: int | None = None, *, onto_original: bool = False) -> None:
        verb = StartReplication(run=run, replication_network="replication", bandwidth_limit=limit)
        await self.perform(replace(verb, onto_original=onto_original))

    async def facts(self) -> Way:
        return (await self.engine.observe(self.pair, [SERVER])).servers[SERVER].way(self.target.direction)

    async def ledger(self) -> Ledger:
        found: Ledger = known((await self.engine.observe(self.pair, [SERVER])).servers[SERVER].ledger)
        return found

    async def replica(self) -> Replica:
        found: Replica = known((await self.facts()).replica)
        return found

    async def machines(self) -> dict[str, Machine]:
        return dict(known((await self.facts()).machines))

    async def points(self) -> list[str]:
        return [point.name for point in (await self.replica()).points]

    async def until(self, predicate: Callable[[], Awaitable[Any]], seconds: float = 30.0) -> Any:
        async with asyncio.timeout(seconds):
            while True:
                found = await predicate()
                if found:
                    return found
                await asyncio.sleep(0.05)

    async def reaches(self, state: ReplicaState, seconds: float = 30.0) -> Replica:
        seen: Replica | None = None

        async def there() -> Replica | None:
            nonlocal seen
            seen = await self.replica()
            return seen if seen.state is state else None

        try:
            found: Replica = await self.until(there, seconds)
        except TimeoutError:
            raise AssertionError(f"{state} was not reached: {seen}") from None
        return found

    async def replicate(self, run: int = 1) -> Replica:
        await self.copy(run)
        return await self.reaches(ReplicaState.SYNCED)

    @property
    def source(self) -> Path:
        return self.a / "servers" / SERVER

    async def io(self, folder: Path, disk: int, command: str) -> str:
        """Let a machine's virtual disk do what qemu-io can."""
        async with self.monitors.session(machine.socket(folder), 30.0) as session:
            return await session.human(f'qemu-io -d vd{disk}/virtio-backend "{command}"')

    async def write(self, disk: int, pattern: int, offset: str, length: str = "64k") -> None:
        said = await self.io(self.source, disk, f"write -P {pattern} {offset} {length}")
        assert "wrote" in said or not said, said

    async def holds(self, name: str, disk: int, pattern: int, offset: str, length: str = "64k") -> bool:
        """Whether a machine's disk holds this pattern; its own file is read with the machine at rest or not."""
        path = self.overlay(name, disk)
        return reads(path, pattern, offset, length)

    def overlay(self, name: str, disk: int) -> Path:
        return self.storage / "machines" / SERVER / name / f"{DISKS[disk]}.qcow2"

    async def launch(self, name: str, point: str, **shape: Any) -> Machine:
        wanted = {"cpu": 1, "memory_bytes": 64 * MIB, "network": "app", "isolated": True, **shape}
        await self.perform(Launch(name, point, Shape(**wanted)))
        return (await self.machines())[name]

    async def new_engine(self) -> None:
        await self.engine.close()
        self.engine = QemuEngine(self.folder)

    def kill(self, pid: int | None, number: int = signal.SIGKILL) -> None:
        assert pid is not None
        os.kill(pid, number)

    async def kill_source(self) -> None:
        await processes.kill(self.source / machine.PID)

    def daemon(self) -> int | None:
        return processes.find(self.b / "replicas" / SERVER / storage_daemon.PID)

    async def kill_daemon(self) -> None:
        await processes.kill(self.b / "replicas" / SERVER / storage_daemon.PID)

    async def close(self) -> None:
        await self.engine.close()
        for name in (lines.PID, machine.PID, storage_daemon.PID):
            for pid_file in self.folder.rglob(name):
                pid = processes.find(pid_file)
                if pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
                    await processes.kill(pid_file)


def server(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": SERVER,
        "cpu": 1,
        "memory": "64Mi",
        "network": "app",
        "ipAddress": "10.1.0.15",
        "ports": [80, 5432],
        "disks": [
            {"name": "system", "file": "disks/system.qcow2", "size": "256Mi"},
            {"name": "data", "file": "disks/data.qcow2", "size": "512Mi"},
        ],
    }
    return {**found, **changes}


async def run(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(*argv)
    assert await process.wait() == 0


def known(fact: Any) -> Any:
    assert isinstance(fact, Known), fact
    return fact.value


def reads(path: Path, pattern: int, offset: str, length: str = "64k") -> bool:
    command = ["qemu-io", "-U", "-r", "-f", "qcow2", "-c", f"read -P {pattern} {offset} {length}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode == 0 and "verification failed" not in done.stdout


@pytest.fixture
async def world() -> AsyncIterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="lifeboat-qemu-"))
    made = World(folder)
    try:
        await made.engine.start_server("zone-a", SERVER)
        yield made
    finally:
        await made.close()
        shutil.rmtree(folder)


@pytest.fixture
async def full_world() -> AsyncIterator[World]:
    """A world whose recovery zone has 64 MiB of storage."""
    folder = Path(tempfile.mkdtemp(prefix="lifeboat-qemu-"))
    storage = folder / "small"
    storage.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    await run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(storage))
    made = World(folder, storage)
    try:
        await made.engine.start_server("zone-a", SERVER)
        yield made
    finally:
        await made.close()
        await run("umount", str(storage))
        shutil.rmtree(folder)
