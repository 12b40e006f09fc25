"""Boot a guest by itself, as a plain QEMU process: to finish an image's build, and to try an image out.

Protected servers are started by the engine, not by this. What it asks of QEMU is the same in what matters to an image:
the machine type, virtio disks in order, user networking with DHCP, the agent's port, a power button.
"""

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from demo import web
from demo.cache import BuildError

HOST: Final = "127.0.0.1"
ADDRESS: Final = "10.20.0.15"
POLL_SECONDS: Final = 0.05
T = TypeVar("T")


def qemu_command(
    disks: Sequence[Path], folder: Path, ports: dict[int, int], *, accelerator: str, memory_mib: int, cpus: int
) -> list[str]:
    """Return the command of a guest with these disks, whose ports (guest to loopback) can be reached from here."""
    command = [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", "q35", "-accel", "kvm" if accelerator == "kvm" else "tcg,thread=multi"),
        *("-cpu", "max", "-smp", str(cpus), "-m", str(memory_mib)),
    ]
    for number, disk in enumerate(disks):
        node = f"driver=qcow2,node-name=disk{number},discard=unmap,file.driver=file,file.filename={disk}"
        order = ",bootindex=0" if number == 0 else ""
        command += ["-blockdev", node, "-device", f"virtio-blk-pci,drive=disk{number}{order}"]
    forwards = "".join(f",hostfwd=tcp:{HOST}:{here}-{ADDRESS}:{there}" for there, here in ports.items())
    command += ["-netdev", f"user,id=net0,net=10.20.0.0/24,dhcpstart={ADDRESS},restrict=on{forwards}"]
    command += ["-device", "virtio-net-pci,netdev=net0,romfile=", "-device", "virtio-serial-pci"]
    command += ["-chardev", f"socket,id=qga,path={folder}/qga,server=on,wait=off"]
    command += ["-device", "virtserialport,chardev=qga,name=org.qemu.guest_agent.0"]
    command += ["-chardev", f"socket,id=qmp,path={folder}/qmp,server=on,wait=off", "-mon", "chardev=qmp,mode=control"]
    return [*command, "-serial", f"file:{folder}/console"]


class Trial:
    """A guest that runs from these disks and writes to them, for as long as the context lasts.

    Args:
        disks: Its disks, the bootable one first.
        accelerator: `tcg`, which works everywhere, or `kvm`.
        memory_mib: Its memory.
        cpus: Its processors.
        ports: Ports of the guest to be reached from here.
    """

    def __init__(
        self,
        disks: Sequence[Path],
        *,
        accelerator: str = "tcg",
        memory_mib: int = 256,
        cpus: int = 1,
        ports: Sequence[int] = (80,),
    ) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="lifeboat-guest-")  # short: a socket's path is at most 107
        self.folder = Path(self._scratch.name)
        self.ports = {port: _free_port() for port in ports}
        self.command = qemu_command(
            disks, self.folder, self.ports, accelerator=accelerator, memory_mib=memory_mib, cpus=cpus
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with (self.folder / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._scratch.cleanup()

    def get(self, path: str, timeout: float = 10.0) -> str:
        """Return what the guest's web server answers.

        Raises:
            OSError: No answer, or one that is not a success.
        """
        return web.get(f"http://{HOST}:{self.ports[80]}{path}", timeout)

    def agent(self, command: str, arguments: dict[str, object] | None = None, timeout: float = 5.0) -> object:
        """Return what the guest agent answers.

        Raises:
            OSError: No answer in time, or an error.
        """
        return _ask(self.folder / "qga", [], command, arguments or {}, timeout)

    def qmp(self, command: str, arguments: dict[str, object] | None = None, timeout: float = 5.0) -> object:
        """Return what QEMU answers."""
        return _ask(self.folder / "qmp", ["qmp_capabilities"], command, arguments or {}, timeout)

    def until(self, what: str, ask: Callable[[], T], deadline: float) -> T:
        """Return the first answer that is no OSError.

        Raises:
            BuildError: QEMU ended, or the deadline (in seconds from now) passed; it ends with the guest's last words.
        """
        end = time.monotonic() + deadline
        while True:
            try:
                return ask()
            except OSError as error:
                last = error
            if self._process is None or self._process.poll() is not None:
                raise BuildError(f"the guest ended before it was {what}: {self._last_words()}")
            if time.monotonic() > end:
                raise BuildError(f"the guest was not {what} after {deadline:.0f} s: {last}: {self._last_words()}")
            time.sleep(POLL_SECONDS)

    def power_down(self, deadline: float) -> None:
        """Press the power button and wait until the guest has switched itself off."""
        self.qmp("system_powerdown")
        self.wait(deadline)

    def wait(self, deadline: float) -> None:
        """Wait until QEMU has ended by itself."""
        if self._process is None:
            return
        try:
            code = self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise BuildError(f"the guest still ran after {deadline:.0f} s: {self._last_words()}") from None
        if code != 0:
            raise BuildError(f"QEMU ended with code {code}: {self._last_words()}")

    def kill(self) -> None:
        """End QEMU at once, as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _last_words(self) -> str:
        texts = [(self.folder / name) for name in ("qemu.log", "console")]
        return "".join(text.read_text(errors="replace")[-1500:] for text in texts if text.exists())


def _ask(path: Path, before: Sequence[str], command: str, arguments: dict[str, object], timeout: float) -> object:
    """Send one command over a socket of JSON lines; greetings, events and echoes are skipped."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        stream = connection.makefile("rw")
        with stream:
            for name in [*before, command]:
                request: dict[str, object] = {"execute": name}
                if name == command and arguments:
                    request["arguments"] = arguments
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                answer: object = None
                while True:
                    line = stream.readline()
                    if not line:
                        raise OSError(f"{name}: the connection was closed")
                    message = json.loads(line)
                    if "error" in message:
                        raise OSError(f"{name}: {message['error'].get('desc')}")
                    if "return" in message:
                        answer = message["return"]
                        break
    return answer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
