"""The embedded engine under the conformance suite: real machines and disks, in two zones of a temporary folder.

The server is the tiny guest, whose web server writes numbers to its disks and answers when they are there. Waiting is
real here, so a run takes many minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from demo.guest import GuestImage, build, copy_disks
from lifeboat.engines.contract import Engine, Pair, Refused, Retry, Target
from lifeboat.engines.facts import Known, ServerFacts
from lifeboat.engines.qemu import forwards, machine, processes, storage_daemon
from lifeboat.engines.qemu.engine import QemuEngine

MIB = 1 << 20
_SOURCE_ADDRESS = "10.71.0.20"
_PRIMARY = """\
zone: zone-a
networks:
  - {name: serving, cidr: 10.71.0.0/24, address: 127.0.71.1}
storage: {standard: standard}
limits: {cpu: 4, memory: 4Gi}
servers:
  - id: web-1
    cpu: 2
    memory: %(memory)dMi
    network: serving
    ipAddress: 10.71.0.20
    ports: [80]
    disks:
%(disks)s
"""
_RECOVERY = """\
zone: zone-b
networks:
  - {name: recovery, cidr: 10.72.0.0/24, address: 127.0.72.1}
  - {name: replication, cidr: 10.73.0.0/24, address: 127.0.73.1}
storage: {standard: standard}
elasticIPs: [127.0.72.10, 127.0.72.11]
limits: {cpu: 4, memory: 4Gi}
"""


class QemuHarness:
    """Two zones on this host. Breaking the link is killing the process that receives the replica."""

    server_id = "web-1"
    recovery_network = "recovery"
    replication_network = "replication"
    outside_address = "10.99.0.5"
    elastic_ips: tuple[str, ...] = ("127.0.72.10", "127.0.72.11")
    cpu = 2

    def __init__(self, zones: Path, memory_mib: int) -> None:
        self.zones = zones
        self.memory_bytes = memory_mib * MIB
        self.pair = Pair("zone-a", "zone-b")
        self.owner = QemuEngine(zones)
        self.engine: Engine = self.owner
        self._storage = zones / "zone-b" / "standard"

    @classmethod
    async def create(cls) -> QemuHarness:
        image = await asyncio.to_thread(build, "tiny", data_disks=2)
        zones = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="lifeboat-"))
        harness = cls(zones, image.memory_mib)
        try:
            await asyncio.to_thread(harness._lay_out, image)
            await harness.owner.start_server("zone-a", cls.server_id)
            await harness.settle(lambda facts: isinstance(facts.source, Known) and facts.source.value.agent_connected)
            await harness._until_served(harness._source_route)
        except BaseException:
            await harness.close()
            raise
        return harness

    def _lay_out(self, image: GuestImage) -> None:
        """Write both zones, and put copies of the guest's disks into the primary."""
        for zone in ("zone-a", "zone-b"):
            (self.zones / zone / "standard").mkdir(parents=True)
        if os.geteuid() == 0:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "lifeboat", self._storage], check=True)
        disks = copy_disks(image, self.zones / "zone-a" / "standard" / self.server_id)
        described = "\n".join(
            f"      - {{name: {disk.stem}, file: {disk.relative_to(self.zones / 'zone-a')}}}" for disk in disks
        )
        primary = _PRIMARY % {"memory": image.memory_mib, "disks": described}
        (self.zones / "zone-a" / "inventory.yaml").write_text(primary, encoding="utf-8")
        (self.zones / "zone-b" / "inventory.yaml").write_text(_RECOVERY, encoding="utf-8")

    def address(self, number: int) -> str:
        return f"10.72.0.{100 + number}"

    async def settle(self, predicate: Callable[[ServerFacts], bool], timeout: float = 120.0) -> ServerFacts:  # noqa: ASYNC109 - the protocol's name for it
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            facts = (await self.engine.observe(self.pair, [self.server_id])).servers[self.server_id]
            if predicate(facts):
                return facts
            assert loop.time() < deadline, f"not seen in {timeout:g} s, last: {facts}"
            await asyncio.sleep(0.2)

    async def restart_engine(self) -> None:
        await self.owner.close()
        self.engine = self.owner = QemuEngine(self.zones)

    async def write(self, number: int) -> None:
        assert await _get(await self._source_route(), f"/cgi-bin/write?n={number}") == "ok"

    async def write_in(self, machine: str, number: int) -> None:
        await self._until_served(lambda: self._route(machine))
        assert await _get(await self._route(machine), f"/cgi-bin/write?n={number}") == "ok"

    async def contents(self, machine: str) -> int:
        await self._until_served(lambda: self._route(machine))
        rows = await _get(await self._route(machine), "/cgi-bin/rows")
        return max((int(row) for row in rows.split()), default=0)

    @asynccontextmanager
    async def alternating(self) -> AsyncIterator[None]:
        route = await self._source_route()
        done = asyncio.Event()

        async def keep_writing() -> None:
            number = 1
            while not done.is_set():
                await _get(route, f"/cgi-bin/alternate?n={number}&count=20", 60)
                number += 20

        async with asyncio.TaskGroup() as group:
            group.create_task(keep_writing())
            await asyncio.sleep(1)
            try:
                yield
            finally:
                done.set()

    async def disks_agree(self, machine: str) -> bool:
        await self._until_served(lambda: self._route(machine))
        last = json.loads(await _get(await self._route(machine), "/cgi-bin/alternate"))
        return last["data"] > 0 and last["data"] - last["data2"] in {0, 1}

    async def kill_source(self) -> None:
        await processes.kill(self._source_folder / machine.PID)

    async def start_source(self) -> bool:
        try:
            await self.owner.start_server("zone-a", self.server_id)
        except Refused:
            return False
        return True

    async def silence(self, zone: str) -> None:
        (self.zones / zone / "DOWN").touch()

    async def answer(self, zone: str) -> None:
        (self.zones / zone / "DOWN").unlink()

    async def cut_link(self) -> None:
        await processes.kill(self.zones / "zone-b" / "replicas" / self.server_id / storage_daemon.PID)

    async def restore_link(self) -> None:
        """A resume starts the receiving process again."""

    async def fill_recovery(self) -> None:
        if not self._storage.is_mount():
            pytest.skip("only root can give the zone a small file system of its own")
        free = shutil.disk_usage(self._storage).free
        await asyncio.to_thread(self._fill, free)

    async def close(self) -> None:
        await self.owner.close()
        await asyncio.to_thread(self._clear)

    def _fill(self, size: int) -> None:
        with (self._storage / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, size)

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
    def _source_folder(self) -> Path:
        return self.zones / "zone-a" / "servers" / self.server_id

    async def _source_route(self) -> tuple[str, int]:
        # A monitor takes one client at a time, so the engine's own turns are kept.
        return await forwards.ensure_route(self.owner._monitors, self._source_folder, _SOURCE_ADDRESS, 80)

    async def _route(self, machine: str) -> tuple[str, int]:
        return await self.engine.route(Target(self.pair, self.server_id, 1 << 30), machine, 80)

    async def _until_served(self, route: Callable[[], Awaitable[tuple[str, int]]]) -> None:
        """Wait until the guest's web server answers."""
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(OSError, AssertionError, TimeoutError, Retry):
                    await _get(await route(), "/cgi-bin/info", 5)
                    return
                await asyncio.sleep(0.2)


async def _get(route: tuple[str, int], path: str, seconds: float = 20.0) -> str:
    """The body of a guest's answer, which has to be a good one."""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(*route)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            await writer.drain()
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    assert " 200 " in head.splitlines()[0] if head else False, f"{path}: {head or 'no answer'}"
    return body.strip()
