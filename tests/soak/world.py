"""The world of a soak: two zones in folders, many small servers of which a few live at a time, a relay between them.

A server has one life: it is protected, fails over, comes back as often as it likes; once committed it stays where it
is, and the next one takes its place. So every life begins with known disks.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
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
from lifeboat.engines.ledger import Ledger, decode
from lifeboat.engines.qemu import machine, processes
from lifeboat.engines.qemu.zones import DOWN
from tests.conftest import connect

LIVES: Final = 24
DISK_BYTES: Final = 2 << 30
PAIR: Final = "a-to-b"
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

    def owner_starts(self, server: str) -> str:
        """Let the owner start a server that should run; what was said where it was refused."""
        try:
            self.start_server(server)
        except WorldError as error:
            return str(error)
        return ""

    def source_pid(self, server: str) -> int | None:
        """The process of a server at its primary site."""
        return machine.running(self.zones / "zone-a" / "servers" / server)

    def recovered(self, server: str) -> dict[str, int]:
        """The machines of failovers of a server that run, with their processes."""
        return {name: pid for name, pid in self.launched(server).items() if name.startswith("failover-")}

    def launched(self, server: str) -> dict[str, int]:
        """The machines that were launched for a server and run."""
        folders = (self.zones / "zone-b" / "machines" / server).glob("*")
        return {each.name: pid for each in folders if (pid := machine.running(each)) is not None}

    def replica_pid(self, server: str) -> int | None:
        """The storage daemon of a server's replica."""
        return processes.find(self.zones / "zone-b" / "replicas" / server / "qsd.pid")

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
            "primary": {"zone": "zone-a", "network": "vpc-a"},
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


def _servers() -> list[str]:
    return [f"s{number}" for number in range(1, LIVES + 1)]


def _primary() -> Stored:
    return {
        "zone": "zone-a",
        "namespaces": [NAMESPACE],
        "networks": [{"name": "vpc-a", "cidr": "10.10.1.0/24", "address": "127.0.51.1"}],
        "storage": {"standard": "storage/standard"},
        "elasticIPs": [primary_ip(server) for server in _servers()],
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
            for server in _servers()
        ],
    }


def _recovery() -> Stored:
    nets = (("vpc-b", 1, "127.0.52.1"), ("vpc-b-replication", 3, "127.0.52.3"), ("vpc-b-recovery", 2, "127.0.52.2"))
    return {
        "zone": "zone-b",
        "namespaces": [NAMESPACE],
        "networks": [
            {"name": name, "cidr": f"10.20.{third}.0/24", "address": address} for name, third, address in nets
        ],
        "storage": {"standard": "storage/standard", "ssd": "storage/ssd"},
        "elasticIPs": [
            *(recovery_ip(server) for server in _servers()),
            *(f"127.0.53.{last}" for last in range(100, 110)),
        ],
        "limits": {"cpu": 8, "memory": "8Gi"},
    }


def _message(error: client.ApiException) -> str:
    try:
        return str(json.loads(error.body or "{}")["message"])[:200]
    except (ValueError, TypeError, KeyError):
        return str(error.status)
