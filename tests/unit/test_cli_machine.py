"""`lifeboat machine` on a zone's folder, with a real virtual machine whose disk is empty."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.world import end
from lifeboat.__main__ import main
from lifeboat.cli import client
from lifeboat.engines.qemu.records import MachineRecord, save_machine
from lifeboat.engines.qemu.zones import Zones
from lifeboat.host import machine
from lifeboat.host.records import Wanted, save_registration

INVENTORY = """\
zone: zone-a
networks:
  - {name: net, cidr: 10.77.0.0/24, address: 127.0.77.1}
storage: {standard: standard}
servers:
  - {id: web-1, memory: 64Mi, network: net, ipAddress: 10.77.0.20, disks: [{name: system, file: web.raw, size: 8Mi}]}
  - {id: db-1, memory: 64Mi, network: net, disks: [{name: system, file: db.raw, size: 8Mi}]}
"""

needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86 is not installed")


@pytest.fixture
def zone(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "zone-a"
    folder.mkdir()
    (folder / "inventory.yaml").write_text(INVENTORY, encoding="utf-8")
    yield folder
    for server in ("web-1", "db-1"):
        main(["machine", "stop", str(folder), server])


def test_listing_a_zone_that_stands_still(zone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["machine", "list", str(zone)]) == client.FINE
    heading, *lines = capsys.readouterr().out.splitlines()
    columns = "SERVER STATE CLIENT CPU MEMORY NETWORK ADDRESS ELASTIC IP MACHINE"
    assert heading.split() == columns.split()
    assert [line.split()[:2] for line in lines] == [["web-1", "stopped"], ["db-1", "stopped"]]
    assert "10.77.0.20" in lines[0]
    assert main(["machine", "list", str(zone), "db-1"]) == client.FINE
    assert "web-1" not in capsys.readouterr().out


@needs_qemu
def test_a_server_is_started_seen_and_stopped(
    zone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIFEBOAT_ACCEL", "tcg")
    assert main(["machine", "start", str(zone), "web-1"]) == client.FINE
    assert main(["machine", "start", str(zone), "web-1"]) == client.FINE  # it runs already
    assert "server web-1 runs in zone zone-a" in capsys.readouterr().out
    assert main(["machine", "list", str(zone), "web-1"]) == client.FINE
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["web-1", "running", "silent"]
    assert main(["machine", "stop", str(zone), "web-1"]) == client.FINE
    assert "server web-1 does not run in zone zone-a" in capsys.readouterr().out
    assert main(["machine", "list", str(zone), "web-1"]) == client.FINE
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["web-1", "stopped"]


@needs_qemu
def test_in_a_zone_that_is_cut_off_its_owner_may_look_and_stop_and_not_start(
    zone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIFEBOAT_ACCEL", "tcg")
    assert main(["machine", "start", str(zone), "web-1"]) == client.FINE
    (zone / "DOWN").touch()
    capsys.readouterr()
    assert main(["machine", "list", str(zone), "web-1"]) == client.FINE
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["web-1", "running"]
    assert main(["machine", "stop", str(zone), "web-1"]) == client.FINE
    assert main(["machine", "start", str(zone), "web-1"]) == client.SILENT
    assert "zone zone-a does not answer" in capsys.readouterr().err


def test_a_fenced_server_is_not_started(zone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = zone / "servers" / "web-1"
    folder.mkdir(parents=True)
    (folder / "fence.json").write_text("{}", encoding="utf-8")
    assert main(["machine", "start", str(zone), "web-1"]) == client.REFUSED
    assert "lifeboat machine: server web-1 is fenced: it was failed over" in capsys.readouterr().err
    assert main(["machine", "list", str(zone), "web-1"]) == client.FINE
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["web-1", "fenced"]


def launched(server: str, name: str, wanted: Wanted) -> MachineRecord:
    """The record of a machine that was launched for a server."""
    return MachineRecord(
        name=name,
        server_id=server,
        point="tip-2",
        layer=1,
        disks_owner=name,
        disks=("system",),
        cpu=3,
        memory_bytes=128 << 20,
        network="net",
        address="10.77.0.99",
        wanted=wanted,
    )


def test_a_registered_machine_is_listed_in_the_place_of_its_server(
    zone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Zones(zone.parent).zone(zone.name)
    for server in ("web-1", "mail-1"):
        save_machine(found, launched(server, "failback-2-1", Wanted.HALTED))
        save_registration(found, server, "failback-2-1")
    assert main(["machine", "list", str(zone)]) == client.FINE
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [(line[0], line[1], line[-1]) for line in lines] == [
        ("web-1", "stopped", "failback-2-1"),
        ("db-1", "stopped", lines[1][-1]),
        ("mail-1", "stopped", "failback-2-1"),
    ]
    assert lines[1][-1] != "failback-2-1"
    assert "10.77.0.99" in lines[0]


@needs_qemu
def test_a_recovered_server_is_started_before_anybody_registers_it(
    zone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIFEBOAT_ACCEL", "tcg")
    found = Zones(zone.parent).zone(zone.name)
    for name, wanted in (("failover-1-1", Wanted.HALTED), ("failover-1-2", Wanted.RUNNING)):
        disk = zone / "standard" / "machines" / "mail-1" / name / "system.qcow2"
        disk.parent.mkdir(parents=True)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "8M"], check=True)
        save_machine(found, launched("mail-1", name, wanted))
    given_up, serves = (found.machine_folder("mail-1", f"failover-1-{number}") for number in (1, 2))
    try:
        assert main(["machine", "start", str(zone), "mail-1"]) == client.FINE
        assert machine.running(serves) is not None
        assert machine.running(given_up) is None
    finally:
        end(serves / machine.PID)
    (serves / "fence.json").write_text("{}", encoding="utf-8")
    assert main(["machine", "start", str(zone), "mail-1"]) == client.REFUSED
    assert "has no server 'mail-1'" in capsys.readouterr().err


def test_what_is_not_there_is_said_without_a_traceback(zone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["machine", "start", str(zone), "mail-1"]) == client.REFUSED
    assert "zone zone-a has no server 'mail-1'" in capsys.readouterr().err
    assert main(["machine", "list", str(zone.parent / "zone-c")]) == client.SILENT
    assert "zone zone-c does not answer" in capsys.readouterr().err
    (zone / "inventory.yaml").write_text("zone: [", encoding="utf-8")
    assert main(["machine", "list", str(zone)]) == client.SILENT
    assert "inventory.yaml, line 2" in capsys.readouterr().err
    (zone / "inventory.yaml").write_text(INVENTORY, encoding="utf-8")


def test_a_verb_without_its_server_is_refused_by_the_command_line(zone: Path) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["machine", "stop", str(zone)])
    assert exit_.value.code == 2
