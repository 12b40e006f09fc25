"""The real world: API server, operator, QEMU guests and storage daemons, in a temporary folder, once for all tests."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo import guest, web
from demo.guest import blank_disk, copy_disks
from demo.world import NAMESPACE, RELEASE, World
from tests import rights
from tests.folders import shared_in_folder

HERE = Path(__file__).parent
GIB = 1 << 30
ARCHIVE_BYTES = 20 * GIB
ARCHIVE_USED = GIB

PAIR = """
apiVersion: lifeboat.dev/v1alpha1
kind: SitePair
metadata: {name: a-to-b}
spec:
  primary: {zone: zone-a, network: vpc-a, replicationNetwork: vpc-a-replication}
  recovery:
    {zone: zone-b, network: vpc-b, replicationNetwork: vpc-b-replication, recoveryNetwork: vpc-b-recovery}
"""

SERVER = """
apiVersion: lifeboat.dev/v1alpha1
kind: ProtectedServer
metadata: {{name: {name}}}
spec:
  sitePairRef: {{name: a-to-b}}
  serverId: {name}
  replication:
    enabled: true
    recoveryPoints: [{{every: 10s, for: 10m}}]
"""


class RealWorld(World):
    """The demo's world with other zones: a server with two data disks, and one whose client comes up late."""

    def make_disks(self, server: str, folder: Path) -> None:
        """Make the disks of one of the two."""
        if server == "web":
            copy_disks(guest.build("tiny", data_disks=2), folder)
            return
        copy_disks(guest.build("tiny", agent_after_reboot=True), folder)
        blank_disk(folder / "archive.qcow2", ARCHIVE_BYTES, ARCHIVE_USED)


@contextlib.contextmanager
def made_world() -> Iterator[RealWorld]:
    """A world with both servers running and the pair applied; taken down whatever happens.

    Its operator may do what the chart grants, and at the end nothing that it asked for was refused.
    """
    folder = Path(tempfile.mkdtemp(prefix="lifeboat-e2e-"))
    made = RealWorld(folder, zones_from=HERE / "zones", servers=("web", "late"), extra=("--log-level", "DEBUG"))
    try:
        made.up(lambda _: None)
        made.apply(PAIR)
        made.kubectl("wait", "--for=condition=Ready", "sp/a-to-b", "--timeout=60s")
        yield made
        asked = rights.requests(made.control_plane.audit_log, RELEASE, NAMESPACE)
        assert rights.refused(asked, rights.granted(made.control_plane, RELEASE, NAMESPACE)) == set()
        assert ("sitepairs/status", "patch") in {(each.resource, each.verb) for each in asked}
    finally:
        made.down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest) -> RealWorld:
    """The world, brought up once for all tests of this folder."""
    return shared_in_folder(request, made_world)


@dataclass
class Site:
    """A machine's web server, as a client outside both zones reaches it."""

    host: str

    def get(self, path: str, *, seconds: float = 60.0) -> str:
        """The body of an answer, waiting until the machine gives one."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return web.get(f"http://{self.host}{path}", 10.0).strip()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def write(self, number: int) -> None:
        """Have the machine write a number durably; returns once it is acknowledged.

        It is asked again when no answer comes, and the first time may be carried out late: at least once.
        """
        assert self.get(f"/cgi-bin/write?n={number}") == "ok"

    def rows(self) -> list[int]:
        """The numbers that the machine has, each once, in the order of their first writing."""
        return list(dict.fromkeys(int(row) for row in self.get("/cgi-bin/rows").split()))


@pytest.fixture
def source() -> Site:
    """The server web at its primary site."""
    return Site("127.0.21.5")
