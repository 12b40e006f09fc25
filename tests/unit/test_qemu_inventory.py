"""A zone's inventory: what is accepted, and what is said about what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifeboat.engines.qemu.inventory import load
from lifeboat.host.inventory import InventoryError, parse_quantity

GOOD = """\
zone: zone-a
namespaces: [default]
networks:
  - name: app
    cidr: 10.1.0.0/24
    address: 127.0.20.1
storage:
  standard: storage
elasticIPs: [127.0.10.5]
servers:
  - id: web-1
    cpu: 2
    memory: 512Mi
    network: app
    ipAddress: 10.1.0.15
    elasticIP: 127.0.10.5
    ports: [80, 5432]
    disks:
      - name: system
        file: disks/system.qcow2
        size: 1Gi
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "zone-a" / "inventory.yaml"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_inventory_is_read(tmp_path: Path) -> None:
    inventory = load(written(tmp_path, GOOD))
    server = inventory.server("web-1")
    assert server is not None
    assert server.memory == 512 << 20
    assert server.disks[0].size == 1 << 30
    assert inventory.network("app") is not None
    assert inventory.server("web-2") is None


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("zone: zone-a", "zone: zone-b", 1, "folder"),
        ("memory: 512Mi", "memory: plenty", 13, "quantity"),
        ("cpu: 2", "cpu: 0", 12, "greater"),
        ("cidr: 10.1.0.0/24", "cidr: 10.1.0.7/24", 5, "host bits"),
        ("cidr: 10.1.0.0/24", "cidr: 10.1.0.0/30", 5, "room"),
        ("address: 127.0.20.1", "address: 192.0.2.1", 6, "loopback"),
        ("network: app", "network: none", 14, "no network none"),
        ("ipAddress: 10.1.0.15", "ipAddress: 10.1.0.2", 15, "gateway"),
        ("ipAddress: 10.1.0.15", "ipAddress: 10.2.0.15", 15, "not in network"),
        ("ports: [80, 5432]", "ports: [80, 70000]", 17, "65535"),
        ("id: web-1", "id: ../../etc", 11, "letters"),
        ("id: web-1", "id: a,b", 11, "letters"),
        ("name: system", "name: sys/tem", 19, "letters"),
        ("    ports:", "    prots:", 17, "Extra"),
        ("elasticIPs: [127.0.10.5]", "elasticIPs: []", 16, "elasticIPs"),
        ("storage:\n  standard: storage", "storage: {}", 7, "required"),
        ("networks:", "networks: [", 4, "expected"),
        ("        size: 1Gi", "      - {name: system, file: x}", 21, "twice"),
        ("  - id: web-1", "  - id: web-1\n    <<: *none", 12, "alias"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(InventoryError) as caught:
        load(path)
    assert f"{path}, line {line}:" in str(caught.value)
    assert said in str(caught.value)


def test_what_is_not_an_inventory_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    with pytest.raises(InventoryError, match="mapping"):
        load(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InventoryError, match=r"UTF-8|characters|utf"):
        load(path)
    path.unlink()
    with pytest.raises(InventoryError):
        load(path)


@pytest.mark.parametrize(("text", "size"), [("1Ki", 1024), ("1.5Gi", 3 << 29), ("20G", 20 * 10**9), (7, 7), ("7", 7)])
def test_quantities(text: object, size: int) -> None:
    assert parse_quantity(text) == size


@pytest.mark.parametrize("text", ["", "1 Gi", "-1", "1Xi", "Gi", None, True])
def test_what_is_no_quantity(text: object) -> None:
    with pytest.raises(ValueError, match="quantity"):
        parse_quantity(text)
