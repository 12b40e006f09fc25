"""Where things of the present server lie, in whichever direction it is registered for."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Final

from demo.world import World
from lifeboat.engines.ledger import Direction, Ledger
from lifeboat.engines.qemu import site_server, storage_daemon
from lifeboat.engines.qemu.records import REPLICA, ReplicaRecord, load_replica
from lifeboat.host import machine
from tests.faults.left_behind import ledger_of, left_behind, zone_at
from tests.faults.sameness import differences

SOURCE: Final = "127.0.31.5"
RECOVERED: Final = "127.0.33.5"


class Places(World):
    """A world's folders and records. `server` is the present server, empty while there is none."""

    server = ""

    @property
    def disks_folder(self) -> Path:
        """Where the source's disks are."""
        return self.zones / "zone-a" / "storage" / "standard" / self.server

    @property
    def filler(self) -> Path:
        """The file that fills zone-b's storage."""
        return self.zones / "zone-b" / "storage" / "filler"

    @property
    def source_zone(self) -> str:
        """The zone that the server is copied from."""
        return "zone-a" if self.ledger().direction is Direction.FORWARD else "zone-b"

    @property
    def target_zone(self) -> str:
        """The zone that the server is copied to."""
        return "zone-b" if self.ledger().direction is Direction.FORWARD else "zone-a"

    @property
    def serving(self) -> str:
        """Where the server that is copied from answers."""
        return SOURCE if self.ledger().direction is Direction.FORWARD else RECOVERED

    @property
    def source(self) -> Path:
        """The pid file of the server that is copied from."""
        found = site_server.present(zone_at(self.zones / self.source_zone), self.server)
        return found.folder / machine.PID

    @property
    def daemon(self) -> Path:
        """The pid file of the process that holds the replica."""
        return self.zones / self.target_zone / "replicas" / self.server / storage_daemon.PID

    def ports_of(self, zone: str) -> list[int]:
        """The ports on which a zone offers replicas."""
        found = []
        for path in (self.zones / zone / "replicas").glob(f"*/{REPLICA}"):
            with contextlib.suppress(OSError, ValueError):
                found.append(json.loads(path.read_bytes())["port"])
        return [port for port in found if port is not None]

    def machine(self, name: str) -> Path:
        """The pid file of a launched machine."""
        return self.zones / "zone-b" / "machines" / self.server / name / machine.PID

    def ledger(self) -> Ledger:
        """The server's ledger as it is now."""
        return ledger_of(zone_at(self.zones / "zone-b"), self.server)

    def replica(self) -> ReplicaRecord | None:
        """The replica's record as it is now."""
        return load_replica(zone_at(self.zones / self.target_zone), self.server)

    def differences(self) -> list[str]:
        """The source's disks whose replica is another."""
        return differences(zone_at(self.zones / self.source_zone), zone_at(self.zones / self.target_zone), self.server)

    def left_behind(self) -> list[str]:
        """What has no owner, once what is being cleared had time to go."""
        return left_behind(self.zones, seconds=30)
