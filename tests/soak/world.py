"""The world of a soak: two zones in folders, a few small servers, and a relay before each zone's replicas."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from kubernetes import client

from demo import guest
from demo.world import NAMESPACE, World, WorldError
from lifeboat.api import names
from lifeboat.api.common import Resource
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair
from lifeboat.engines.contract import Retry
from lifeboat.engines.ledger import Ledger, decode
from lifeboat.engines.qemu import lines, storage_daemon
from lifeboat.engines.qemu.records import REPLICA
from lifeboat.engines.qemu.zones import Zone
from lifeboat.host import machine, processes
from lifeboat.host.qmp import Monitors
from lifeboat.host.zones import DOWN
from tests.conftest import connect
from tests.faults.left_behind import zone_at
from tests.faults.relay import Relay

SERVERS: Final = ("s1", "s2")
DISK_BYTES: Final = 2 << 30
PAIR: Final = "a-to-b"
REPLICATION: Final = {"zone-a": ("127.0.51.3", "127.0.51.9"), "zone-b": ("127.0.52.3", "127.0.52.9")}
"""Where a zone's replicas listen, and where the other zone reaches them: a relay is between."""

Stored = dict[str, Any]


class Undelivered(Exception):
    """Raised when the API server did not answer."""


class Rejected(Exception):
    """Raised when the API server refused what was asked; the message says why."""


