"""The objects of the four kinds as they were last seen, and what belongs to what.

Nothing here is remembered beyond what the API server said: the watch fills it, our own writes are put in at once so
that nobody waits for their echo. An object that cannot be read is kept out and told, and stops nobody else.
"""

from __future__ import annotations

import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import pydantic

from lifeboat import clock
from lifeboat.api.common import Resource
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair

KINDS: Final[Mapping[str, type[Resource]]] = {
    kind.__name__: kind for kind in (SitePair, ProtectedServer, Drill, Failover)
}
_SHARED_LENGTH: Final = 256
ECHO_SECONDS: Final = 5.0
"""How long an older version than our own write is taken for a late echo. Later, the API server itself went back."""
ANSWER_SECONDS: Final = 15.0
"""How late the answer to our own write may be, when the watch has told of somebody's edit after it meanwhile."""

_log = logging.getLogger(__name__)
R = TypeVar("R", bound=Resource)
Listener: TypeAlias = Callable[["Key", bool], None]


class Key(NamedTuple):
    """Which object."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Seen:
    """An object as it was seen, parsed and raw; `written` is when we wrote this version ourselves."""

    resource: Resource
    body: Mapping[str, Any]
    at: float
    written: bool = False


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An object whose spec cannot be read, and why."""

    body: Mapping[str, Any]
    problem: str
    at: float


