"""The ceph engine under the conformance suite: two real clusters, and real machines on disks in them.

The clusters are shared by all cases. A server whose disks are written and read from outside is there in a second, so
each case has one of its own, with images of its own; what is about the guest has another world
(`ceph_guest_harness.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import yaml

from demo.ceph import Clusters
from demo.ceph.cluster import POOL
from lifeboat.engines.ceph import naming
from lifeboat.engines.ceph.engine import CephEngine
from lifeboat.engines.ceph.ledgers import name_of as ledger_name
from lifeboat.engines.ceph.records import name_of as replica_name
from lifeboat.engines.contract import Engine, EngineError, Pair, Refused, Secrets
from lifeboat.engines.facts import Known, ReplicaState, Way
from lifeboat.engines.ledger import Direction
from lifeboat.host import machine, processes
from lifeboat.host.qmp import Monitors
from lifeboat.host.records import REGISTERED
from tests.engines import sectors

MIB = 1 << 20
SOURCE_ADDRESS = "10.71.0.20"
_SIZE = 32 * MIB
_FILLED = 8 * MIB
_NUMBER = 1
# 16-bit code: it sleeps until a key is pressed; then it counts, in sector 1 of both disks, until one is pressed again.
#   idle:  xor ax,ax; int 0x16
#   count: inc dword [0x9000]; for dl in 0x80, 0x81: mov si,sector; mov ax,0x4300; int 0x13
#          mov ah,1; int 0x16; jz count; xor ax,ax; int 0x16; jmp idle
_BOOT = bytes.fromhex(
    "31c08ed88ec08ed0bc007cfcbf0090b90001f3abfb31c0cd1666ff060090b280e81100b281e80c00b401cd1674eb31c0cd16ebe1"
    "be3d7cb80043cd13c310000100009000000100000000000000"
)
# Others may run the suite on this host at this moment, and an elastic IP's port is only one machine's.
_LOOPBACK = f"127.{64 + os.getpid() // 250 % 128}.{1 + os.getpid() % 250}"


class CephZones:
    """A server in a fresh pair of zones, and the disasters there."""

    outside_address = "10.99.0.5"
    elastic_ips: tuple[str, ...] = (f"{_LOOPBACK}.10", f"{_LOOPBACK}.11")
    cpu = 2
    disks: tuple[str, ...]

    def __init__(self, clusters: Clusters, memory_mib: int) -> None:
        self.memory_bytes = memory_mib * MIB
        self.clusters = clusters
        self.server_id = f"web-{uuid.uuid4().hex[:8]}"
        self.zones = Path(tempfile.mkdtemp(prefix="lifeboat-"))
        sites = {
            side: {"secretRef": {"name": cluster.secret_name}}
            for side, cluster in zip(("primary", "recovery"), clusters.both, strict=True)
        }
        self.pair = Pair("zone-a", "zone-b", sites, "test")
        self.direction = Direction.FORWARD
        self.owner = self.new_engine()
        self.engine: Engine = self.owner
        self._monitors = Monitors()
        self._full = False
        server = {
            "id": self.server_id,
            "cpu": self.cpu,
            "memory": f"{memory_mib}Mi",
            "network": "serving",
            "ipAddress": SOURCE_ADDRESS,
            "ports": [80],
        }
        self._describe("zone-a", {"serving": (71, 2), "replication-back": (74, 5)}, servers=[server])
        networks = {"recovery": (72, 3), "replication": (73, 4)}
        self._describe("zone-b", networks, elasticIPs=list(self.elastic_ips))

    async def begin(self) -> None:
        """Make the images and start the server."""
        try:
            await asyncio.to_thread(self._make_images)
            await self._mark_images()
            assert await self.start_source()
        except BaseException:
            await self.close()
            raise

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
        self.engine = self.owner = self.new_engine()

    async def kill_source(self) -> None:
        """Its process ends at once. Its last writes are on their way, and arrive where there is a way."""
        await processes.kill(self.source_folder / machine.PID)
        with contextlib.suppress(AssertionError):
            await self.settle(_arrived, timeout=15)

    async def start_source(self) -> bool:
        try:
            await self.owner.start_server(self.pair, self._source_zone, self.server_id)
        except Refused:
            return False
        return True

    async def silence(self, zone: str) -> None:
        (self.zones / zone / "DOWN").touch()

    async def answer(self, zone: str) -> None:
        (self.zones / zone / "DOWN").unlink(missing_ok=True)

    async def cut_link(self) -> None:
        await asyncio.to_thread(self.clusters.of(self._target_zone).stop, "mirror")

    async def restore_link(self) -> None:
        for cluster in self.clusters.both:
            cluster.start("mirror")

    async def fill_recovery(self) -> None:
        self._full = True
        await asyncio.to_thread(self.clusters.recovery.fill)

    async def close(self) -> None:
        if self._full:
            await asyncio.to_thread(self.clusters.recovery.make_room)
        await self.restore_link()
        for zone in ("zone-a", "zone-b"):
            await self.answer(zone)
        await asyncio.to_thread(self._end_machines)
        await self.owner.close()
        fresh = self.new_engine()
        for zone in ("zone-a", "zone-b"):
            await self._clean(fresh, zone)
        await fresh.close()
        shutil.rmtree(self.zones, ignore_errors=True)

    @property
    def _source_zone(self) -> str:
        return "zone-a" if self.direction is Direction.FORWARD else "zone-b"

    @property
    def _target_zone(self) -> str:
        return "zone-b" if self.direction is Direction.FORWARD else "zone-a"

    @property
    def source_folder(self) -> Path:
        zone = self.zones / self._source_zone
        folder = zone / "servers" / self.server_id
        with contextlib.suppress(FileNotFoundError):
            registered = json.loads((folder / REGISTERED).read_bytes())
            return zone / "machines" / self.server_id / str(registered["machine"])
        return folder

    def machine_folder(self, name: str) -> Path:
        return self.zones / self._target_zone / "machines" / self.server_id / name

    def new_engine(self, secrets: Secrets | None = None) -> CephEngine:
        """Another engine over the same zones."""
        return CephEngine(self.zones, secrets or self.clusters)

    def _describe(self, zone: str, networks: dict[str, tuple[int, int]], **more: object) -> None:
        inventory = {
            "zone": zone,
            "networks": [
                {"name": name, "cidr": f"10.{number}.0.0/24", "address": f"{_LOOPBACK}.{host}"}
                for name, (number, host) in networks.items()
            ],
            "limits": {"cpu": 4, "memory": "4Gi"},
            **more,
        }
        (self.zones / zone).mkdir()
        (self.zones / zone / "inventory.yaml").write_text(yaml.safe_dump(inventory), encoding="utf-8")

    def _image(self, disk: str) -> str:
        return f"{self.server_id}-{disk}"

    def _make_images(self) -> None:
        """Make the images of the server's disks."""
        raise NotImplementedError

    def _more_marks(self, disk: str) -> dict[str, str]:  # noqa: ARG002 - where disks stand by their names
        """What the image of a disk says beside whose it is."""
        return {}

    async def _mark_images(self) -> None:
        site = await self.owner._sites.site(self.pair, "zone-a")
        for disk in self.disks:
            marks = {naming.SERVER: self.server_id, naming.DISK: disk, **self._more_marks(disk)}
            await site.worker.call("note", pool=POOL, image=self._image(disk), changes=marks)

    def _end_machines(self) -> None:
        """Let them close their images: a killed one is in the way of their deletion for some ten seconds."""
        left = [each for each in psutil.process_iter(["cmdline"]) if self._is_mine(each)]
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for each in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    end(each)
            _, left = psutil.wait_procs(left, timeout=5)

    def _is_mine(self, process: psutil.Process) -> bool:
        return any(str(self.zones) in word for word in process.info["cmdline"] or ())

    async def _clean(self, engine: CephEngine, zone: str) -> None:
        """Delete this case's images and records, whatever the engine left."""
        with contextlib.suppress(EngineError):
            site = await engine._sites.site(self.pair, zone)
            looked = await site.worker.call("look", pool=POOL)
            mine = [each for each in looked["images"] if each["metadata"].get(naming.SERVER) == self.server_id]
            mine.sort(key=lambda image: naming.MACHINE not in image["metadata"])
            for image in mine:
                with contextlib.suppress(EngineError):
                    name = image["name"]
                    if image["mirror"] is not None:
                        await site.worker.call("promote", pool=POOL, images=[name], force=True)
                    await site.worker.call("disable", pool=POOL, images=[name], deadline=20.0)
                    await site.worker.call("remove", pool=POOL, image=name, deadline=20.0)
            for record in (ledger_name(self.server_id), replica_name(self.server_id)):
                await site.records.forget(record)


