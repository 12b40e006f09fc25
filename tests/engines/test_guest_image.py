"""The small guest boots from its disks alone, and does what the engine's tests rely on."""

import base64
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.guest import GuestImage, blank_disk, build, copy_disks, debian, images, missing_programs, parts
from demo.guest.trial import Trial

BOOT_SECONDS = 120.0  # an emulated guest on a busy machine; five on an idle one
SOON_SECONDS = 30.0


@pytest.fixture(scope="module")
def image() -> GuestImage:
    missing = missing_programs()
    if missing:
        pytest.skip(f"to build a guest image these programs are needed: {', '.join(missing)}")
    return build("tiny", data_disks=2)


@pytest.fixture(scope="module")
def guest(image: GuestImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    disks = copy_disks(image, tmp_path_factory.mktemp("guest"))
    with Trial(disks, memory_mib=image.memory_mib) as trial:
        await_web(trial)
        await_agent(trial)
        yield trial


def await_web(trial: Trial) -> dict[str, object]:
    answer: dict[str, object] = json.loads(
        trial.until("on the web", lambda: trial.get("/cgi-bin/info", 2), BOOT_SECONDS)
    )
    return answer


def await_agent(trial: Trial) -> None:
    trial.until("answering as an agent", lambda: trial.agent("guest-ping", timeout=2), SOON_SECONDS)


def run_in(trial: Trial, *command: str) -> str:
    started = trial.agent("guest-exec", {"path": command[0], "arg": command[1:], "capture-output": True})
    assert isinstance(started, dict)

    def finished() -> str:
        status = trial.agent("guest-exec-status", {"pid": started["pid"]})
        assert isinstance(status, dict)
        if not status["exited"]:
            raise OSError("still running")
        assert status["exitcode"] == 0, status
        return base64.b64decode(status.get("out-data", "")).decode()

    return trial.until("done", finished, SOON_SECONDS)


def test_it_says_what_machine_it_is(guest: Trial, image: GuestImage) -> None:
    info = await_web(guest)
    assert info["cpus"] == 1
    assert info["ip"] == "10.20.0.15"
    assert isinstance(info["memory_kib"], int)
    assert 0.7 < info["memory_kib"] / 1024 / image.memory_mib < 1


def test_it_writes_what_it_is_told(guest: Trial) -> None:
    before = guest.get("/cgi-bin/rows").split()
    assert guest.get("/cgi-bin/write?n=41") == "ok\n"
    assert guest.get("/cgi-bin/write?n=42") == "ok\n"
    assert guest.get("/cgi-bin/rows").split() == [*before, "41", "42"]
    with pytest.raises(OSError, match="400"):
        guest.get("/cgi-bin/write?n=4x")


def test_it_writes_to_two_disks_in_turn(guest: Trial) -> None:
    assert guest.get("/cgi-bin/alternate?n=1&count=20") == "ok\n"
    assert json.loads(guest.get("/cgi-bin/alternate")) == {"data": 20, "data2": 20}


def test_its_agent_runs_programs_and_freezes(guest: Trial) -> None:
    assert run_in(guest, "/bin/sh", "-c", "echo hello $((6 * 7))") == "hello 42\n"
    assert run_in(guest, "cat", "/proc/sys/kernel/hostname").strip() == "lifeboat"
    assert guest.agent("guest-fsfreeze-freeze", timeout=SOON_SECONDS) == 3
    assert guest.agent("guest-fsfreeze-status") == "frozen"
    assert guest.agent("guest-fsfreeze-thaw", timeout=SOON_SECONDS) == 3


def test_its_agent_reads_and_writes_files(guest: Trial) -> None:
    handle = guest.agent("guest-file-open", {"path": "/data/note", "mode": "w"})
    content = base64.b64encode(b"kept").decode()
    assert guest.agent("guest-file-write", {"handle": handle, "buf-b64": content}) == {"count": 4, "eof": False}
    guest.agent("guest-file-flush", {"handle": handle})
    guest.agent("guest-file-close", {"handle": handle})
    assert run_in(guest, "cat", "/data/note") == "kept"


def test_the_power_button_switches_it_off_in_order(image: GuestImage, tmp_path: Path) -> None:
    disks = copy_disks(image, tmp_path)
    with Trial(disks) as trial:
        await_web(trial)
        trial.get("/cgi-bin/write?n=7")
        started = time.monotonic()
        trial.power_down(SOON_SECONDS)
        assert time.monotonic() - started < SOON_SECONDS
    with Trial(disks) as trial:
        await_web(trial)
        assert trial.get("/cgi-bin/rows").split() == ["7"]
        await_agent(trial)
        assert "recovery" not in run_in(trial, "dmesg")
        with pytest.raises(OSError, match=r"timed out|closed"):
            trial.agent("guest-shutdown")  # it gives no answer by design
        trial.wait(SOON_SECONDS)


def test_a_power_cut_loses_nothing_that_was_acknowledged(image: GuestImage, tmp_path: Path) -> None:
    disks = copy_disks(image, tmp_path)
    with Trial(disks) as trial:
        await_web(trial)
        trial.get("/cgi-bin/write?n=1")
        trial.kill()
    with Trial(disks) as trial:
        await_web(trial)
        assert trial.get("/cgi-bin/rows").split() == ["1"]


def test_an_agent_that_comes_up_only_after_a_reboot(tmp_path: Path, image: GuestImage) -> None:
    assert image.disks
    late = build("tiny", data_disks=0, agent_after_reboot=True)
    with Trial(copy_disks(late, tmp_path)) as trial:
        first = await_web(trial)
        with pytest.raises(OSError, match="timed out"):
            trial.agent("guest-ping", timeout=3)
        with pytest.raises(OSError, match="503"):
            trial.get("/cgi-bin/write?n=1")
        trial.get("/cgi-bin/reboot")

        def again() -> None:
            if json.loads(trial.get("/cgi-bin/info", 2))["boot_id"] == first["boot_id"]:
                raise OSError("not rebooted yet")

        trial.until("up again", again, BOOT_SECONDS)
        await_agent(trial)


def test_the_second_build_finds_the_first(image: GuestImage) -> None:
    assert build("tiny", data_disks=2) == image
    with pytest.raises(ValueError, match="3 data disks"):
        build("tiny", data_disks=3)
    with pytest.raises(ValueError, match="0 data disks"):
        build("postgres", data_disks=0)


def test_a_blank_disk_is_as_large_as_asked(tmp_path: Path) -> None:
    blank_disk(tmp_path / "large.qcow2", 20 * 1024 * parts.MIB, 10 * parts.MIB)
    assert 12 * parts.MIB <= (tmp_path / "large.qcow2").stat().st_size < 16 * parts.MIB
    with pytest.raises(ValueError, match="do not fit"):
        blank_disk(tmp_path / "small.qcow2", parts.MIB, 2 * parts.MIB)


def test_the_fingerprint_follows_files_packages_and_options(tmp_path: Path) -> None:
    package = debian.Package("busybox-static", "1", "busybox-static_1_amd64.deb")
    (tmp_path / "init").write_text("one")
    prints = {images.fingerprint(tmp_path, [], {}), images.fingerprint(tmp_path, [package], {})}
    prints.add(images.fingerprint(tmp_path, [package], {"size": 1}))
    (tmp_path / "init").write_text("two")
    prints.add(images.fingerprint(tmp_path, [package], {"size": 1}))
    assert len(prints) == 4


def test_what_apt_prints_is_understood() -> None:
    printed = (
        "'http://mirror/zlib1g_1.2_amd64.deb' zlib1g_1%3a1.2_amd64.deb 86684 SHA256:ab\n\nsome note\n"
        "'http://mirror/acl_2_all.deb' acl_2_all.deb 1 SHA256:cd\n"
    )
    assert debian.parse_uris(printed) == [
        debian.Package("acl", "2", "acl_2_all.deb"),
        debian.Package("zlib1g", "1:1.2", "zlib1g_1%3a1.2_amd64.deb"),
    ]


def test_the_boot_sector_has_two_partitions() -> None:
    sector = parts.boot_sector(b"\x90" * 440, (parts.MIB, 2 * parts.MIB), (3 * parts.MIB, 5 * parts.MIB))
    assert len(sector) == 512
    assert sector[510:] == b"\x55\xaa"
    assert struct.unpack("<II", sector[454:462]) == (2048, 4096)
    assert (sector[446], sector[462]) == (0x80, 0)
    assert struct.unpack("<II", sector[470:478]) == (6144, 10240)


def test_kernel_modules_come_after_what_they_need(tmp_path: Path) -> None:
    for name, needs in (("virtio-pci", "virtio_ring,virtio"), ("virtio", "virtio_ring"), ("virtio_ring", "")):
        (tmp_path / f"{name}.ko").write_bytes(b"\x7fELF\0license=GPL\0depends=" + needs.encode() + b"\0")
    order = [
        (module.stem, [needed.stem for needed in needs])
        for module, needs in parts.module_order(tmp_path, ["virtio_pci"])
    ]
    assert order == [("virtio_ring", []), ("virtio", ["virtio_ring"]), ("virtio-pci", ["virtio_ring", "virtio"])]


def test_a_signature_is_cut_off_and_nothing_else() -> None:
    module = b"\x7fELF" + bytes(100)
    signed = module + b"s" * 50 + struct.pack(">8xI", 50) + parts.SIGNED
    assert parts.unsigned(signed) == module
    assert parts.unsigned(module) == module


def test_the_initramfs_has_a_console_and_an_end(tmp_path: Path) -> None:
    (tmp_path / "init").write_text("#!/bin/sh\n")
    (tmp_path / "sh").symlink_to("busybox")
    archive = parts.cpio(tmp_path)
    assert archive.startswith(b"070701")
    assert b"dev/console\0" in archive
    assert archive.rstrip(b"\0").endswith(b"TRAILER!!!")
    assert len(archive) % 4 == 0
