"""The embedded engine under the conformance suite: real machines and disks, in two zones of a temporary folder.

Most of the contract is about disks and processes, and a machine has those also when nothing boots in it. So the server
of a case's own world has disks without a system, written through its monitor, and is there in a second. What is about
the guest has another world (`qemu_guest_harness.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from lifeboat.engines.contract import Engine, Pair, Refused
from lifeboat.engines.facts import Way
from lifeboat.engines.ledger import Direction
from lifeboat.engines.qemu import storage_daemon
from lifeboat.engines.qemu.engine import QemuEngine
from lifeboat.host import machine, processes
from lifeboat.host.records import REGISTERED

MIB = 1 << 20
SOURCE_ADDRESS = "10.71.0.20"
# Others may run the suite on this host at this moment, and an elastic IP's port is only one machine's: the addresses
# are this process's own.
_LOOPBACK = f"127.{64 + os.getpid() // 250 % 128}.{1 + os.getpid() % 250}"


class Zones:
    """Two zones on this host and the disasters in them.

    Breaking the link is killing what receives the replica, and looking for it where nobody is.
    """

    server_id = "web-1"
    outside_address = "10.99.0.5"
    elastic_ips: tuple[str, ...] = (f"{_LOOPBACK}.10", f"{_LOOPBACK}.11")
    cpu = 2

    def __init__(self, memory_mib: int, storage_mib: int | None, zones: Path | None = None) -> None:
        """`storage_mib` bounds the recovery zone's storage; None leaves it where `zones` is, as large as that."""
        self.zones = zones or Path(tempfile.mkdtemp(prefix="lifeboat-"))
        self.memory_bytes = memory_mib * MIB
        self.pair = Pair("zone-a", "zone-b")
        self.direction = Direction.FORWARD
        self.owner = QemuEngine(self.zones)
        self.engine: Engine = self.owner
        self._reached: dict[str, str] = {}
        self._storage = self.zones / "zone-b" / "standard"
        for zone in ("zone-a", "zone-b"):
            (self.zones / zone / "standard").mkdir(parents=True)
        if os.geteuid() == 0 and storage_mib is not None:
            size = f"size={storage_mib}m"
            subprocess.run(["mount", "-t", "tmpfs", "-o", size, "lifeboat", self._storage], check=True)

    def describe(self, disks: list[dict[str, str]]) -> None:
        """Write both inventories, the server with these disks."""
        self._disks = disks
        limits = {"cpu": 4, "memory": "4Gi"}
        server = {
            "id": self.server_id,
            "cpu": self.cpu,
            "memory": f"{self.memory_bytes // MIB}Mi",
            "network": "serving",
            "ipAddress": SOURCE_ADDRESS,
            "ports": [80],
            "disks": disks,
        }
        self._describe("zone-a", {"serving": (71, 2), "replication-back": (74, 5)}, limits=limits, servers=[server])
        networks = {"recovery": (72, 3), "replication": (73, 4)}
        self._describe("zone-b", networks, limits=limits, elasticIPs=list(self.elastic_ips))

    def _describe(self, zone: str, networks: dict[str, tuple[int, int]], **more: object) -> None:
        inventory = {
            "zone": zone,
            "networks": [
                {"name": name, "cidr": f"10.{number}.0.0/24", "address": f"{_LOOPBACK}.{host}", **self._reached}
                for name, (number, host) in networks.items()
            ],
            "storage": {"standard": "standard"},
            **more,
        }
        (self.zones / zone / "inventory.yaml").write_text(yaml.safe_dump(inventory), encoding="utf-8")

    @property
    def recovery_network(self) -> str:
        return "recovery" if self.direction is Direction.FORWARD else "serving"

    @property
    def replication_network(self) -> str:
        return "replication" if self.direction is Direction.FORWARD else "replication-back"

    def address(self, number: int) -> str:
        return f"10.{72 if self.direction is Direction.FORWARD else 71}.0.{100 + number}"

    async def settle(self, predicate: Callable[[Way], bool], timeout: float = 120.0) -> Way:  # noqa: ASYNC109 - the protocol's name for it
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            facts = (await self.engine.observe(self.pair, [self.server_id])).servers[self.server_id].way(self.direction)
            if predicate(facts):
                return facts
            assert loop.time() < deadline, f"not seen in {timeout:g} s, last: {facts}"
            await asyncio.sleep(0.1)

    async def restart_engine(self) -> None:
        await self.owner.close()
        self.engine = self.owner = QemuEngine(self.zones)

    async def kill_source(self) -> None:
        await processes.kill(self.source_folder / machine.PID)

    async def start_source(self) -> bool:
        try:
            await self.owner.start_server(self._source_zone.name, self.server_id)
        except Refused:
            return False
        return True

    async def silence(self, zone: str) -> None:
        (self.zones / zone / "DOWN").touch()

    async def answer(self, zone: str) -> None:
        (self.zones / zone / "DOWN").unlink(missing_ok=True)

    @property
    def nowhere(self) -> str:
        """Where replicas are looked for once the link is cut."""
        return f"{_LOOPBACK}.99"

    async def cut_link(self) -> None:
        self._reached = {"reachedAt": self.nowhere}
        self.describe(self._disks)
        await processes.kill(self._target_zone / "replicas" / self.server_id / storage_daemon.PID)

    async def restore_link(self) -> None:
        self._reached = {}
        self.describe(self._disks)

    async def fill_recovery(self) -> None:
        if not self._storage.is_mount():
            pytest.skip("only root can give the zone a small file system of its own")
        await asyncio.to_thread(self._fill)

    async def take_down(self) -> None:
        """End what runs in the zones, and delete them."""
        await self.owner.close()
        await asyncio.to_thread(self._clear)

    def _fill(self) -> None:
        with (self._storage / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage(self._storage).free)

    def _clear(self) -> None:
        mine = [each for each in psutil.process_iter(["cmdline"]) if self._is_mine(each)]
        for each in mine:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(mine, timeout=10)
        if self._storage.is_mount():
            subprocess.run(["umount", self._storage], check=True)
        shutil.rmtree(self.zones, ignore_errors=True)

    def _is_mine(self, process: psutil.Process) -> bool:
        return any(str(self.zones) in word for word in process.info["cmdline"] or ())

    @property
    def _source_zone(self) -> Path:
        return self.zones / ("zone-a" if self.direction is Direction.FORWARD else "zone-b")

    @property
    def _target_zone(self) -> Path:
        return self.zones / ("zone-b" if self.direction is Direction.FORWARD else "zone-a")

    @property
    def source_folder(self) -> Path:
        folder = self._source_zone / "servers" / self.server_id
        with contextlib.suppress(FileNotFoundError):
            registered = json.loads((folder / REGISTERED).read_bytes())
            return self._source_zone / "machines" / self.server_id / str(registered["machine"])
        return folder

    def machine_folder(self, name: str) -> Path:
        return self._target_zone / "machines" / self.server_id / name


