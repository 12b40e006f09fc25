"""Which guests there are, and where their images are kept.

An image is kept under a name made from everything that went into it: this folder's files, the versions of the packages,
the options. So a new version of a package, or a change here, makes a new image and leaves the old one alone.
"""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo.cache import BuildError, cache_root, locked, noted
from demo.guest.debian import Package, resolve
from demo.guest.parts import MIB, data_disk, system_disk
from demo.guest.system import database, kernel_and_initramfs, root_tree
from demo.guest.trial import Trial
from demo.packages import absent, requirements
from lifeboat.host import machine

HERE: Final = Path(__file__).parent
KERNEL_PACKAGES: Final = ("linux-image-cloud-amd64", "busybox-static")
DATA_LABELS: Final = ("data", "data2")


@dataclass(frozen=True, slots=True)
class Flavour:
    """What tells one kind of guest from another."""

    packages: tuple[str, ...]
    system_size: int
    data_size: int
    memory_mib: int
    ports: tuple[int, ...]
    database: bool  # whether it has one, made at the build


FLAVOURS: Final[Mapping[str, Flavour]] = {
    "tiny": Flavour(("qemu-guest-agent", "busybox-static"), 64 * MIB, 64 * MIB, 192, (80,), database=False),
    "postgres": Flavour(
        ("postgresql-15", "qemu-guest-agent", "busybox-static"),
        4096 * MIB,
        2048 * MIB,
        512,
        (80, 5432),
        database=True,
    ),
}


@dataclass(frozen=True, slots=True)
class GuestImage:
    """A guest's pristine disks, the system disk first, to be copied; and what a machine for it needs."""

    flavour: str
    disks: tuple[Path, ...]
    memory_mib: int
    cpus: int
    ports: tuple[int, ...]


def build(
    flavour: str, *, data_disks: int = 1, data_size: int | None = None, agent_after_reboot: bool = False
) -> GuestImage:
    """Return a guest's image, building it if there is none like it.

    Args:
        flavour: `tiny` (a web server that writes what it is told) or `postgres` (a database).
        data_disks: How many disks it has beside the system disk, 0 to 2; the database needs one.
        data_size: The virtual size of each in bytes.
        agent_after_reboot: Whether the guest agent is missing at the first boot and there from the second on.

    Raises:
        BuildError: A program is missing, or Debian's packages cannot be had, or the image's first boot failed.
    """
    kind = FLAVOURS[flavour]
    if not int(kind.database) <= data_disks <= len(DATA_LABELS):
        raise ValueError(f"{flavour} cannot have {data_disks} data disks")
    size = data_size or kind.data_size
    missing = missing_programs()
    if missing:
        raise BuildError(f"to build a guest image these programs are needed: {', '.join(missing)}")
    packages = resolve((*KERNEL_PACKAGES, *kind.packages))
    options = {"data": [data_disks, size], "agent_after_reboot": agent_after_reboot}
    key = fingerprint(HERE, packages, options)
    folder = cache_root() / f"guest-{flavour}-{key}"
    names = ["system.qcow2", *(f"{label}.qcow2" for label in DATA_LABELS[:data_disks])]
    if not folder.is_dir():
        with locked(folder.with_suffix(".lock"), f"another process is building the {flavour} guest: waiting for it"):
            if not folder.is_dir():
                with noted(folder, f"the {flavour} guest"):
                    _build(folder, flavour, size, names=names, agent_after_reboot=agent_after_reboot)
    return GuestImage(flavour, tuple(folder / name for name in names), kind.memory_mib, 1, kind.ports)


def copy_disks(image: GuestImage, folder: Path) -> list[Path]:
    """Copy an image's disks into a folder, where a server may write to them, and return the copies in that order."""
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(disk, folder / disk.name)) for disk in image.disks]


def missing_programs() -> list[str]:
    """Return the programs, of those that building an image takes, that this machine lacks."""
    return [requirement.probe for requirement in absent(requirements("guest"))]


def fingerprint(recipe: Path, packages: list[Package], options: dict[str, object]) -> str:
    """Return 16 hex digits that change with any file of the recipe, any package's version and any option."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for path in sorted(recipe.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(f"{path.relative_to(recipe)}\0".encode() + path.read_bytes() + b"\0")
    for package in packages:
        digest.update(f"{package.name}={package.version}\0".encode())
    return digest.hexdigest()[:16]


def _build(
    target: Path,
    flavour: str,
    data_size: int,
    *,
    names: list[str],
    agent_after_reboot: bool,
) -> None:
    kind = FLAVOURS[flavour]
    started = time.monotonic()
    print(f"building the {flavour} guest's image, once ...", flush=True)
    with tempfile.TemporaryDirectory(prefix=f"{target.name}-", dir=target.parent) as name:
        scratch = Path(name)
        kernel, initramfs = kernel_and_initramfs(KERNEL_PACKAGES, resolve(KERNEL_PACKAGES), scratch)
        tree = scratch / "tree"
        root_tree(flavour, kind.packages, resolve(kind.packages), tree)
        if agent_after_reboot:
            (tree / "etc/lifeboat/agent-after-reboot").touch()
        data = database(tree) if kind.database else None
        done = scratch / "done"
        done.mkdir()
        system_disk(done / names[0], kind.system_size, kernel, initramfs, tree)
        for disk, label in zip(names[1:], DATA_LABELS, strict=False):
            data_disk(done / disk, data_size, label, data if label == "data" else None)
        if kind.database and data is None:
            _first_boot([done / disk for disk in names], kind)
        done.rename(target)
    print(f"  done in {time.monotonic() - started:.0f} s", flush=True)


def _first_boot(disks: list[Path], kind: Flavour) -> None:
    accelerator = machine.accelerator()
    print(f"booting it once ({accelerator}) to make its database: one to five minutes ...", flush=True)
    with Trial(disks, accelerator=accelerator, memory_mib=kind.memory_mib, ports=kind.ports) as guest:
        guest.until("on the web", lambda: guest.get("/", 0.5), 120)
        guest.until("serving its database", lambda: guest.get("/cgi-bin/rows"), 600)
        guest.power_down(60)
