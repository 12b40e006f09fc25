"""What can be asked of the program, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lifeboat.engines.ceph.worker import images, journal, look, mirroring, records
from lifeboat.engines.ceph.worker.cluster import Cluster


def _standing(cluster: Cluster, pools: list[str]) -> dict[str, Any]:
    """Whether the cluster answers, is full, and how much room each pool has."""
    usage = {each["name"]: each["stats"] for each in cluster.ask_mon(prefix="df")["pools"]}
    checks = cluster.ask_mon(prefix="health").get("checks", {})
    return {
        "fsid": cluster.fsid(),
        "full": sorted(checks.keys() & {"OSD_FULL", "POOL_FULL"}),
        "size_bytes": {
            name: int(usage[name]["max_avail"]) + int(usage[name]["stored"]) for name in pools if name in usage
        },
        "free_bytes": {name: int(usage[name]["max_avail"]) for name in pools if name in usage},
    }


def _addresses(cluster: Cluster) -> str:
    """The addresses by which the cluster knows this program."""
    return str(cluster.rados.get_addrs())


CALLS: Mapping[str, Callable[..., Any]] = {
    "standing": _standing,
    "addresses": _addresses,
    "look": look.pool,
    "records": records.read_all,
    "read": records.read,
    "swap": records.swap,
    "forget": records.remove,
    "journal_ends": journal.ends,
    "journal_tags": journal.tags,
    "let_go": images.let_go,
    "primary": images.primary,
    "used": images.used,
    "snapshot": images.snapshot,
    "remove_snapshots": images.remove_snapshots,
    "note": images.note,
    "clone": images.clone,
    "remove": images.remove,
    "rename": images.rename,
    "flatten": images.flatten,
    "tasks": images.tasks,
    "block_writers": images.block_writers,
    "enable": mirroring.enable,
    "disable": mirroring.disable,
    "promote": mirroring.promote,
}