class BareHarness(Zones):
    """A server whose machines boot nothing. The first sector of each disk holds a number.

    The owner's monitor is used, so the engine's own is free. Numbers go through the machine's virtual disks as a
    guest's would, and are read from the block nodes under them.
    """

    boots = False
    disks = ("system", "data")
    _SIZE = 64 * MIB
    _FILLED = 24 * MIB
    _SECTOR = 512

    def __init__(self) -> None:
        super().__init__(memory_mib=64, storage_mib=256)
        self.describe(
            [{"name": disk, "file": f"standard/{disk}.qcow2", "size": f"{self._SIZE // MIB}Mi"} for disk in self.disks]
        )

    @classmethod
    async def create(cls) -> BareHarness:
        harness = cls()
        try:
            assert await harness.start_source()
            await harness._io(harness.source_folder, 0, f"write -P 165 {MIB} {cls._FILLED}", "flush")
        except BaseException:
            await harness.close()
            raise
        return harness

    async def close(self) -> None:
        await self.take_down()

    async def write(self, number: int) -> None:
        for disk in range(len(self.disks)):
            await self._put(self.source_folder, disk, number)

    async def write_in(self, machine: str, number: int) -> None:
        for disk in range(len(self.disks)):
            await self._put(self.machine_folder(machine), disk, number)

    async def contents(self, machine: str) -> int:
        found = await self._numbers(machine)
        assert len(set(found)) == 1, f"its disks are of different instants: {found}"
        return found[0]

    async def original(self) -> int | None:
        files = [self.zones / "zone-a" / "standard" / f"{disk}.qcow2" for disk in self.disks]
        if not any(file.exists() for file in files):
            return None
        found = {await asyncio.to_thread(self._read, self.zones, ["-f", "qcow2", f"if={file}"]) for file in files}
        assert len(found) == 1, f"its disks are of different instants: {found}"
        return found.pop()

    @asynccontextmanager
    async def alternating(self) -> AsyncIterator[None]:
        done = asyncio.Event()

        async def keep_writing() -> None:
            for number in itertools.count(1):
                await self.write(number)
                if done.is_set():
                    return

        async with asyncio.TaskGroup() as group:
            group.create_task(keep_writing())
            await asyncio.sleep(0.2)
            try:
                yield
            finally:
                done.set()

    async def disks_agree(self, machine: str) -> bool:
        first, second = await self._numbers(machine)
        return first > 0 and first - second in {0, 1}

    async def _put(self, folder: Path, disk: int, number: int) -> None:
        sector = self.zones / "sector"
        sector.write_bytes(str(number).encode().ljust(self._SECTOR, b"\0"))
        await self._io(folder, disk, f"write -s {sector} 0 {self._SECTOR}", "flush")

    async def _io(self, folder: Path, disk: int, *commands: str) -> None:
        async with self.owner._monitors.session(folder / machine.OWNER_QMP, 30.0) as session:
            for command in commands:
                said = await session.human(f'qemu-io -d vd{disk}/virtio-backend "{command}"')
                assert not said, said

    async def _numbers(self, name: str) -> list[int]:
        """The number on each disk of a running machine, which offers them for that moment."""
        folder = self.machine_folder(name)
        async with self.owner._monitors.session(folder / machine.OWNER_QMP, 30.0) as session:
            await session.run("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "offer.sock"}}})
            try:
                for disk in range(len(self.disks)):
                    export = {"type": "nbd", "id": f"offer{disk}", "name": str(disk), "node-name": machine.node(disk)}
                    await session.run("block-export-add", export)
                # Relative to the folder: a socket's path may have 108 bytes.
                offers = [f"if=nbd+unix:///{disk}?socket=offer.sock" for disk in range(len(self.disks))]
                return [await asyncio.to_thread(self._read, folder, ["-f", "raw", offer]) for offer in offers]
            finally:
                await session.run("nbd-server-stop")

    def _read(self, folder: Path, source: list[str]) -> int:
        sector = folder / "sector"
        sector.unlink(missing_ok=True)
        what = [*source, "-O", "raw", "of=sector", f"bs={self._SECTOR}", "count=1"]
        subprocess.run(["qemu-img", "dd", *what], cwd=folder, check=True, timeout=30)
        return int(sector.read_bytes().strip(b"\0") or b"0")
