"""One Ceph cluster of four processes in a folder, on loopback.

All keys are made before the monitor's first start and handed to it in one file, and what would take a command is in
ceph.conf where it can be: each command line tool of Ceph takes a good part of a second to start.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from demo.cache import run
from lifeboat.host import processes

HOST: Final = "127.0.0.1"
POOL: Final = "rbd"
# The user that Lifeboat is given, with what docs/how-to/ceph.md tells people to allow it.
LIFEBOAT: Final = "lifeboat"
MIRROR: Final = "rbd-mirror.a"
COMMAND_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0
OSD_BYTES: Final = 4 << 30
# In the order in which they are ended: the ones that write last, last.
_PROCESSES: Final = ("mirror", "mgr", "osd", "mon")

_CAPS: Final[Mapping[str, Mapping[str, str]]] = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
    "mgr.x": {"mon": "allow profile mgr", "osd": "allow *", "mds": "allow *"},
    "osd.0": {"mon": "allow profile osd", "osd": "allow *", "mgr": "allow profile osd"},
    f"client.{MIRROR}": {"mon": "profile rbd-mirror", "osd": "profile rbd"},
    f"client.{LIFEBOAT}": {"mon": "allow r, profile rbd", "osd": "profile rbd", "mgr": "profile rbd"},
}
# The daemons look again after these seconds; what is usual for a real cluster is ten times as long.
#
# The read lease is longer than anything here stands still. An OSD that comes back after its lease has run out (16 s)
# and finds a request before it renews it calls the placement group laggy; what ends that is the word of another OSD,
# and there is none: requests would wait until the OSD is started anew.
_CONF: Final = """\
[global]
fsid = {fsid}
mon host = [v2:{host}:{port}/0]
public addr = {host}
ms bind msgr1 = false
keyring = {folder}/keyring
run dir = {folder}/run
admin socket = {folder}/run/$name.$pid.asok
log file = {folder}/$name.log
pid file =
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
paxos propose interval = 0.05
mon data avail crit = 1
mon data avail warn = 2
mon osd initial require min compat client = mimic
auth allow insecure global id reclaim = false
rbd default features = 125

[mon.a]
mon data = {folder}/mon
public addr = {host}:{port}

[mgr.x]
mgr data = {folder}/mgr
mgr pool = false
mgr initial modules =

[osd.0]
osd data = {folder}/osd
osd objectstore = bluestore
bluestore block size = {osd_bytes}
bluestore cache autotune = false
bluestore cache size = 67108864
osd memory target = 939524096
osd client watch timeout = 10
osd pool default read lease ratio = 100

