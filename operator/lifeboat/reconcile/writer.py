"""Writes what a report says and the API server does not have yet: statuses, events and finalizers, nothing twice.

A status is written when it differs from what was applied last, or, after a restart, from what is stored; the time at
which a condition changed is no difference. A steady world costs no write.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from lifeboat import clock, kube
from lifeboat.api.names import API_VERSION, FIELD_MANAGER
from lifeboat.lifecycle.report import Event, Report
from lifeboat.logs import about
from lifeboat.world import KINDS, Key, World

EVENT_AGAIN_SECONDS: Final = 600.0
PARALLEL_WRITES: Final = 16
PARALLEL_EVENTS: Final = 4
MOST_EVENTS: Final = 20_000
_MESSAGE_LENGTH: Final = 1024

_log = logging.getLogger(__name__)

Body = dict[str, Any]


class _Untold(NamedTuple):
    """An event that waits for its turn: what it is about as it was then, and when that was."""

    key: Key
    uid: str
    version: str
    event: Event
    at: datetime


class Writer:
    """Our hand on the API server; `allowed` raises where we may not write."""

    def __init__(
        self,
        api: kube.Kube,
        world: World,
        allowed: Callable[[], object],
        identity: str,
        *,
        elapsed: Callable[[], float] = clock.elapsed,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self._api = api
        self._world = world
        self._allowed = allowed
        self._identity = identity
        self._elapsed = elapsed
        self._now = now
        self._applied: dict[Key, tuple[str, str]] = {}
        self._told: dict[tuple[str, str, str], float] = {}
        self._events: asyncio.Queue[_Untold] = asyncio.Queue(MOST_EVENTS)
        self._slots = asyncio.Semaphore(PARALLEL_WRITES)
        world.listen(self._forget_gone)

    async def publish(self, namespace: str, report: Report) -> None:
        """Write the statuses that changed, and tell the events of those objects whose status was written.

        Raises:
            kube.KubeError: a status could not be written; the others were tried.
        """
        keys = {subject: Key(subject.kind, namespace, subject.name) for subject in report.statuses}
        done = await asyncio.gather(
            *(self.status(keys[subject], status) for subject, status in report.statuses.items()),
            return_exceptions=True,
        )
        written = {subject for subject, each in zip(report.statuses, done, strict=True) if each is True}
        for event in report.events:
            if event.subject in written:
                self.event(keys[event.subject], event)
        for each in done:
            if isinstance(each, BaseException):
                raise each

    async def status(self, key: Key, status: Body) -> bool:
        """Apply a status where it is news; whether it was."""
        body = self._world.body(key)
        if body is None:
            return False
        uid, wanted, stored = body["metadata"]["uid"], comparable(status), comparable(body.get("status") or {})
        if wanted == stored:
            return False
        applied = (uid, _digest(wanted))
        if self._applied.get(key) == applied and contains(stored, wanted):
            return False
        try:
            async with self._slots:
                self._allowed()
                written = await self._api.apply_status(
                    KINDS[key.kind], key.namespace, key.name, _keep_times(status, body.get("status") or {})
                )
        except kube.NotFound:
            self._world.remove(key, uid)
            return False
        self._applied[key] = applied
        self._world.put(written, written=True)
        return True

    def event(self, key: Key, event: Event) -> None:
        """Tell an Event, unless the same was told of the object in the last ten minutes.

        It is created in the background, and a lost one is no harm: nothing waits for it. So it waits for its turn
        behind every status that is to be written: where thousands of servers move at once, people see where they stand
        first.
        """
        body = self._world.body(key)
        if body is None:
            return
        moment = self._elapsed()
        uid, version = body["metadata"]["uid"], body["metadata"]["resourceVersion"]
        mark = (uid, event.reason, event.message)
        if moment - self._told.get(mark, -EVENT_AGAIN_SECONDS) < EVENT_AGAIN_SECONDS:
            return
        self._forget_told(moment)
        self._told[mark] = moment
        about(_log, *key).log(
            logging.WARNING if event.warning else logging.INFO, event.message, fields={"reason": event.reason}
        )
        try:
            self._events.put_nowait(_Untold(key, uid, version, event, self._now()))
        except asyncio.QueueFull:
            _log.warning("too many events at once: one of %s %s/%s is lost", *key)

    def _forget_told(self, moment: float) -> None:
        """Forget what may be told again; the oldest come first."""
        while self._told:
            oldest = next(iter(self._told))
            if moment - self._told[oldest] < EVENT_AGAIN_SECONDS:
                break
            del self._told[oldest]

    async def tell_events(self) -> None:
        """Create the Events that are told, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(PARALLEL_EVENTS):
                group.create_task(self._tell_events(), name="events")

    async def _tell_events(self) -> None:
        while True:
            untold = await self._events.get()
            try:
                async with self._slots:
                    await self._api.create_event(untold.key.namespace, self._event_body(untold))
            except kube.KubeError as error:
                _log.warning("an event of %s %s/%s could not be told: %s", *untold.key, error)
            finally:
                self._events.task_done()

    async def drain(self, seconds: float) -> None:
        """Wait until all Events are created, but only so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._events.join()

    async def keep_finalizer(self, key: Key) -> bool:
        """Put our finalizer on an object; whether anything changed."""
        return await self._finalizer(key, self._api.keep_finalizer)

    async def drop_finalizer(self, key: Key) -> bool:
        """Take our finalizer off an object; whether anything changed."""
        return await self._finalizer(key, self._api.drop_finalizer)

    async def _finalizer(self, key: Key, change: Callable[..., Any]) -> bool:
        body = self._world.body(key)
        if body is None:
            return False
        uid = body["metadata"]["uid"]
        async with self._slots:
            self._allowed()
            changed = await change(KINDS[key.kind], body)
        if changed is None:
            metadata = body["metadata"]
            if change == self._api.drop_finalizer:
                self._world.remove(key, metadata["uid"])
            return change == self._api.drop_finalizer
        if changed["metadata"].get("deletionTimestamp") and not changed["metadata"].get("finalizers"):
            # With its last finalizer the object is gone: the answer is the last that is seen of it.
            self._world.remove(key, uid)
        else:
            self._world.put(changed, written=True)
        return True

    def _event_body(self, untold: _Untold) -> Body:
        key, uid, version, event, at = untold
        second = at.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{key.name[:200]}.{uuid.uuid4().hex[:16]}", "namespace": key.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": key.kind,
                "namespace": key.namespace,
                "name": key.name,
                "uid": uid,
                "resourceVersion": version,
            },
            "reason": event.reason,
            "message": event.message[:_MESSAGE_LENGTH],
            "type": "Warning" if event.warning else "Normal",
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": self._identity[:128],
            "firstTimestamp": second,
            "lastTimestamp": second,
            "count": 1,
        }

    def _forget_gone(self, key: Key, _written: bool) -> None:
        if key in self._applied and self._world.body(key) is None:
            del self._applied[key]


def comparable(status: Mapping[str, Any]) -> Body:
    """A status without what changes by itself: the times of its conditions. Conditions are by type."""
    found = {key: value for key, value in status.items() if key != "conditions" and value not in (None, [], {})}
    found["conditions"] = {
        each["type"]: {key: value for key, value in each.items() if key != "lastTransitionTime"}
        for each in status.get("conditions") or ()
    }
    return found


def _digest(status: Body) -> str:
    """What tells a status from others: of each object's last one nothing else needs to be kept."""
    return hashlib.blake2b(json.dumps(status, sort_keys=True).encode(), digest_size=16).hexdigest()


def contains(stored: Body, wanted: Body) -> bool:
    """Whether the stored status has all that is wanted; conditions of other managers beside ours are theirs."""
    conditions, theirs = wanted["conditions"], stored["conditions"]
    return all(stored.get(key) == value for key, value in wanted.items() if key != "conditions") and all(
        theirs.get(name) == value for name, value in conditions.items()
    )


def _keep_times(status: Body, stored: Mapping[str, Any]) -> Body:
    """The status with the times of those conditions whose status is as stored."""
    known = {each["type"]: each for each in stored.get("conditions") or ()}
    conditions = [
        {**each, "lastTransitionTime": known[each["type"]]["lastTransitionTime"]}
        if each["type"] in known and known[each["type"]]["status"] == each["status"]
        else each
        for each in status.get("conditions") or ()
    ]
    return {**status, "conditions": conditions} if conditions else status
