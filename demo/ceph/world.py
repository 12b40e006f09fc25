"""The one-machine world with servers on Ceph: the same zones, servers and story, and two clusters for the disks."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from demo import packages
from demo.ceph.cluster import POOL
from demo.ceph.pair import Clusters
from demo.world import NAMESPACE, World
from lifeboat.api.names import ENGINE_LABEL, ENGINE_LABEL_VALUE
from lifeboat.engines.ceph import naming
from lifeboat.engines.ceph.engine import CephEngine
from lifeboat.engines.contract import Pair

FAST: Final = "fast"


class CephWorld(World):
    """A world whose zones have a Ceph cluster each; a server's disks are images there."""

    sitepair = "ceph/1-sitepair.yaml"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.clusters = Clusters(self.folder / "ceph", pools=(POOL, FAST))

    def up(self, tell: Callable[[str], None] = print) -> None:
        """Start everything that does not run yet: doing it twice does it once."""
        packages.ensure(packages.CEPH)
        tell("storage: a Ceph cluster for each zone, each the other's mirror")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.clusters.up()
        super().up(tell)

    def down(self) -> None:
        """End all of it; the folder stays."""
        super().down()
        self.clusters.down()

    def lay_zones(self) -> None:
        """Write inventories, the Secrets of the clusters, and the servers' images, where they are missing."""
        for inventory in self.zones_from.glob("*/inventory.yaml"):
            zone = self.zones / inventory.parent.name
            zone.mkdir(parents=True, exist_ok=True)
            if not (zone / "inventory.yaml").exists():
                (zone / "inventory.yaml").write_text(_without_disks(inventory), encoding="utf-8")
        for cluster in self.clusters.both:
            metadata = {"name": cluster.secret_name, "labels": {ENGINE_LABEL: ENGINE_LABEL_VALUE}}
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": cluster.secret()}
            self.apply(json.dumps(secret))
        for server in self.servers:
            self._make_images(server)

    def chart_options(self) -> list[str]:
        """Let the operator read the two Secrets."""
        names = ",".join(cluster.secret_name for cluster in self.clusters.both)
        return ["--set", f"engineSecrets={{{names}}}"]

    def start_server(self, server: str, zone: str = "zone-a") -> None:
        """Start a server as its owner does."""
        asyncio.run(self._start(server, zone))

    def disks_left(self, zone: str) -> list[str]:
        """What a zone's storage holds for disks."""
        cluster = self.clusters.of(zone)
        return [f"{pool}/{image}" for pool in self.clusters.pools for image in cluster.run("rbd", "ls", pool).split()]

    async def _start(self, server: str, zone: str) -> None:
        sites = {
            side: {"secretRef": {"name": cluster.secret_name}}
            for side, cluster in zip(("primary", "recovery"), self.clusters.both, strict=True)
        }
        engine = CephEngine(self.zones, self.clusters)
        try:
            await engine.start_server(Pair("zone-a", "zone-b", sites, NAMESPACE), zone, server)
        finally:
            await engine.close()

    def _make_images(self, server: str) -> None:
        """Copy the disks of a server into images that say whose they are. The last word makes them whole."""
        cluster = self.clusters.primary
        there = set(cluster.run("rbd", "ls", POOL).split())
        with tempfile.TemporaryDirectory(dir=self.folder) as made:
            folder = Path(made) / "disks"
            for order, name in enumerate(self._disks(server)):
                image = f"{server}-{name}"
                if image in there:
                    continue
                if not folder.exists():
                    self.make_disks(server, folder)
                half = f"{image}.partial"
                if half in there:
                    cluster.run("rbd", "rm", "--no-progress", f"{POOL}/{half}")
                cluster.import_disk(folder / f"{name}.qcow2", POOL, half)
                marks = {naming.SERVER: server, naming.DISK: name, naming.ORDER: str(order)}
                for key, value in marks.items():
                    cluster.run("rbd", "image-meta", "set", f"{POOL}/{half}", key, value)
                cluster.run("rbd", "rename", f"{POOL}/{half}", f"{POOL}/{image}")

    def _disks(self, server: str) -> list[str]:
        inventory = yaml.safe_load((self.zones_from / "zone-a" / "inventory.yaml").read_text(encoding="utf-8"))
        return [disk["name"] for each in inventory["servers"] if each["id"] == server for disk in each["disks"]]


def _without_disks(inventory: Path) -> str:
    """An inventory for servers whose disks are elsewhere."""
    found: dict[str, Any] = yaml.safe_load(inventory.read_text(encoding="utf-8"))
    found.pop("storage")
    for server in found.get("servers", ()):
        server.pop("disks")
    return yaml.safe_dump(found, sort_keys=False)
