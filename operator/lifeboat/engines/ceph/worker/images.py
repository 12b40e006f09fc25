"""What is done to images. Each call does one thing, and doing it again finds it done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import rbd

from lifeboat.engines.ceph.worker.cluster import Cluster

_IMAGES_AT_ONCE = 4
# What a machine's disk needs: to be a clone, one writer at a time, and cheap looks at what it holds.
_FEATURES = rbd.RBD_FEATURE_LAYERING | rbd.RBD_FEATURE_EXCLUSIVE_LOCK | rbd.RBD_FEATURE_OBJECT_MAP
_FEATURES |= rbd.RBD_FEATURE_FAST_DIFF | rbd.RBD_FEATURE_DEEP_FLATTEN


def primary(cluster: Cluster, pool: str, images: list[str]) -> dict[str, bool]:
    """Which of the images are primary, or mirrored not at all: the ones that can be written to."""
    found = {}
    for name in images:
        with _opened(cluster, pool, name, read_only=True) as image:
            info = image.mirror_image_get_info()
            found[name] = info["state"] != rbd.RBD_MIRROR_IMAGE_ENABLED or info["primary"]
    return found


def let_go(cluster: Cluster, pool: str, images: list[str]) -> bool:
    """Whether nobody has any of the images open to write to it."""
    for name in images:
        with _opened(cluster, pool, name, read_only=True) as image:
            if list(image.watchers_list()):
                return False
    return True


def used(cluster: Cluster, pool: str, images: list[str]) -> dict[str, int]:
    """How many bytes of each image hold data, by its map of objects."""
    return dict(zip(images, _each(images, lambda name: _used(cluster, pool, name)), strict=True))


def snapshot(cluster: Cluster, pool: str, images: list[str], name: str) -> float:
    """Take a snapshot of that name of each image, all at once; the answer is the seconds that it took."""
    began = time.monotonic()
    _each(images, lambda image: _snapshot(cluster, pool, image, name))
    return time.monotonic() - began


def remove_snapshots(cluster: Cluster, pool: str, image: str, names: list[str]) -> None:
    """Remove snapshots. One that a clone reads from is out of sight at once, and gone with the last clone."""
    with _opened(cluster, pool, image) as opened:
        there = {each["name"] for each in opened.list_snaps()}
        for name in names:
            if name in there:
                with contextlib.suppress(rbd.ImageNotFound):
                    opened.remove_snap(name)


def note(cluster: Cluster, pool: str, image: str, changes: dict[str, str | None]) -> None:
    """Write metadata of an image, or remove what is None. Of a journaled image its copy gets them in order."""
    with _opened(cluster, pool, image) as opened:
        for key, value in changes.items():
            if value is not None:
                opened.metadata_set(key, value)
            else:
                with contextlib.suppress(KeyError, rbd.ImageNotFound):
                    opened.metadata_remove(key)


def clone(
    cluster: Cluster, pool: str, image: str, snapshot: str, to_pool: str, to: str, metadata: dict[str, str]
) -> None:
    """Make an image that reads from a snapshot, with this metadata and no other."""
    with cluster.pool(pool) as source, cluster.pool(to_pool) as target:
        with contextlib.suppress(rbd.ImageExists):
            rbd.RBD().clone(source, image, snapshot, target, to, features=_FEATURES)
        with rbd.Image(target, to) as made:
            inherited = [key for key, _ in made.metadata_list() if key not in metadata]
            for key in inherited:
                made.metadata_remove(key)
            for key, value in metadata.items():
                made.metadata_set(key, value)


def remove(cluster: Cluster, pool: str, image: str) -> None:
    """Delete an image with its snapshots, or see that it is gone. One that clones read from is refused.

    Where a deletion was cut off, an image may be there in the list of the pool only: that goes as well.
    """
    with cluster.pool(pool) as ioctx:
        image_id = {each["name"]: each["id"] for each in rbd.RBD().list2(ioctx)}.get(image)
        if image_id is None:
            return
        with contextlib.suppress(rbd.ImageNotFound), rbd.Image(ioctx, image_id=image_id) as opened:
            for each in list(opened.list_snaps()):
                if opened.snap_get_namespace_type(each["id"]) == rbd.RBD_SNAP_NAMESPACE_TYPE_USER:
                    opened.remove_snap(each["name"])
        with contextlib.suppress(rbd.ImageNotFound):
            rbd.RBD().remove(ioctx, image)


def rename(cluster: Cluster, pool: str, image: str, to: str) -> None:
    """Give an image another name, or see that it has that."""
    with cluster.pool(pool) as ioctx:
        try:
            rbd.RBD().rename(ioctx, image, to)
        except rbd.ImageNotFound:
            if to not in rbd.RBD().list(ioctx):
                raise


def flatten(cluster: Cluster, pool: str, image: str) -> None:
    """Let the manager copy into an image what it still reads from its parent; that goes on when this program ends."""
    cluster.ask_mgr(prefix="rbd task add flatten", image_spec=f"{pool}/{image}")


def tasks(cluster: Cluster) -> Any:  # noqa: ANN401 - JSON
    """What the manager does to images by and by."""
    return cluster.ask_mgr(prefix="rbd task list")


def block_writers(cluster: Cluster, pool: str, images: list[str], seconds: int) -> list[str]:
    """Let the OSDs take nothing any more from whoever has these images open; the answer is whom."""
    blocked = []
    for name in images:
        with _opened(cluster, pool, name, read_only=True) as image:
            for watcher in image.watchers_list():
                cluster.rados.blocklist_add(watcher["addr"], seconds)
                blocked.append(str(watcher["addr"]))
    return blocked


@contextlib.contextmanager
def _opened(cluster: Cluster, pool: str, name: str, *, read_only: bool = False) -> Iterator[Any]:
    with cluster.pool(pool) as ioctx, rbd.Image(ioctx, name, read_only=read_only) as image:
        yield image


def _each(images: list[str], do: Any) -> list[Any]:  # noqa: ANN401 - any result
    with ThreadPoolExecutor(_IMAGES_AT_ONCE) as pool:
        return list(pool.map(do, images))


def _snapshot(cluster: Cluster, pool: str, name: str, snapshot: str) -> None:
    with _opened(cluster, pool, name) as image, contextlib.suppress(rbd.ImageExists):
        image.create_snap(snapshot)


def _used(cluster: Cluster, pool: str, name: str) -> int:
    found = 0

    def count(_offset: int, length: int, exists: bool) -> None:
        nonlocal found
        found += length if exists else 0

    with _opened(cluster, pool, name, read_only=True) as image:
        image.diff_iterate(0, image.size(), None, count, whole_object=True)
    return found
