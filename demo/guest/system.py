"""What is on a guest's system disk: an initramfs that finds it, a root file system of packages and a few scripts."""

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from demo.cache import BuildError, run
from demo.guest.debian import Package, libraries, unpack
from demo.guest.parts import cpio, module_order, unsigned

FILES: Final = Path(__file__).parent / "files"
# What a virtual machine has; `button` and `evdev` are for its power button.
MODULES: Final = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "button", "evdev")
AGENT: Final = "usr/sbin/qemu-ga"
# Not extracted: nothing runs them, and they are half of the bytes.
UNUSED: Final = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/i18n")
POSTGRES: Final = 70  # the user and the group in `passwd` below
FOLDERS: Final = (
    *("bin", "data", "data2", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "usr/sbin"),
    *("var/lib", "var/log"),
)
ETC: Final = {
    "passwd": f"root:x:0:0:root:/root:/bin/sh\npostgres:x:{POSTGRES}:{POSTGRES}:PostgreSQL:/data:/bin/sh\n",
    "group": f"root:x:0:\npostgres:x:{POSTGRES}:\n",
    "hosts": "127.0.0.1 localhost\n",
    "os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nID=debian\n',
}


def kernel_and_initramfs(names: Sequence[str], packages: Sequence[Package], scratch: Path) -> tuple[Path, bytes]:
    """Return the kernel's file and an initramfs with busybox and the drivers, from downloaded packages."""
    root, tree = scratch / "kernel", scratch / "initramfs"
    wanted = [package for package in packages if package.name.startswith(("linux-image-", "busybox-static"))]
    unpack(names, wanted, root)
    kernels = sorted((root / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise BuildError(f"expected one kernel, found {kernels}")
    for folder in ("bin", "dev", "proc", "root"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(root / "bin/busybox", tree / "bin/busybox")
    shutil.copy(FILES / "initramfs/init", tree / "init")
    (tree / "init").chmod(0o755)
    (tree / "modules").write_text(" ".join(MODULES) + "\n")
    modules = tree / "lib/modules" / kernels[0].name.removeprefix("vmlinuz-")
    modules.mkdir(parents=True)
    order = module_order(root / "lib/modules", MODULES)
    for module, _ in order:
        (modules / module.name).write_bytes(unsigned(module.read_bytes()))
    # As depmod writes it: what is needed stands in the reverse order of loading.
    lines = (f"{module.name}: {' '.join(needed.name for needed in reversed(needs))}\n" for module, needs in order)
    (modules / "modules.dep").write_text("".join(lines))
    return kernels[0], cpio(tree)


def root_tree(flavour: str, names: Sequence[str], packages: Sequence[Package], tree: Path) -> None:
    """Fill a folder with a guest's root file system."""
    if flavour == "tiny":
        _tiny(names, packages, tree)
    else:
        unpack(names, packages, tree)
        _tidy(tree)
    for folder in FOLDERS:
        (tree / folder).mkdir(parents=True, exist_ok=True)
    (tree / "tmp").chmod(0o1777)
    for name, text in ETC.items():
        (tree / "etc" / name).unlink(missing_ok=True)
        (tree / "etc" / name).write_text(text)
    for source in (FILES / "common", FILES / flavour):
        _overlay(source, tree)
    _applets(tree)
    _link(tree / "etc/resolv.conf", "/run/resolv.conf")
    if not (tree / "var/run").is_symlink():
        shutil.rmtree(tree / "var/run", ignore_errors=True)
        (tree / "var/run").symlink_to("/run")


def database(tree: Path) -> Path | None:
    """Make the database with the programs of a guest's root file system, and return the data disk's content.

    That takes a second, and a minute or more under emulation. Only root can change the root folder; for anybody else,
    and where even root may not, the answer is None: the guest makes its database when it boots for the first time.
    """
    if os.geteuid() != 0:
        return None
    data = tree.with_name(f"{tree.name}-data")
    device, inside = tree / "dev/null", tree / "data"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.chmod(0o666)
        os.chown(inside, POSTGRES, POSTGRES)
        environment = {"PATH": "/bin:/usr/bin", "LC_ALL": "C"}
        user = f"--userspec={POSTGRES}:{POSTGRES}"
        run(["/usr/sbin/chroot", user, tree, "/bin/sh", "/etc/lifeboat/initialise"], env=environment)
    except (OSError, BuildError) as error:
        print(f"  the database cannot be made here: {error}", flush=True)
        shutil.rmtree(inside)
        inside.mkdir()
        return None
    finally:
        device.unlink(missing_ok=True)
    inside.rename(data)
    inside.mkdir()
    os.chown(data, 0, 0)
    return data


def _tiny(names: Sequence[str], packages: Sequence[Package], tree: Path) -> None:
    """Copy the guest agent, its libraries and busybox, and nothing else."""
    whole = tree.with_name(f"{tree.name}-whole")
    unpack(names, packages, whole)
    for path in [whole / AGENT, whole / "bin/busybox", *libraries(whole, whole / AGENT)]:
        target = tree / path.relative_to(whole)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def _tidy(tree: Path) -> None:
    for folder in UNUSED:
        shutil.rmtree(tree / folder, ignore_errors=True)
    for programs in (tree / "usr/lib/postgresql").glob("*/bin"):
        for program in programs.iterdir():
            # Debian's own commands of these names look for clusters that Debian's scripts made.
            _link(tree / "usr/bin" / program.name, f"/{program.relative_to(tree)}")


def _overlay(source: Path, tree: Path) -> None:
    for path in sorted(source.rglob("*")):
        if path.is_file():
            target = tree / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            text = path.read_bytes()
            target.write_bytes(text)
            target.chmod(0o755 if text.startswith(b"#!") else 0o644)


def _applets(tree: Path) -> None:
    """Link busybox under all its names, but not over a program that a package brought or `shutdown` of ours."""
    for name in run([tree / "bin/busybox", "--list"]).split():
        places = [tree / folder / name for folder in ("bin", "sbin", "usr/bin", "usr/sbin")]
        if not any(place.exists() or place.is_symlink() for place in places):
            (tree / "bin" / name).symlink_to("busybox")
    for name in ("sbin/init", "bin/sh"):
        _link(tree / name, "/bin/busybox")


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)
