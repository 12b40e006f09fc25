"""A world for operators that have bad days: one small server, real machines, operators as processes, a real API server.

Each test leaves the server replicating at its primary site, as it found it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo import guest
from demo.guest import copy_disks
from demo.world import World, phase_is, ready
from lifeboat.engines.ledger import Ledger, decode
from tests.e2e.conftest import PAIR, SERVER, Site
from tests.folders import shared_in_folder

HERE = Path(__file__).parent
SERVER_ID = "shop"
RECOVERED = "127.0.43.5"


class ShopWorld(World):
    """The demo's world with one small server, and a look into what the recovery site keeps of it."""

    def make_disks(self, server: str, folder: Path) -> None:  # noqa: ARG002 - there is one
        """Make the disks of the one server."""
        copy_disks(guest.build("tiny"), folder)

    def ledger(self) -> Ledger:
        """The ledger as it is stored now."""
        folder = self.zones / "zone-b" / "replicas" / SERVER_ID / "ledger"
        while True:
            newest = max(folder.glob("*.json"), key=lambda path: int(path.stem))
            try:
                return decode(newest.read_bytes())
            except FileNotFoundError:
                continue  # it was removed between the look and the reading

    def points(self) -> list[dict[str, Any]]:
        """The recovery points as the recovery site has them recorded, oldest first."""
        record = json.loads((self.zones / "zone-b" / "replicas" / SERVER_ID / "replica.json").read_text())
        return [layer["point"] for layer in record["layers"] if layer["point"] is not None]

    def machines(self) -> dict[str, str]:
        """The machines of both zones that were started, with their process ids."""
        return {str(f.relative_to(self.zones)): f.read_text().strip() for f in self.zones.rglob("machine.pid")}

    def said(self, since: int, name: str = "operator") -> str:
        """What an operator's log says from that byte on."""
        return (self.folder / f"{name}.log").read_bytes()[since:].decode(errors="replace")

    def spoken(self, name: str = "operator") -> int:
        """How long an operator's log is."""
        log = self.folder / f"{name}.log"
        return log.stat().st_size if log.exists() else 0

    def fail_over(self, name: str, **spec: Any) -> None:
        """Apply a Failover of the one server."""
        body = {
            "apiVersion": "lifeboat.dev/v1alpha1",
            "kind": "Failover",
            "metadata": {"name": name},
            "spec": {
                "serverRef": {"name": SERVER_ID},
                "instance": {"ipAddress": "10.20.2.10", "elasticIP": RECOVERED},
                "checks": [{"name": "web", "httpGet": {"port": 80, "path": "/cgi-bin/rows"}, "timeoutSeconds": 120}],
                **spec,
            },
        }
        self.apply(json.dumps(body))

    def roll_back(self, name: str) -> None:
        """Go back to the source, and wait until it is protected again."""
        self.patch("fo", name, {"rollback": True})
        self.until("fo", name, phase_is("RolledBack"))
        self.until("ps", SERVER_ID, lambda found: phase_is("Replicating")(found) and ready(found))


def until(holds: Callable[[], bool], seconds: float = 60.0, what: str = "") -> float:
    """Wait until it holds; how many seconds that took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"not within {seconds} s {what}"
        time.sleep(0.05)
    return time.monotonic() - began


@contextlib.contextmanager
def made_shop_world() -> Iterator[ShopWorld]:
    """The world, brought up; taken down whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="lifeboat-operator-"))
    made = ShopWorld(folder, zones_from=HERE / "zones", servers=(SERVER_ID,), extra=("--log-level", "DEBUG"))
    try:
        made.up(lambda _: None)
        made.apply(PAIR)
        made.apply(SERVER.format(name=SERVER_ID))
        yield made
    finally:
        made.down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def shop_world(request: pytest.FixtureRequest) -> ShopWorld:
    """The world, brought up once for all tests of this folder."""
    return shared_in_folder(request, made_shop_world)


@pytest.fixture
def world(shop_world: ShopWorld) -> ShopWorld:
    """The world with its server replicating, one operator acting, and no failover of an earlier test."""
    shop_world.start_operator()
    for each in json.loads(shop_world.kubectl("get", "fo", "-o", "json"))["items"]:
        if each.get("status", {}).get("phase") not in {"RolledBack", "Committed", "Completed", "Failed"}:
            shop_world.roll_back(each["metadata"]["name"])  # of a test that failed
    shop_world.until("ps", SERVER_ID, lambda found: phase_is("Replicating")(found) and ready(found))
    for each in json.loads(shop_world.kubectl("get", "fo,dr", "-o", "json"))["items"]:
        shop_world.kubectl("delete", each["kind"], each["metadata"]["name"], "--timeout=60s")
    return shop_world


@pytest.fixture
def source() -> Site:
    """The server at its primary site."""
    return Site("127.0.41.5")


@pytest.fixture
def recovered() -> Site:
    """The server at its recovery site."""
    return Site(RECOVERED)
