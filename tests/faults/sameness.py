"""Whether a replica is what its source is, bit by bit, in whichever direction the server is registered for."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lifeboat.engines.qemu import site_server
from lifeboat.engines.qemu.layers import layer_files
from lifeboat.engines.qemu.records import ReplicaRecord, load_replica
from lifeboat.engines.qemu.site_server import SiteServer
from lifeboat.engines.qemu.zones import Zone
from lifeboat.host import machine
from lifeboat.host.qmp import Monitors


def differences(source: Zone, target: Zone, server_id: str) -> list[str]:
    """The source's disks whose replica is another, compared while the guest stands still for a moment."""
    while True:
        record, server = load_replica(target, server_id), site_server.find(source, server_id)
        if record is None or record.tip is None or server is None:
            return ["there is no replica"]
        found = _compared(server, target, record)
        # A point that was taken or removed meanwhile changed which files the replica consists of.
        if not found or load_replica(target, server_id) == record:
            return found


def _compared(server: SiteServer, target: Zone, record: ReplicaRecord) -> list[str]:
    assert record.tip is not None
    chains = list(zip(*(layer_files(target, record, layer) for layer in record.chain(record.tip)), strict=True))
    found = []
    asyncio.run(Monitors().run(server.folder / machine.OWNER_QMP, "stop"))
    try:
        for disk, chain in zip(server.spec().disks, chains, strict=True):
            ours, copied = f"json:{json.dumps(disk.block)}", _image(chain)
            command = ["qemu-img", "compare", "-U", ours, copied]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                found.append(f"{disk.name}: {done.stdout.strip() or done.stderr.strip()}")
    finally:
        asyncio.run(Monitors().run(server.folder / machine.OWNER_QMP, "cont"))
    return found


def _image(chain: Iterable[Path]) -> str:
    """Images that stand on each other, oldest first, as QEMU opens them; headers are no witness."""
    made: dict[str, Any] | None = None
    for path in chain:
        made = {"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}, "backing": made}
    return f"json:{json.dumps(made)}"
