"""Which accelerator a host's machines are run by."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat.host import machine


@pytest.fixture(autouse=True)
def asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("LIFEBOAT_ACCEL", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    machine.accelerator.cache_clear()
    yield
    machine.accelerator.cache_clear()


def host(folder: Path, monkeypatch: pytest.MonkeyPatch, qemu: str) -> None:
    """A host with /dev/kvm on which a machine of one sector goes as this script does."""
    program = folder / "qemu-system-x86_64"
    program.write_text(f"#!/bin/sh\n{qemu}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(machine, "_KVM", folder)
    monkeypatch.setattr(machine, "_HELLO_SECONDS", 0.5)


@pytest.mark.parametrize(
    ("qemu", "found"),
    [
        ("exit 83", "kvm"),
        ("exit 1", "tcg"),
        ("exec sleep 60", "tcg"),
    ],
)
def test_kvm_is_used_where_a_guest_says_hello_by_it_soon(
    qemu: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(tmp_path, monkeypatch, qemu)
    assert machine.accelerator() == found
    assert not list(tmp_path.glob("lifeboat-kvm-*"))


def test_what_came_of_it_is_noted_for_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host(tmp_path, monkeypatch, "exit 83")
    assert machine.accelerator() == "kvm"
    host(tmp_path, monkeypatch, "exit 1")
    machine.accelerator.cache_clear()
    assert machine.accelerator() == "kvm"
    (note,) = tmp_path.glob("lifeboat-accelerator-*")
    os.utime(note, (0, 0))
    machine.accelerator.cache_clear()
    assert machine.accelerator() == "tcg", "after an hour it is asked again"


def test_a_note_that_is_no_file_of_ours_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host(tmp_path, monkeypatch, "exit 1")
    other = tmp_path / "other"
    other.write_text("kvm")
    (tmp_path / f"lifeboat-accelerator-{os.geteuid()}").symlink_to(other)
    assert machine.accelerator() == "tcg"
    assert other.read_text() == "kvm"


def test_the_boot_sector_says_hello(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On whatever runs guests here: by KVM where that is there, and emulated the code is the same."""
    monkeypatch.setattr(machine, "_HELLO_SECONDS", 30.0)
    monkeypatch.setattr(machine, "_KVM", Path("/"))
    monkeypatch.setattr(machine, "_PROBED", "tcg")
    assert machine.accelerator() == "kvm"
    monkeypatch.setattr(machine, "_HELLO_CODE", 1)
    machine.accelerator.cache_clear()
    for note in tmp_path.glob("lifeboat-accelerator-*"):
        note.unlink()
    assert machine.accelerator() == "tcg"


@pytest.mark.parametrize("wanted", ["kvm", "tcg"])
def test_whoever_runs_the_operator_decides(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFEBOAT_ACCEL", wanted)
    assert machine.accelerator() == wanted
