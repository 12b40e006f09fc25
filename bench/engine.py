"""Two zones of the embedded engine in a folder, and a server in them, without Kubernetes: what data takes is measured.

The zones are those of the conformance suite of engines, on the disk where the folder is. Disks are written as a guest's
device would, through the monitor of the machine's owner, or by what runs in a guest.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lifeboat.engines.contract import Target
from lifeboat.engines.facts import Replica, ReplicaState
from lifeboat.engines.qemu.records import ReplicaRecord, layer_file, load_replica
from lifeboat.engines.qemu.zones import Zones as Found
from lifeboat.engines.verbs import StartReplication, Verb
from lifeboat.host import machine
from lifeboat.host.qmp import reachable
from tests.engines.harness import known
from tests.engines.qemu_harness import Zones

MIB: Final = 1 << 20
KIB: Final = 1 << 10


class Pair(Zones):
    """Two zones, with words for what the bench does in them."""

    @property
    def target(self) -> Target:
        """What verbs are about."""
        return Target(self.pair, self.server_id, 1, self.direction)

    async def perform(self, *verbs: Verb) -> None:
        """Do what these verbs say."""
        for verb in verbs:
            await self.engine.perform(self.target, verb)

    async def replica(self) -> Replica:
        """The replica as it is seen now."""
        facts = await self.engine.observe(self.pair, [self.server_id])
        return known(facts.servers[self.server_id].way(self.direction).replica)

    def copy(self, run: int) -> StartReplication:
        """The verb that starts a full copy."""
        return StartReplication(run=run, replication_network=self.replication_network)

    async def in_step(self, seconds: float) -> Replica:
        """Wait until the replica is in step with its source."""
        way = await self.settle(lambda way: known(way.replica).state is ReplicaState.SYNCED, seconds)
        return known(way.replica)

    def record(self) -> ReplicaRecord:
        """What the recovery zone has on record of the replica."""
        found = load_replica(Found(self.zones).zone(self.pair.recovery_zone), self.server_id)
        assert found is not None
        return found

    def link(self, port: int) -> tuple[str, str, int]:
        """Where a replica is looked for once the link was cut, and where it is offered, at one port."""
        offered = Found(self.zones).zone(self.pair.recovery_zone).network(self.replication_network).address
        return self.nowhere, offered, port

    def compare(self, disk: int) -> None:
        """See that a replica that was stopped holds what the server's disk holds."""
        record = self.record()
        assert record.tip is not None
        zone = Found(self.zones).zone(self.pair.recovery_zone)
        replica = layer_file(zone, record, record.layer(record.tip), disk)
        compare(self.disk(disk), replica)

    def disk(self, disk: int) -> Path:
        """The image of one of the server's disks."""
        return self.zones / self.pair.primary_zone / str(self._disks[disk]["file"])


@asynccontextmanager
async def bare(folder: Path, disks: dict[str, Path]) -> AsyncIterator[Pair]:
    """A server that runs and boots nothing, with these disks, which are moved into its zone."""
    zones = folder / "zones"
    zones.mkdir()
    pair = Pair(memory_mib=64, storage_mib=None, zones=zones)
    try:
        storage = zones / pair.pair.primary_zone / "standard"
        for name, disk in disks.items():
            disk.rename(storage / f"{name}.qcow2")
        pair.describe([{"name": name, "file": f"standard/{name}.qcow2"} for name in disks])
        assert await pair.start_source()
        yield pair
    finally:
        await pair.take_down()


def compare(source: Path, copy: Path) -> None:
    """See that a copy holds what a disk holds, which a machine may have open."""
    argv = ["qemu-img", "compare", "-q", "-U", "-f", "qcow2", "-F", "qcow2", str(source), str(copy)]
    subprocess.run(argv, check=True, timeout=120)


class Device:
    """The disks of a machine, written as its guest's device would, without a guest's processor in between. Blocking."""

    def __init__(self, folder: Path, seconds: float = 30.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(seconds)
        try:
            with reachable(folder / machine.OWNER_QMP) as path:
                self._socket.connect(path)
            self._answers = self._socket.makefile("rb")
            self._ask("qmp_capabilities")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def write(self, disk: int, offset: int, length: int, pattern: int) -> float:
        """Write, flush, and return how many seconds that took."""
        began = time.perf_counter()
        self._io(disk, f"write -P {pattern} {offset} {length}")
        self._io(disk, "flush")
        return time.perf_counter() - began

    def _io(self, disk: int, command: str) -> None:
        line = f'qemu-io -d vd{disk}/virtio-backend "{command}"'
        said = str(self._ask("human-monitor-command", {"command-line": line})).strip()
        # What it has written it tells on the machine's own output.
        assert not said, said

    def _ask(self, command: str, arguments: dict[str, object] | None = None) -> object:
        request = {"execute": command, "arguments": arguments} if arguments else {"execute": command}
        self._socket.sendall(json.dumps(request).encode())
        while line := self._answers.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise OSError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise OSError(f"{command}: the machine has ended")
