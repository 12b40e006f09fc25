"""A QEMU machine: how it is put together, started and ended.

The same machine serves as a source server and as a recovered one. Every value goes to QEMU as JSON or as a checked
name, so nothing that a person wrote can become an option. Sockets are created relative to the machine's folder, since
the kernel limits their paths to 108 bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from lifeboat.engines.contract import NoSpace, Retry
from lifeboat.host import files, processes
from lifeboat.host.inventory import NetworkSpec
from lifeboat.host.qmp import Monitors, Silent

QMP = "qmp.sock"
OWNER_QMP = "owner.sock"
AGENT = "qga.sock"
PID = "machine.pid"
LOG = "qemu.log"
CONSOLE = "console.log"
NIC = "net0"
_START = 15.0
_KVM = Path("/dev/kvm")
_PROBED = "kvm"
# A boot sector that goes into protected mode, returns there from an interrupt, and ends the machine with a code. A host
# that is good for anything needs a fifth of a second for it; one that emulates what runs without paging cannot do it.
#   cli; xor ax,ax; mov ds,ax; lgdt [gdtr]; mov eax,cr0; or al,1; mov cr0,eax; jmp 8:pm
#   pm: mov ax,16; mov ds,ax; mov ss,ax; mov esp,0x7000; pushf; push 8; push done; iret
#   done: mov al,41; out 0xf4,al; hlt; jmp $-1; gdtr: 23, gdt; gdt: flat code and data of 4 GiB
_HELLO = (
    bytes.fromhex(
        "fa31c08ed8660f0116387c0f20c00c010f22c066ea1b7c0000080066b810008ed88ed0bc007000009c6a0868317c0000"
        "cfb029e6f4f4ebfd17003e7c00000000000000000000ffff0000009acf00ffff00000092cf00"
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)
_HELLO_CODE = 41 << 1 | 1
_HELLO_SECONDS = 2.0
_NOTED = 3600.0
_PLAIN = (
    *("-nodefaults", "-no-user-config", "-display", "none"),
    *("-machine", "q35,usb=off,hpet=off,vmport=off", "-cpu", "max"),
)


@dataclass(frozen=True, slots=True)
class MachineDisk:
    """A disk: the block nodes that it is made of, as QEMU describes them.

    `secrets` are the files from which QEMU reads what these nodes need and nobody may see, by the name they know it by.
    """

    name: str
    block: Mapping[str, object]
    secrets: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What a machine is made of. `folder` is where it runs.

    `address` and `hostname` are what its network's DHCP gives out.
    """

    name: str
    hostname: str
    folder: Path
    cpu: int
    memory_bytes: int
    disks: tuple[MachineDisk, ...]
    network: NetworkSpec
    address: str


def socket(folder: Path) -> Path:
    """The monitor that Lifeboat uses."""
    return folder / QMP


def running(folder: Path) -> int | None:
    """The pid of the machine that runs in a folder, or None."""
    return processes.find(folder / PID)


def node(index: int) -> str:
    """The block node of a machine's disk."""
    return f"disk{index}"


@cache
def accelerator() -> str:
    """`kvm` where guests run well by it, else `tcg`; LIFEBOAT_ACCEL decides when it says kvm or tcg. Once per process.

    Blocking, for seconds at most. That /dev/kvm is there proves little: on some hosts opening it hangs for good, on
    others QEMU gives up over a register, and on others a guest runs slower than emulated, until it fails. So a guest of
    one sector is booted, by a process that is left alone when it hangs; what came of it is noted for an hour, since an
    operator that is started anew again and again must not wait for that each time.
    """
    wanted = os.environ.get("LIFEBOAT_ACCEL", "auto")
    if wanted in {"kvm", "tcg"}:
        return wanted
    if not _KVM.exists():
        return "tcg"
    note = Path(tempfile.gettempdir()) / f"lifeboat-accelerator-{os.geteuid()}"
    found = _noted(note)
    if found is None:
        found = "kvm" if _says_hello() else "tcg"
        with contextlib.suppress(OSError):
            files.write_atomically(note, found.encode())
    return found


def _noted(note: Path) -> str | None:
    """What this user has noted of this host lately. A file of somebody else's is not believed."""
    try:
        status = note.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or time.time() - status.st_mtime > _NOTED:
            return None
        found = note.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return found if found in {"kvm", "tcg"} else None