class World:
    """What is, as far as the watch has told."""

    def __init__(self, *, elapsed: Callable[[], float] = clock.elapsed) -> None:
        self._elapsed = elapsed
        self._seen: dict[Key, Seen] = {}
        self._unreadable: dict[Key, Unreadable] = {}
        self._children: dict[Key, set[Key]] = defaultdict(set)
        self._in_order: dict[Key, tuple[Key, ...]] = {}
        self._servers: dict[Key, tuple[ProtectedServer, ...]] = {}
        self._same_server: dict[str, set[Key]] = defaultdict(set)
        self._listeners: list[Listener] = []
        self.complete = False
        self.changes = 0
        """Grows with every object that comes, changes or goes."""

    def listen(self, listener: Listener) -> None:
        """Call this with the key of each object that comes, changes or goes, and whether that is only our own doing.

        A change of status is taken for an echo of ours, which may be faster than the answer to the write; what others
        do to a status is found at the next poll. Of an object that goes it is called twice: while it can still be
        found, and when it cannot any more.
        """
        self._listeners.append(listener)

    def put(self, body: Mapping[str, Any], *, written: bool = False) -> None:
        """Take in an object as the watch, or the answer to our own write, gives it."""
        metadata = body["metadata"]
        key = Key(str(body["kind"]), metadata.get("namespace", ""), metadata["name"])
        before = self._seen.get(key)
        news = before is None or _asked(before.body) != _asked(body)
        if before is not None and before.body["metadata"]["uid"] == metadata["uid"]:
            was, is_now = _version(before.body), _version(body)
            if was == is_now:
                return
            age = self._elapsed() - before.at
            if is_now < was and ((before.written and age < ECHO_SECONDS) or (written and age < ANSWER_SECONDS)):
                return
        body = _small(body)
        try:
            resource = KINDS[key.kind].parse(body)
        except pydantic.ValidationError as error:
            self._forget(key)
            self._unreadable[key] = Unreadable(body, _problem(error), self._elapsed())
            _log.error("%s %s/%s cannot be read: %s", *key, self._unreadable[key].problem)
        else:
            self._forget(key)
            self._remember(key, Seen(resource, body, self._elapsed(), written))
        # An answer to our own write may be the first that is heard of somebody's edit before it.
        self._tell(key, written=not news)

    def remove(self, key: Key, uid: str) -> None:
        """Forget an object that was deleted; one that was created again under its name stays."""
        found = self._seen.get(key) or self._unreadable.get(key)
        if found is not None and found.body["metadata"]["uid"] == uid:
            self._tell(key)
            self._forget(key)
            self._tell(key)

    def keep_only(
        self, kind: str, present: Iterable[tuple[str, str, str]], asked: float, within: str | None = None
    ) -> None:
        """Forget what a list (of one namespace, or all) does not have: a watch that was torn misses deletions."""
        uids = {(namespace, name): uid for namespace, name, uid in present}
        everything: list[tuple[Key, Seen | Unreadable]] = [*self._seen.items(), *self._unreadable.items()]
        for key, seen in everything:
            uid = seen.body["metadata"]["uid"]
            if within not in (None, key.namespace):
                continue
            if key.kind == kind and seen.at < asked and uids.get((key.namespace, key.name)) != uid:
                self.remove(key, uid)

    def behind(self, kind: str, listed: Iterable[Mapping[str, Any]], asked: float) -> list[Key]:
        """The objects of a list (their metadata) that are not known in that version, and were not heard of since."""
        found = []
        for metadata in listed:
            key = Key(kind, metadata.get("namespace", ""), metadata["name"])
            seen = self._seen.get(key) or self._unreadable.get(key)
            version = metadata["resourceVersion"]
            if seen is None or (seen.at < asked and seen.body["metadata"]["resourceVersion"] != version):
                found.append(key)
        return found

    def body(self, key: Key) -> Mapping[str, Any] | None:
        """The raw object, whether it can be read or not."""
        found = self._seen.get(key) or self._unreadable.get(key)
        return found.body if found is not None else None

    def get(self, kind: type[R], namespace: str, name: str) -> R | None:
        """The object of that name."""
        seen = self._seen.get(Key(kind.__name__, namespace, name))
        return seen.resource if seen is not None and isinstance(seen.resource, kind) else None

    def find(self, key: Key) -> Resource | None:
        """The object of that key, of whatever kind."""
        seen = self._seen.get(key)
        return seen.resource if seen is not None else None

    def all(self, kind: type[R]) -> list[R]:
        """All objects of a kind."""
        return [seen.resource for seen in self._seen.values() if isinstance(seen.resource, kind)]

    def unreadable(self) -> Mapping[Key, Unreadable]:
        """The objects that cannot be read."""
        return self._unreadable

    def servers(self, pair: SitePair) -> tuple[ProtectedServer, ...]:
        """The ProtectedServers that refer to the pair, by name: the same tuple until one of them changes."""
        key = key_of(pair)
        if key not in self._servers:
            self._servers[key] = self._of(key, ProtectedServer)
        return self._servers[key]

    def has_servers(self, pair: SitePair) -> bool:
        """Whether a ProtectedServer, readable or not, refers to the pair."""
        return bool(self._children.get(key_of(pair))) or any(
            key.kind == ProtectedServer.__name__
            and key.namespace == pair.metadata.namespace
            and _reference(each.body, "sitePairRef") == pair.metadata.name
            for key, each in self._unreadable.items()
        )

    def drills(self, server: ProtectedServer) -> tuple[Drill, ...]:
        """The Drills of a server, by name."""
        return self._of(key_of(server), Drill)

    def failovers(self, server: ProtectedServer) -> tuple[Failover, ...]:
        """The Failovers of a server, by name."""
        return self._of(key_of(server), Failover)

    def rivals(self, server: ProtectedServer, pair: SitePair) -> tuple[ProtectedServer, ...]:
        """Other ProtectedServers that name the same server of the same primary zone, in any namespace.

        Whatever zone they are recovered in: a server that two of them fail over would serve twice.
        """
        zone = pair.spec.primary.zone
        found = []
        for key in sorted(self._same_server.get(server.spec.server_id, ())):
            other = self.get(ProtectedServer, key.namespace, key.name)
            if other is None or other.metadata.uid == server.metadata.uid:
                continue
            its_pair = self.get(SitePair, key.namespace, other.spec.site_pair_ref.name)
            if its_pair is not None and its_pair.spec.primary.zone == zone:
                found.append(other)
        return tuple(found)

    def children(self, key: Key) -> tuple[Key, ...]:
        """The keys of the objects that refer to this one, whether it exists or not, in order."""
        children = self._children.get(key)
        if children is None:
            return ()
        if key not in self._in_order:
            self._in_order[key] = tuple(sorted(children))
        return self._in_order[key]

    def parent(self, resource: Resource) -> Key | None:
        """What the object refers to: a server's pair, a drill's or failover's server."""
        namespace = resource.metadata.namespace
        match resource:
            case ProtectedServer():
                return Key(SitePair.__name__, namespace, resource.spec.site_pair_ref.name)
            case Drill() | Failover():
                return Key(ProtectedServer.__name__, namespace, resource.spec.server_ref.name)
            case _:
                return None

    def _of(self, parent: Key, kind: type[R]) -> tuple[R, ...]:
        found = (self._seen[key].resource for key in self.children(parent))
        return tuple([resource for resource in found if isinstance(resource, kind)])

    def _remember(self, key: Key, seen: Seen) -> None:
        self._seen[key] = seen
        self.changes += 1
        if (parent := self.parent(seen.resource)) is not None:
            self._children[parent].add(key)
            self._reorder(parent)
        if isinstance(seen.resource, ProtectedServer):
            self._same_server[seen.resource.spec.server_id].add(key)

    def _forget(self, key: Key) -> None:
        self._unreadable.pop(key, None)
        seen = self._seen.pop(key, None)
        if seen is None:
            return
        self.changes += 1
        if (parent := self.parent(seen.resource)) is not None:
            self._children[parent].discard(key)
            self._reorder(parent)
            if not self._children[parent]:
                del self._children[parent]
        if isinstance(seen.resource, ProtectedServer):
            same = self._same_server[seen.resource.spec.server_id]
            same.discard(key)
            if not same:
                del self._same_server[seen.resource.spec.server_id]

    def _reorder(self, parent: Key) -> None:
        """Forget in which order a parent's children were, and what they were."""
        self._in_order.pop(parent, None)
        self._servers.pop(parent, None)

    def _tell(self, key: Key, *, written: bool = False) -> None:
        for listener in self._listeners:
            listener(key, written)


