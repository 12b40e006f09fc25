"""Losing every object and status while machines run, as a cluster that is rebuilt from Git does."""

from __future__ import annotations

import json
import time

from tests.e2e.conftest import RealWorld, Site

KINDS = ("sp", "ps", "dr", "fo")


def serving(world: RealWorld) -> dict[str, str]:
    """The machines of both zones, with their process ids: what must not change when only statuses are lost."""
    return {str(f.relative_to(world.zones)): f.read_text().strip() for f in world.zones.rglob("machine.pid")}


def rebuild_and_compare(world: RealWorld, host: str = "127.0.23.5") -> None:
    """Stop the operator, lose every object, recreate them under their names as Git does, and start it again."""
    phases = phases_of(world)
    machines = serving(world)
    recovered = Site(host).rows()
    kept = {kind: json.loads(world.kubectl("get", kind, "-o", "json"))["items"] for kind in KINDS}
    world.stop_operator()
    for kind, items in kept.items():
        for item in items:
            name = item["metadata"]["name"]
            world.kubectl("patch", kind, name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
            world.kubectl("delete", kind, name, "--timeout=30s")
    for items in kept.values():
        for item in items:
            body = {key: item[key] for key in ("apiVersion", "kind", "spec")}
            world.apply(json.dumps({**body, "metadata": {"name": item["metadata"]["name"]}}))
    world.start_operator()
    deadline = time.monotonic() + 60
    while phases_of(world) != phases:
        assert time.monotonic() < deadline, (phases_of(world), phases)
        time.sleep(0.2)
    assert serving(world) == machines
    assert Site(host).rows() == recovered


def phases_of(world: RealWorld) -> dict[str, str]:
    found = {}
    for kind in KINDS:
        for item in json.loads(world.kubectl("get", kind, "-o", "json"))["items"]:
            found[f"{kind}/{item['metadata']['name']}"] = str(item.get("status", {}).get("phase"))
    return found
