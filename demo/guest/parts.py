"""The parts of a disk image, written without mounting anything: boot sector, file systems, initramfs, qcow2.

The boot loader is SYSLINUX on a FAT partition, because it can be installed into an image by an ordinary user.
"""

import os
import re
import shutil
import stat
import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from demo.cache import BuildError, run

SECTOR: Final = 512
MIB: Final = 1024 * 1024
BOOT_START: Final = 1 * MIB
BOOT_SIZE: Final = 23 * MIB
ROOT_START: Final = BOOT_START + BOOT_SIZE
SIGNED: Final = b"~Module signature appended~\n"
MBR: Final = Path("/usr/lib/syslinux/mbr/mbr.bin")
# The noise of other boot messages costs time, and so do the guards against guests that do not trust each other.
KERNEL_OPTIONS: Final = (
    "quiet loglevel=3 console=ttyS0 panic=5 mitigations=off nokaslr tsc=reliable no_timer_check ipv6.disable=1 "
    "random.trust_cpu=on cryptomgr.notests rcupdate.rcu_expedited=1 8250.nr_uarts=1 audit=0 "
    "noreplace-smp nowatchdog lsm="
)
SYSLINUX: Final = (
    f"DEFAULT linux\nPROMPT 0\nNOESCAPE 1\nLABEL linux\nLINUX vmlinuz\nINITRD initrd\nAPPEND {KERNEL_OPTIONS}\n"
)


def system_disk(target: Path, size: int, kernel: Path, initramfs: bytes, tree: Path) -> None:
    """Write a bootable qcow2 disk: boot sector, a FAT partition with the kernel, and an ext4 one labelled `system`."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        raw, initrd, config = (Path(scratch) / name for name in ("raw", "initrd", "syslinux.cfg"))
        initrd.write_bytes(initramfs)
        config.write_text(SYSLINUX)
        with raw.open("wb") as disk:
            disk.write(boot_sector(MBR.read_bytes(), (BOOT_START, BOOT_SIZE), (ROOT_START, size - ROOT_START)))
            disk.truncate(size)
        start = str(BOOT_START // SECTOR)
        fat = ["-F", "16", "-s", "8", "-n", "BOOT", "-h", start, "--offset", start]
        run([_sbin("mkfs.fat"), *fat, raw, str(BOOT_SIZE // 1024)])
        mtools = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}
        for source, name in ((kernel, "vmlinuz"), (initrd, "initrd"), (config, "syslinux.cfg")):
            run(["mcopy", "-i", f"{raw}@@{BOOT_START}", source, f"::{name}"], env=mtools)
        run(["syslinux", "--install", "--offset", str(BOOT_START), raw])
        _ext4(raw, "system", size - ROOT_START, tree=tree, offset=ROOT_START)
        _to_qcow2(raw, target)


def data_disk(target: Path, size: int, label: str, tree: Path | None = None) -> None:
    """Write a qcow2 disk that is one ext4 file system with this label, empty or with the content of a folder."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        raw = Path(scratch) / "raw"
        with raw.open("wb") as disk:
            disk.truncate(size)
        _ext4(raw, label, size, tree=tree)
        _to_qcow2(raw, target)


