"""Small records in a pool, each an object of its own, replaced by compare-and-swap.

The comparison is the OSD's: it checks the object's version and writes in one operation, so of several writers that read
the same version one wins. An object beside them lists their names, so that a look does not walk the pool. A name is
listed before its record is written: one without a record is nothing.
"""

from __future__ import annotations

from typing import Any

import rados

from lifeboat.engines.ceph.worker.cluster import Cluster

NAMESPACE = "lifeboat"
_INDEX = "records"
_MOST = 1 << 16
# A record has to be written also when the cluster is full: an intent comes before whatever makes room.
_FULL_FORCE = 128


def read_all(cluster: Cluster, pool: str, known: dict[str, int]) -> dict[str, Any]:
    """The version of each record, with its text where the version differs from the known one."""
    found: dict[str, Any] = {}
    with cluster.pool(pool, NAMESPACE) as ioctx:
        for name in _names(ioctx):
            try:
                size, _ = ioctx.stat(name)
                version = ioctx.get_last_version()
                record: dict[str, Any] = {"version": version}
                if known.get(name) != version:
                    text = ioctx.read(name, max(size, 1) + 1)
                    while ioctx.get_last_version() != version:
                        version = ioctx.get_last_version()
                        text = ioctx.read(name, _MOST << 4)
                    record = {"version": version, "text": text.decode("utf-8")}
                found[name] = record
            except rados.ObjectNotFound:
                continue
    return found


def read(cluster: Cluster, pool: str, name: str) -> dict[str, Any]:
    """One record; version 0 where there is none."""
    with cluster.pool(pool, NAMESPACE) as ioctx:
        try:
            text = ioctx.read(name, _MOST << 4)
        except rados.ObjectNotFound:
            return {"version": 0, "text": ""}
        return {"version": ioctx.get_last_version(), "text": text.decode("utf-8")}


def swap(cluster: Cluster, pool: str, name: str, version: int, text: str) -> int:
    """Replace the record that has this version, or create it where that is 0; the answer is the new version."""
    with cluster.pool(pool, NAMESPACE) as ioctx:
        if version == 0:
            _list(ioctx, name)
        with rados.WriteOpCtx() as operation:
            if version == 0:
                operation.new(rados.LIBRADOS_CREATE_EXCLUSIVE)
            else:
                operation.assert_version(version)
            operation.write_full(text.encode("utf-8"))
            ioctx.operate_write_op(operation, name, flags=_FULL_FORCE)
        return int(ioctx.get_last_version())


def remove(cluster: Cluster, pool: str, name: str) -> None:
    """Forget a record, or see that there is none."""
    with cluster.pool(pool, NAMESPACE) as ioctx:
        for forget in (lambda: ioctx.remove_object(name), lambda: _unlist(ioctx, name)):
            try:
                forget()
            except rados.ObjectNotFound:
                continue


def _names(ioctx: Any) -> list[str]:  # noqa: ANN401 - the bindings have no types
    names: list[str] = []
    with rados.ReadOpCtx() as operation:
        while True:
            found, _ = ioctx.get_omap_vals(operation, names[-1] if names else "", "", 1024)
            try:
                ioctx.operate_read_op(operation, _INDEX)
            except rados.ObjectNotFound:
                return names
            page = [name for name, _ in found]
            if not page:
                return names
            names += page
            operation = rados.ReadOp().create()  # noqa: PLW2901 - each page is an operation of its own


def _list(ioctx: Any, name: str) -> None:  # noqa: ANN401 - the bindings have no types
    with rados.WriteOpCtx() as operation:
        ioctx.set_omap(operation, (name,), (b"",))
        ioctx.operate_write_op(operation, _INDEX, flags=_FULL_FORCE)


def _unlist(ioctx: Any, name: str) -> None:  # noqa: ANN401 - the bindings have no types
    with rados.WriteOpCtx() as operation:
        ioctx.remove_omap_keys(operation, (name,))
        ioctx.operate_write_op(operation, _INDEX)
