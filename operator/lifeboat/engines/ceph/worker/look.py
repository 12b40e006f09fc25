"""Everything that can be seen of the images of a pool, by one call.

What costs an open image (snapshots, metadata, parent) is read again only when the image's header has another version:
data that is written, and the heartbeat of whoever has it open, do not change that. So a pool in which nothing changes
costs a few small reads for each image.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import rados
import rbd

from lifeboat.engines.ceph.worker import journal
from lifeboat.engines.ceph.worker.cluster import Cluster

_AT_ONCE = 4
_USER_SNAPSHOT = rbd.RBD_SNAP_NAMESPACE_TYPE_USER
_STATES = {
    rbd.MIRROR_IMAGE_STATUS_STATE_UNKNOWN: "unknown",
    rbd.MIRROR_IMAGE_STATUS_STATE_ERROR: "error",
    rbd.MIRROR_IMAGE_STATUS_STATE_SYNCING: "syncing",
    rbd.MIRROR_IMAGE_STATUS_STATE_STARTING_REPLAY: "starting_replay",
    rbd.MIRROR_IMAGE_STATUS_STATE_REPLAYING: "replaying",
    rbd.MIRROR_IMAGE_STATUS_STATE_STOPPING_REPLAY: "stopping_replay",
    rbd.MIRROR_IMAGE_STATUS_STATE_STOPPED: "stopped",
}

_headers: dict[tuple[str, str, str], tuple[int, dict[str, Any]]] = {}
_lock = threading.Lock()
_pool = ThreadPoolExecutor(_AT_ONCE)


def pool(cluster: Cluster, pool: str) -> dict[str, Any]:  # noqa: A002, RUF100 - the word that Ceph has for it
    """The pool's mirroring and its images: names, headers, mirror states and journal positions."""
    with cluster.pool(pool) as ioctx:
        images = {each["id"]: each["name"] for each in rbd.RBD().list2(ioctx)}
        mode = rbd.RBD().mirror_mode_get(ioctx)
        seen: dict[str, Any] = {"mirroring": mode != rbd.RBD_MIRROR_MODE_DISABLED, "mirror_uuid": "", "peers": []}
        statuses: dict[str, Any] = {}
        if seen["mirroring"]:
            seen["mirror_uuid"] = rbd.RBD().mirror_uuid_get(ioctx)
            seen["peers"] = [{"site": each["site_name"]} for each in rbd.RBD().mirror_peer_list(ioctx)]
            statuses = {each["id"]: _status(each) for each in rbd.RBD().mirror_image_status_list(ioctx)}
    found = _pool.map(lambda each: _image(cluster, pool, each, images[each], statuses.get(each)), images)
    seen["images"] = [image for image in found if image is not None]
    with _lock:
        for key in [key for key in _headers if key[0] == cluster.fsid() and key[1] == pool and key[2] not in images]:
            del _headers[key]
    return seen


def _image(cluster: Cluster, pool: str, image_id: str, name: str, mirror: Any) -> dict[str, Any] | None:  # noqa: ANN401 - JSON
    try:
        image = {"id": image_id, "name": name, "mirror": mirror, **_header(cluster, pool, image_id)}
    except (rbd.ImageNotFound, rados.ObjectNotFound):
        # Removed, or renamed, since the list was read.
        return None
    image["journal"] = None
    image["exclusive"] = bool(image["features"] & rbd.RBD_FEATURE_EXCLUSIVE_LOCK)
    if image["features"] & rbd.RBD_FEATURE_JOURNALING:
        # Without one it is just being made.
        with contextlib.suppress(rados.ObjectNotFound):
            image["journal"] = journal.clients(cluster, pool, image_id)
    return image


def _header(cluster: Cluster, pool: str, image_id: str) -> dict[str, Any]:
    key = cluster.fsid(), pool, image_id
    with cluster.pool(pool) as ioctx:
        ioctx.stat(f"rbd_header.{image_id}")
        version = ioctx.get_last_version()
        with _lock:
            known = _headers.get(key)
        if known is not None and known[0] == version:
            return known[1]
        with rbd.Image(ioctx, image_id=image_id, read_only=True) as image:
            header = _read(image)
    with _lock:
        # The version is from before it was read: what changed in between is read at the next look.
        _headers[key] = version, header
    return header


def _read(image: Any) -> dict[str, Any]:  # noqa: ANN401 - the bindings have no types
    snapshots = []
    for each in image.list_snaps():
        user = image.snap_get_namespace_type(each["id"]) == _USER_SNAPSHOT
        snapshots.append({"id": each["id"], "name": each["name"], "user": user})
    parent = None
    try:
        spec = image.get_parent_image_spec()
        parent = {"pool": spec["pool_name"], "image": image.parent_id(), "snapshot": spec["snap_name"]}
    except rbd.ImageNotFound:
        pass
    return {
        "size": image.size(),
        "features": image.features(),
        "metadata": dict(image.metadata_list()),
        "snapshots": snapshots,
        "parent": parent,
    }


def _status(status: dict[str, Any]) -> dict[str, Any]:
    return {
        "global_id": status["info"]["global_id"],
        "enabled": status["info"]["state"] == rbd.RBD_MIRROR_IMAGE_ENABLED,
        "up": status["up"],
        "state": _STATES.get(status["state"], "unknown"),
        "description": status["description"],
    }