def _says_hello() -> bool:
    """Whether a guest of one sector does by KVM what it has to."""
    with tempfile.NamedTemporaryFile(prefix="lifeboat-kvm-") as disk:
        disk.write(_HELLO.ljust(1 << 20, b"\0"))
        disk.flush()
        # Ended by a process of its own: whoever asks may be killed, and the machine would stand there for ever.
        argv = ["timeout", "--signal=KILL", f"{_HELLO_SECONDS:g}", "qemu-system-x86_64", *_PLAIN, "-accel", _PROBED]
        argv += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-drive", f"file={disk.name},format=raw,if=virtio"]
        quiet = subprocess.DEVNULL
        probe = subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet)  # constants
        try:
            return probe.wait(_HELLO_SECONDS + 1) == _HELLO_CODE
        except subprocess.TimeoutExpired:
            # A process that hangs in the kernel does not end.
            processes.keep(probe)
            return False


def command_line(spec: MachineSpec, accel: str) -> list[str]:
    """The arguments that make the machine."""
    argv = ["qemu-system-x86_64", *_PLAIN, "-name", f"guest={spec.name}"]
    argv += ["-accel", "kvm" if accel == "kvm" else "tcg,thread=multi"]
    argv += ["-smp", str(spec.cpu), "-m", f"{max(1, spec.memory_bytes >> 20)}M"]
    argv += ["-pidfile", str(spec.folder / PID)]
    for name, path in (("monitor", QMP), ("owner", OWNER_QMP)):
        argv += ["-chardev", f"socket,id={name},path={path},server=on,wait=off", "-mon", f"chardev={name},mode=control"]
    argv += ["-chardev", f"file,id=console,path={CONSOLE},append=on", "-serial", "chardev:console"]
    argv += ["-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,path={AGENT},server=on,wait=off"]
    argv += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
    argv += ["-device", "virtio-rng-pci"]
    user_net = {
        "type": "user",
        "id": NIC,
        "net": spec.network.cidr,
        "dhcpstart": spec.address,
        "hostname": spec.hostname,
        "restrict": True,
        "ipv6": False,
    }
    argv += ["-netdev", json.dumps(user_net), "-device", json.dumps(_device("virtio-net-pci", netdev=NIC, romfile=""))]
    for secret, file in {name: file for disk in spec.disks for name, file in disk.secrets.items()}.items():
        argv += ["-object", json.dumps({"qom-type": "secret", "id": secret, "file": str(file)})]
    for index, disk in enumerate(spec.disks):
        block = {**disk.block, "node-name": node(index)}
        device = _device("virtio-blk-pci", drive=node(index), id=f"vd{index}", serial=disk.name[:20])
        if index == 0:
            device["bootindex"] = 0
        argv += ["-blockdev", json.dumps(block), "-device", json.dumps(device)]
    return argv


async def start(monitors: Monitors, spec: MachineSpec) -> None:
    """Start a machine, or see that it runs.

    Raises:
        Retry: it does not start; the message holds what QEMU said.
        NoSpace: it does not start because the disk is full.
    """
    pid_file = spec.folder / PID
    if processes.find(pid_file) is not None:
        return
    accel = await asyncio.to_thread(accelerator)
    log = spec.folder / LOG
    await asyncio.to_thread(files.remove, log)
    pid = await asyncio.to_thread(processes.spawn, command_line(spec, accel), spec.folder, log)
    try:
        await processes.wait_ready(pid, pid_file, log, _START)
        await _listens(monitors, spec.folder, pid)
    except BaseException as error:
        # A machine that comes up later would be one that nobody knows of: it ends here, however this ended.
        processes.kill_child(pid)
        if not isinstance(error, Retry | TimeoutError):
            raise
        if any(text in str(error) for text in files.FULL_TEXTS):
            raise NoSpace(f"machine {spec.name}: {error}") from error
        raise Retry(f"machine {spec.name} does not start: {error}") from error


async def _listens(monitors: Monitors, folder: Path, pid: int) -> None:
    """Wait until a machine's monitor answers: QEMU writes its pid file a little earlier."""
    async with asyncio.timeout(_START):
        while True:
            try:
                await monitors.run(socket(folder), "query-status", seconds=2.0)
            except Silent:
                if not processes.alive(pid):
                    raise Retry(f"it ended at once: {files.last_lines(folder / LOG) or 'it said nothing'}") from None
                await asyncio.sleep(0.02)
            else:
                return


async def stop(monitors: Monitors, folder: Path, seconds: float = 5.0) -> None:
    """End a machine with its images closed cleanly, by force when it does not answer, or see that it does not run."""
    pid = running(folder)
    if pid is None:
        return
    answered = await monitors.quit(socket(folder), seconds / 2)
    if not answered or not await processes.wait_gone(pid, seconds / 2):
        await processes.kill(folder / PID)


def _device(driver: str, **properties: object) -> dict[str, object]:
    return {"driver": driver, **properties}