def blank_disk(path: Path, size: int, used: int = 0) -> None:
    """Write a qcow2 disk without a file system, such as a copy has to carry but no guest looks at.

    Args:
        path: The file.
        size: Its virtual size in bytes.
        used: How many bytes of it, rounded up to 4 MiB, hold random data; they are spread evenly.
    """
    piece = 4 * MIB
    pieces = -(-used // piece)
    if pieces * piece > size:
        raise ValueError(f"{used} bytes do not fit into a disk of {size}")
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        raw = Path(scratch) / "raw"
        with raw.open("wb") as disk:
            disk.truncate(size)
            for number in range(pieces):
                disk.seek(size // pieces * number // piece * piece)
                disk.write(os.urandom(piece))
        _to_qcow2(raw, path)


def boot_sector(code: bytes, boot: tuple[int, int], root: tuple[int, int]) -> bytes:
    """Return a master boot record with two partitions, each given as (start, size) in bytes; the first is active."""
    entries = b""
    for active, kind, (start, size) in ((0x80, 0x0E, boot), (0x00, 0x83, root)):
        # The addresses in cylinders, heads and sectors are those that mean: too large for it.
        entries += struct.pack(
            "<B3sB3sII", active, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start // SECTOR, size // SECTOR
        )
    return code[:440].ljust(446, b"\0") + entries.ljust(64, b"\0") + b"\x55\xaa"


def cpio(tree: Path) -> bytes:
    """Return a folder as an archive such as the kernel unpacks at its start, everything owned by root."""
    console = _cpio_entry("dev/console", stat.S_IFCHR | 0o600, b"", device=(5, 1))
    entries = [_cpio_entry(name, mode, data) for name, mode, data in _walk(tree)]
    return b"".join([*entries, console, _cpio_entry("TRAILER!!!", 0, b"")])


def module_order(folder: Path, wanted: Iterable[str]) -> list[tuple[Path, list[Path]]]:
    """Return kernel modules, each after all those it needs and with them, which the modules' own headers name."""
    files = {path.stem.replace("-", "_"): path for path in folder.rglob("*.ko")}
    order: dict[str, list[str]] = {}  # a module and all that it needs, in the order of loading

    def visit(name: str) -> list[str]:
        if name not in order:
            if name not in files:
                raise BuildError(f"this kernel has no module {name}")
            found = re.search(rb"(?:^|\0)depends=([^\0]*)", files[name].read_bytes())
            direct = [text.replace("-", "_") for text in found[1].decode().split(",") if text] if found else []
            needs = [further for one in direct for further in (*visit(one), one)]
            order[name] = list(dict.fromkeys(needs))
        return order[name]

    for name in wanted:
        visit(name)
    return [(files[name], [files[needed] for needed in needs]) for name, needs in order.items()]


def unsigned(module: bytes) -> bytes:
    """Return a kernel module without its signature, whose check takes longer under emulation than the module itself."""
    if not module.endswith(SIGNED):
        return module
    end = len(module) - len(SIGNED)
    (length,) = struct.unpack(">I", module[end - 4 : end])  # the last field of struct module_signature, 12 bytes
    return module[: end - 12 - length]


def _walk(tree: Path) -> Iterator[tuple[str, int, bytes]]:
    for path in sorted(tree.rglob("*")):
        mode = path.lstat().st_mode
        name = str(path.relative_to(tree))
        if path.is_symlink():
            yield name, mode, os.fsencode(path.readlink())
        else:
            yield name, mode, path.read_bytes() if path.is_file() else b""


def _cpio_entry(name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> bytes:
    """Return one entry in the `newc` format (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % value for value in fields) + encoded
    return header + b"\0" * (-len(header) % 4) + data + b"\0" * (-len(data) % 4)


def _ext4(raw: Path, label: str, size: int, *, tree: Path | None = None, offset: int = 0) -> None:
    # Nothing is left for the kernel to initialise later: that would be writes that nobody asked for.
    options = ["-E", f"lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,offset={offset}", "-m", "0"]
    journal = ["-J", f"size={4 if size < 256 * MIB else 16}"]
    content: list[str | Path] = [] if tree is None else ["-d", tree]
    blocks = f"{size // 1024}k"
    run(
        [
            _sbin("mke2fs"),
            "-q",
            "-F",
            "-t",
            "ext4",
            "-b",
            "4096",
            "-L",
            label,
            *options,
            *journal,
            *content,
            raw,
            blocks,
        ]
    )


def _to_qcow2(raw: Path, target: Path) -> None:
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, target])


def _sbin(name: str) -> str:
    """Return a program of /sbin, which an ordinary user's PATH may lack."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or name