[client.{mirror}]
rbd mirror image state check interval = 2
rbd mirror journal poll age = 0.3
rbd mirror journal commit age = 0.3
rbd mirror pool replayers refresh interval = 2
rbd mirror delete retry interval = 2
rbd mirror sync point update age = 1
"""


class CephError(RuntimeError):
    """A cluster is not as it should be; the message says what is wrong, with the end of the log where that helps."""


class Cluster:
    """A cluster in a folder, which outlives the process that started it. `name` is the name of its site."""

    def __init__(self, folder: Path, name: str, pools: Sequence[str] = (POOL,)) -> None:
        self.folder = folder
        self.name = name
        self.pools = pools
        self.conf = folder / "ceph.conf"

    @property
    def secret_name(self) -> str:
        """The name of the Secret with `secret` in it."""
        return f"ceph-{self.name}"

    def up(self) -> None:
        """Make the cluster and start it, without rbd-mirror; its pools are ready for images afterwards."""
        if self.conf.exists():
            self.start("mon")
            self.start("mgr")
            self.start("osd")
            return
        for part in ("mon", "osd", "mgr", "run"):
            (self.folder / part).mkdir(parents=True)
        osd = str(uuid.uuid4())
        self.conf.write_text(
            _CONF.format(
                fsid=uuid.uuid4(),
                host=HOST,
                port=_free_port(),
                folder=self.folder,
                osd_bytes=OSD_BYTES,
                mirror=MIRROR,
            ),
            encoding="utf-8",
        )
        self._make_keys()
        self.run("ceph-mon", "-i", "a", "--mkfs")
        self.start("mon")
        self.start("mgr")
        self.ceph(f"osd new {osd}")
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self.start("osd")
        self.ceph(*(f"osd pool create {pool} 8" for pool in self.pools))
        for pool in self.pools:
            self.run("rbd", "pool", "init", pool)

    def down(self) -> None:
        """End all of its processes, the ones that write last."""
        for name in _PROCESSES:
            self.stop(name)

    def start(self, name: str) -> None:
        """Start one of its processes (mon, mgr, osd or mirror), or see that it runs."""
        if self.runs(name):
            return
        argv = {
            "mon": ["ceph-mon", "-f", "-i", "a"],
            "mgr": ["ceph-mgr", "-f", "-i", "x"],
            "osd": ["ceph-osd", "-f", "-i", "0"],
            "mirror": ["rbd-mirror", "-f", "-n", f"client.{MIRROR}"],
        }[name]
        pid_file = self._pid_file(name)
        with (self.folder / f"{name}.out").open("ab") as output:
            child = subprocess.Popen(
                [*argv, "-c", str(self.conf), "--pid-file", str(pid_file)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=self._environment(),
            )
        processes.keep(child)
        # The daemon writes the same there, only later.
        pid_file.write_text(f"{child.pid}\n", encoding="ascii")

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End one of its processes, by force where it does not end by itself, or see that it does not run."""
        pid_file = self._pid_file(name)
        pid = processes.find(pid_file)
        if pid is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                _end(psutil.Process(pid), how)
        pid_file.unlink(missing_ok=True)

    def runs(self, name: str) -> bool:
        """Whether that process is there."""
        return processes.find(self._pid_file(name)) is not None

    def pause(self, *names: str) -> None:
        """Let these processes stand still: a cluster whose monitor does is one that does not answer."""
        self._signal(names, signal.SIGSTOP)

    def go_on(self, *names: str) -> None:
        """Let processes that stand still go on."""
        self._signal(names, signal.SIGCONT)

    def fill(self) -> None:
        """Let it be full, as far as it and everybody else can tell, and wait until it says so."""
        self._ratios("0.00008", "0.00009", "0.0001")
        deadline = time.monotonic() + COMMAND_SECONDS
        while "OSD_FULL" not in (said := self.ceph("health detail")):
            if time.monotonic() > deadline:
                raise CephError(f"{self.name} does not get full: {said.strip()[-500:]}")
            time.sleep(0.2)

    def make_room(self) -> None:
        """Let it be full no more."""
        self._ratios("0.85", "0.9", "0.95")

    def memory_bytes(self) -> int:
        """What its processes use."""
        used = 0
        for name in _PROCESSES:
            pid = processes.find(self._pid_file(name))
            if pid is not None:
                with contextlib.suppress(psutil.Error):
                    used += psutil.Process(pid).memory_info().rss
        return used

    def ceph(self, *lines: str) -> str:
        """Run commands of the `ceph` tool, all by one start of it."""
        return self.run("ceph", "--connect-timeout", "30", stdin="".join(f"{line}\n" for line in lines))

    def run(self, program: str, *arguments: str, stdin: str | None = None) -> str:
        """Run one of Ceph's tools on this cluster as its administrator; a failure raises with what it said."""
        done = subprocess.run(
            [program, "-c", str(self.conf), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
            env=self._environment(),
        )
        if done.returncode != 0 or "Error E" in done.stderr:
            raise CephError(f"{program} {' '.join(arguments)}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def import_disk(self, file: Path, pool: str, image: str) -> None:
        """Copy a disk from a file, whatever its format, into a new image."""
        target = f"rbd:{pool}/{image}:id=admin:conf={self.conf}"
        run(["qemu-img", "convert", "-O", "raw", str(file), target])

    def secret(self, user: str = LIFEBOAT) -> dict[str, str]:
        """What belongs into the Secret of a SitePair: how to reach the cluster, and the user's keyring."""
        lines = self.conf.read_text(encoding="utf-8").splitlines()
        wanted = ("[global]", "fsid", "mon host", "ms bind msgr1")
        return {
            "ceph.conf": "\n".join(line for line in lines[: lines.index("")] if line.startswith(wanted)) + "\n",
            "keyring": f"[client.{user}]\nkey = {self.key(user)}\n",
        }

    def key(self, user: str) -> str:
        """The key of one of its users."""
        lines = (self.folder / "keyring").read_text(encoding="utf-8").splitlines()
        return lines[lines.index(f"[client.{user}]") + 1].removeprefix("key = ")

    def _make_keys(self) -> None:
        keyring = self.folder / "keyring"
        keyring.touch(mode=0o600)
        lines: list[str] = []
        for name, caps in _CAPS.items():
            lines += [f"[{name}]", f"key = {_key()}", *(f'caps {daemon} = "{cap}"' for daemon, cap in caps.items())]
        keyring.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _environment(self) -> Mapping[str, str]:
        # rbd-mirror opens more connections than it was given options for; those find the file by this variable.
        return {**os.environ, "CEPH_CONF": str(self.conf)}

    def _signal(self, names: Sequence[str], what: signal.Signals) -> None:
        for name in names:
            pid = processes.find(self._pid_file(name))
            if pid is not None:
                os.kill(pid, what)

    def _ratios(self, nearly: str, backfill: str, full: str) -> None:
        names = ("nearfull", "backfillfull", "full")
        commands = [
            f"osd set-{name}-ratio {ratio}" for name, ratio in zip(names, (nearly, backfill, full), strict=True)
        ]
        self.ceph(*commands)

    def _pid_file(self, name: str) -> Path:
        return self.folder / f"{name}.pid"


def _end(process: psutil.Process, how: signal.Signals) -> None:
    process.send_signal(how)
    try:
        process.wait(STOP_SECONDS)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(STOP_SECONDS)


def _key() -> str:
    """A new key as `ceph-authtool --gen-key` makes one: its type, the time, its length and 16 random bytes."""
    now = int(time.time())
    raw = (1).to_bytes(2, "little") + now.to_bytes(4, "little") + bytes(4) + (16).to_bytes(2, "little")
    return base64.b64encode(raw + secrets.token_bytes(16)).decode("ascii")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
