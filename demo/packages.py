"""What the one-machine world needs of the machine, and how a Debian machine gets it.

As root on Debian what is missing is installed; anywhere else it is named, and nothing is changed.
"""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from demo.cache import BuildError, run_with_progress

Purpose = Literal["python", "controlplane", "engine", "guest", "image", "argocd", "ceph", "bench"]
SBIN: Final = "/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class Requirement:
    """A Debian package and what proves that it, or its like, is there.

    Attributes:
        package: Its name on Debian 12.
        probe: A program, an absolute path, or `import` and a Python module.
        purposes: Who needs it.
    """

    package: str
    probe: str
    purposes: tuple[Purpose, ...]

    def met(self) -> bool:
        """Whether this machine has it."""
        if self.probe.startswith("import "):
            return importlib.util.find_spec(self.probe.removeprefix("import ")) is not None
        if self.probe.startswith("/"):
            return Path(self.probe).exists()
        return shutil.which(self.probe, path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}") is not None


REQUIREMENTS: Final = (
    Requirement("python3-venv", "import ensurepip", ("python",)),
    Requirement("ca-certificates", "/etc/ssl/certs", ("controlplane",)),
    Requirement("openssl", "openssl", ("controlplane",)),
    Requirement("qemu-system-x86", "qemu-system-x86_64", ("engine", "guest")),
    Requirement("qemu-system-common", "qemu-storage-daemon", ("engine",)),
    Requirement("qemu-utils", "qemu-img", ("engine", "guest")),
    Requirement("dosfstools", "mkfs.fat", ("guest",)),
    Requirement("dpkg", "dpkg-deb", ("guest",)),
    Requirement("apt", "apt-get", ("guest",)),
    Requirement("e2fsprogs", "mke2fs", ("guest",)),
    Requirement("mtools", "mcopy", ("guest",)),
    Requirement("syslinux", "syslinux", ("guest",)),
    Requirement("syslinux-common", "/usr/lib/syslinux/mbr/mbr.bin", ("guest",)),
)
# Wanted by `make test-argocd` alone, which asks for them itself.
ARGOCD: Final = (
    Requirement("redis-server", "redis-server", ("argocd",)),
    Requirement("git", "git", ("argocd",)),
)
# Wanted by what runs on real Ceph alone, which asks for them itself: demo.ceph.
CEPH: Final = (
    Requirement("ceph-mon", "ceph-mon", ("ceph",)),
    Requirement("ceph-mgr", "ceph-mgr", ("ceph",)),
    Requirement("ceph-osd", "ceph-osd", ("ceph",)),
    Requirement("ceph-common", "rbd", ("ceph",)),
    Requirement("rbd-mirror", "rbd-mirror", ("ceph",)),
    Requirement("python3-rados", "/usr/lib/python3/dist-packages/rados.cpython-311-x86_64-linux-gnu.so", ("ceph",)),
    Requirement("python3-rbd", "/usr/lib/python3/dist-packages/rbd.cpython-311-x86_64-linux-gnu.so", ("ceph",)),
    Requirement("qemu-block-extra", "/usr/lib/x86_64-linux-gnu/qemu/block-rbd.so", ("ceph",)),
)
# Wanted by the bench alone, which asks for it itself: what copies of disks are held against.
BENCH: Final = (Requirement("libnbd-bin", "nbdcopy", ("bench",)),)


def requirements(purpose: Purpose) -> list[Requirement]:
    """Return what one part of the world needs."""
    return [requirement for requirement in REQUIREMENTS if purpose in requirement.purposes]


def absent(wanted: Iterable[Requirement] = REQUIREMENTS) -> list[Requirement]:
    """Return those of them that this machine lacks."""
    return [requirement for requirement in wanted if not requirement.met()]


def ensure(wanted: Iterable[Requirement] = REQUIREMENTS) -> None:
    """Install what is missing, if that can be done without asking anybody; else name it and exit with 2."""
    missing = absent(wanted)
    if not missing:
        return
    packages = sorted({requirement.package for requirement in missing})
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists() or shutil.which("apt-get") is None:
        print("missing on this machine:", file=sys.stderr)
        for requirement in missing:
            print(f"  {requirement.probe} (Debian package {requirement.package})", file=sys.stderr)
        print(f"on Debian: apt-get install --no-install-recommends {' '.join(packages)}", file=sys.stderr)
        sys.exit(2)
    # Another installation at the same time is waited for.
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300"]
    install = [*apt, "install", "-qq", "-y", "--no-install-recommends", *packages]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    what = f"installing {' '.join(packages)}"
    # Lists that are there may do; they are fetched only when they do not, or lead to what is not there any more.
    known = subprocess.run([*install[: -len(packages)], "--dry-run", *packages], capture_output=True, check=False)
    try:
        if known.returncode == 0:
            with contextlib.suppress(BuildError):
                run_with_progress(what, install, env=env)
                return
        run_with_progress("refreshing the package lists", [*apt, "-qq", "update"], env=env)
        run_with_progress(what, install, env=env)
    except BuildError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    ensure()