def key_of(resource: Resource) -> Key:
    """The key of an object."""
    return Key(type(resource).__name__, resource.metadata.namespace, resource.metadata.name)


def _small(body: Mapping[str, Any]) -> dict[str, Any]:
    """The object as it is kept: its words shared with all others, and without who wrote which of its fields.

    Of thousands of objects from JSON each has its own copy of every name and of every phase, and half of each is about
    the writers of its fields, for whom nobody here asks.
    """
    kept = {key: _shared(value) for key, value in body.items() if key != "metadata"}
    kept["metadata"] = _shared({key: value for key, value in body["metadata"].items() if key != "managedFields"})
    return kept


def _shared(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, str):
        return sys.intern(value) if type(value) is str and len(value) <= _SHARED_LENGTH else value
    if isinstance(value, Mapping):
        return {sys.intern(key): _shared(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shared(each) for each in value]
    return value


def _version(body: Mapping[str, Any]) -> int:
    """Resource versions of one object can be compared as numbers, since Kubernetes 1.35 by contract."""
    text = str(body["metadata"].get("resourceVersion", ""))
    return int(text) if text.isdigit() else 0


def _asked(body: Mapping[str, Any]) -> tuple[object, ...]:
    """What people change of an object: everything but its status and finalizers."""
    metadata = body["metadata"]
    return tuple(metadata.get(each) for each in ("uid", "generation", "deletionTimestamp", "annotations", "labels"))


def _reference(body: Mapping[str, Any], name: str) -> str | None:
    spec = body.get("spec")
    given = spec.get(name) if isinstance(spec, Mapping) else None
    found = given.get("name") if isinstance(given, Mapping) else None
    return found if isinstance(found, str) else None


def _problem(error: pydantic.ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