class SoakWorld(World):
    """The demo's world with other zones, and short ways to look and to hurt."""

    def __init__(self, folder: Path) -> None:
        zones = folder / "inventories"
        for zone, inventory in (("zone-a", _primary()), ("zone-b", _recovery())):
            (zones / zone).mkdir(parents=True, exist_ok=True)
            (zones / zone / "inventory.yaml").write_text(yaml.safe_dump(inventory, sort_keys=False))
        super().__init__(folder, zones_from=zones, servers=(), extra=("--log-level", "DEBUG", "--log-format", "json"))
        self.image = guest.build("tiny")
        self._zone_b = self.zones / "zone-b"
        self._mounted = False
        self._read: dict[str, Zone] = {}
        self.relays = {
            zone: Relay(reached, address, self._ports(zone)) for zone, (address, reached) in REPLICATION.items()
        }

    # --- the recovery zone's own disk, where this user may mount one

    def mount(self) -> bool:
        """Give the recovery zone a small disk of its own, which can be filled; whether that is allowed here."""
        self._zone_b.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "soak", str(self._zone_b)]
        self._mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        return self._mounted

    def unmount(self) -> None:
        """Take that disk away."""
        if self._mounted:
            subprocess.run(["umount", "--lazy", str(self._zone_b)], capture_output=True, check=False)
            self._mounted = False

    def fill(self) -> Path | None:
        """Fill the recovery zone's disk; the file to remove, None where it has no disk of its own or is full."""
        filler = self._zone_b / "filler"
        if not self._mounted or filler.exists():
            return None
        block = bytes(1 << 20)
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(block):  # until there is no room left
                pass
        return filler

    # --- people in the zones

    def begin(self, server: str) -> None:
        """Make a server's disks, and start it as its owner does."""
        guest.copy_disks(self.image, self.zones / "zone-a" / "storage" / "standard" / server)
        self.start_server(server)

    def owner_starts(self, server: str, zone: str) -> str:
        """Let the owner start a server that should run; what was said where it was refused."""
        try:
            self.start_server(server, zone)
        except WorldError as error:
            return str(error)
        return ""

    def zone(self, name: str) -> Zone:
        """A zone, whether or not it answers."""
        if name not in self._read:
            self._read[name] = zone_at(self.zones / name)
        return self._read[name]

    def launched(self, server: str) -> dict[str, int]:
        """The machines that were launched for a server and run."""
        folders = self.zones.glob(f"*/machines/{server}/*")
        return {each.name: pid for each in folders if (pid := machine.running(each)) is not None}

    def stands_still(self, folder: Path) -> bool:
        """Whether a machine stands still because its disk was full."""
        try:
            status = asyncio.run(Monitors().run(folder / machine.OWNER_QMP, "query-status", seconds=2.0))
        except Retry:
            return False
        return bool(status["status"] == "io-error")

    def replica_pids(self, server: str) -> list[int]:
        """The storage daemons of a server's replicas."""
        return _found(self.zones.glob(f"*/replicas/{server}/{storage_daemon.PID}"))

    def line_pids(self, server: str) -> list[int]:
        """The processes that carry a server's data to its replica."""
        folders = (f"*/servers/{server}", f"*/machines/{server}/*")
        return [pid for folder in folders for pid in _found(self.zones.glob(f"{folder}/{lines.PID}"))]

    def _ports(self, zone: str) -> Callable[[], Iterable[int]]:
        """What a zone's relay asks again and again: the ports of the replicas there."""
        known: dict[Path, int] = {}

        def ports() -> Iterable[int]:
            for server in SERVERS:
                path = self.zones / zone / "replicas" / server / REPLICA
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                    written = path.stat().st_mtime_ns
                    if seen.get(path) != written:
                        known[path] = int(json.loads(path.read_bytes())["port"])
                        seen[path] = written
            return known.values()

        seen: dict[Path, int] = {}
        return ports

    def answers(self, zone: str) -> bool:
        """Whether a zone answers."""
        return not (self.zones / zone / DOWN).exists()

    def ledger(self, server: str) -> Ledger | None:
        """The ledger of a server as it is stored, None where nothing was ever recorded."""
        folder = self.zones / "zone-b" / "replicas" / server / "ledger"
        while True:
            versions = sorted(folder.glob("*.json"), key=lambda path: int(path.stem))
            if not versions:
                return None
            try:
                return decode(versions[-1].read_bytes())
            except FileNotFoundError:
                continue  # a newer one took its place

    # --- people at the API server

    def reconnect(self) -> None:
        """Open a connection to the API server; it is used by one thread at a time."""
        self._objects = client.CustomObjectsApi(connect(self.control_plane))

    def create(self, kind: type[Resource], name: str, spec: Mapping[str, Any]) -> None:
        """Create an object."""
        body = {
            "apiVersion": names.API_VERSION,
            "kind": kind.__name__,
            "metadata": {"name": name},
            "spec": spec,
        }
        self._call("create_namespaced_custom_object", kind, body=body)

    def edit(self, kind: type[Resource], name: str, body: Mapping[str, Any]) -> None:
        """Merge something into an object."""
        self._call(
            "patch_namespaced_custom_object",
            kind,
            name=name,
            body=body,
            _content_type="application/merge-patch+json",
        )

    def delete(self, kind: type[Resource], name: str) -> None:
        """Ask for an object to be deleted."""
        self._call("delete_namespaced_custom_object", kind, name=name)

    def all(self, kind: type[Resource]) -> dict[str, Stored]:
        """All objects of a kind, by name."""
        found = self._call("list_namespaced_custom_object", kind)
        return {each["metadata"]["name"]: each for each in found["items"]}

    def protect(self, server: str, name: str | None = None, **more: Any) -> None:
        """Create a ProtectedServer."""
        replication = {"enabled": True, "recoveryPoints": [{"every": "10s", "for": "3m"}]}
        spec = {"sitePairRef": {"name": PAIR}, "serverId": server, "replication": replication, **more}
        self.create(ProtectedServer, name or server, spec)

    def pair(self) -> None:
        """Create the site pair."""
        spec = {
            "primary": {
                "zone": "zone-a",
                "network": "vpc-a",
                "replicationNetwork": "vpc-a-replication",
                "recoveryNetwork": "vpc-a-recovery",
            },
            "recovery": {
                "zone": "zone-b",
                "network": "vpc-b",
                "replicationNetwork": "vpc-b-replication",
                "recoveryNetwork": "vpc-b-recovery",
            },
        }
        self.create(SitePair, PAIR, spec)

    def _call(self, verb: str, kind: type[Resource], **arguments: object) -> Stored:
        try:
            found: Stored = getattr(self._objects, verb)(
                group=names.GROUP,
                version=names.VERSION,
                namespace=NAMESPACE,
                plural=kind.PLURAL,
                _request_timeout=5,
                **arguments,
            )
        except client.ApiException as error:
            if error.status in {400, 403, 404, 409, 422}:
                raise Rejected(_message(error)) from error
            raise Undelivered(str(error.status)) from error
        except Exception as error:
            raise Undelivered(type(error).__name__) from error
        return found

    # --- the end

    def keep(self, to: Path) -> None:
        """Keep what explains a run: logs, ledgers and records, without disks."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path.suffix in {".log", ".json", ".yaml"} and "etcd" not in path.parts:
                target = to / path.relative_to(self.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


def primary_ip(server: str) -> str:
    """Where a server is reached at its primary site."""
    return f"127.0.51.{10 + int(server[1:])}"


def recovery_ip(server: str) -> str:
    """Where a server is reached at its recovery site."""
    return f"127.0.53.{10 + int(server[1:])}"


def kill(pid: int | None) -> None:
    """End a process at once."""
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def _found(pid_files: Iterable[Path]) -> list[int]:
    return [pid for path in pid_files if (pid := processes.find(path)) is not None]


def _primary() -> Stored:
    return {
        "zone": "zone-a",
        "namespaces": [NAMESPACE],
        "networks": _networks("zone-a", "vpc-a", "10.10", "127.0.51"),
        "storage": {"standard": "storage/standard", "ssd": "storage/ssd"},
        "elasticIPs": [
            *(primary_ip(server) for server in SERVERS),
            *(f"127.0.51.{last}" for last in range(100, 110)),
        ],
        "limits": {"cpu": 8, "memory": "8Gi"},
        "servers": [
            {
                "id": server,
                "memory": "192Mi",
                "network": "vpc-a",
                "ipAddress": f"10.10.1.{10 + int(server[1:])}",
                "elasticIP": primary_ip(server),
                "ports": [80],
                "disks": [
                    {"name": disk, "file": f"storage/standard/{server}/{disk}.qcow2"} for disk in ("system", "data")
                ],
            }
            for server in SERVERS
        ],
    }


def _recovery() -> Stored:
    return {
        "zone": "zone-b",
        "namespaces": [NAMESPACE],
        "networks": _networks("zone-b", "vpc-b", "10.20", "127.0.52"),
        "storage": {"standard": "storage/standard", "ssd": "storage/ssd"},
        "elasticIPs": [
            *(recovery_ip(server) for server in SERVERS),
            *(f"127.0.53.{last}" for last in range(100, 110)),
        ],
        "limits": {"cpu": 8, "memory": "8Gi"},
    }


def _networks(zone: str, name: str, inside: str, outside: str) -> list[Stored]:
    address, reached = REPLICATION[zone]
    return [
        {"name": name, "cidr": f"{inside}.1.0/24", "address": f"{outside}.1"},
        {"name": f"{name}-recovery", "cidr": f"{inside}.2.0/24", "address": f"{outside}.2"},
        {"name": f"{name}-replication", "cidr": f"{inside}.3.0/24", "address": address, "reachedAt": reached},
    ]


def _message(error: client.ApiException) -> str:
    try:
        return str(json.loads(error.body or "{}")["message"])[:200]
    except (ValueError, TypeError, KeyError):
        return str(error.status)