class CephHarness(CephZones):
    """A server whose machines boot one sector.

    It does nothing until it is told to, and then writes rising numbers to one disk and to the other, as a guest does,
    so that it is still when its machine is. All other numbers go through the machine's monitor.
    """

    boots = False
    disks: tuple[str, ...] = ("data", "system")

    def __init__(self, clusters: Clusters) -> None:
        super().__init__(clusters, memory_mib=64)

    @classmethod
    async def create(cls, clusters: Clusters) -> CephHarness:
        harness = cls(clusters)
        await harness.begin()
        return harness

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
        found = [await asyncio.to_thread(self._stored, self._image(disk)) for disk in self.disks]
        assert len(set(found)) == 1, f"its disks are of different instants: {found}"
        return found[0]

    @asynccontextmanager
    async def alternating(self) -> AsyncIterator[None]:
        await sectors.press_key(self._monitors, self.source_folder)
        async with asyncio.timeout(60):
            while min(await self._read(self.source_folder)) < 2:  # noqa: ASYNC110 - the disks are asked
                await asyncio.sleep(0.1)
        try:
            yield
        finally:
            await sectors.press_key(self._monitors, self.source_folder)

    async def disks_agree(self, machine: str) -> bool:
        first, second = await self._numbers(machine)
        return first > 0 and first - second in {0, 1}

    def _make_images(self) -> None:
        first = self.disks[0]
        for disk in self.disks:
            file = self.zones / f"{disk}.raw"
            with file.open("wb") as raw:
                raw.truncate(_SIZE)
                if disk == first:
                    raw.write(_BOOT.ljust(510, b"\0") + b"\x55\xaa")
                raw.seek(8 * MIB)
                raw.write(b"\xa5" * _FILLED)
            self.clusters.primary.run("rbd", "import", "--no-progress", str(file), f"{POOL}/{self._image(disk)}")
            file.unlink()

    async def _put(self, folder: Path, disk: int, number: int) -> None:
        await sectors.put(self._monitors, folder, disk, _NUMBER, number.to_bytes(4, "little"))

    async def _numbers(self, machine: str) -> list[int]:
        return await self._read(self.machine_folder(machine))

    async def _read(self, folder: Path) -> list[int]:
        return await sectors.get(
            self._monitors, folder, len(self.disks), _NUMBER, lambda data: int.from_bytes(data[:4], "little")
        )

    def _stored(self, image: str) -> int | None:
        """The number in an image of the primary site that no machine has open, None where there is no image."""
        if image not in self.clusters.primary.run("rbd", "ls", POOL).split():
            return None
        file = self.zones / "exported.raw"
        self.clusters.primary.run("rbd", "export", "--no-progress", f"{POOL}/{image}", str(file))
        with file.open("rb") as raw:
            raw.seek(_NUMBER * sectors.SECTOR)
            found = int.from_bytes(raw.read(4), "little")
        file.unlink()
        return found


def _arrived(facts: Way) -> bool:
    """Whether all that was written has arrived, as far as anything is copied at all."""
    match facts.replica:
        case Known(replica) if replica.state is ReplicaState.SYNCED:
            return replica.lag_seconds == 0.0
        case _:
            return True
