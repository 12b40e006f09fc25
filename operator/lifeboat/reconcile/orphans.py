"""Objects that nothing can be done for: what they refer to does not exist, or they cannot be read. They are told so."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any, Literal

from lifeboat import kube
from lifeboat.api.common import Condition
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.names import FINALIZER
from lifeboat.api.protectedserver import DeletionPolicy, ProtectedServer
from lifeboat.api.sitepair import SitePair
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.report import Event, report_orphan
from lifeboat.lifecycle.view import Notice, Subject
from lifeboat.logs import about
from lifeboat.reconcile.tools import Tools
from lifeboat.world import Key, Unreadable

_log = logging.getLogger(__name__)


async def look_after(key: Key, tools: Tools) -> None:
    """Tell an object that belongs to no loop why, and let it go where nothing is left to clear."""
    try:
        if (unreadable := tools.world.unreadable().get(key)) is not None:
            await _tell_unreadable(key, unreadable, tools)
            return
        resource = tools.world.find(key)
        if not isinstance(resource, ProtectedServer | Drill | Failover):
            return
        if (notice := why(resource, tools)) is None:
            return
        said = report_orphan(resource, notice, tools.now())
        for status in said.statuses.values():
            tools.metrics.stalled(key, status)
        await tools.writer.publish(key.namespace, said)
        if _may_go(resource):
            await tools.writer.drop_finalizer(key)
    except kube.KubeError as error:
        about(_log, *key).warning("the status could not be written: %s", error)
    except (ValueError, TypeError, AttributeError, LookupError) as error:  # one odd object must not hold up the others
        about(_log, *key).error("it cannot be looked after: %s", error, exc_info=error)


def why(resource: ProtectedServer | Drill | Failover, tools: Tools) -> Notice | None:
    """What the object waits for, None where it is there."""
    namespace = resource.metadata.namespace
    if isinstance(resource, ProtectedServer):
        name = resource.spec.site_pair_ref.name
        if tools.world.get(SitePair, namespace, name) is not None:
            return None
        if Key(SitePair.__name__, namespace, name) in tools.world.unreadable():
            return Notice(reasons.SITE_PAIR_NOT_FOUND, f"SitePair {name} cannot be read; correct it", stalled=False)
        return Notice(
            reasons.SITE_PAIR_NOT_FOUND,
            f"SitePair {name} does not exist in namespace {namespace}; create it",
            stalled=False,
        )
    name = resource.spec.server_ref.name
    server = tools.world.get(ProtectedServer, namespace, name)
    if server is None and Key(ProtectedServer.__name__, namespace, name) in tools.world.unreadable():
        return Notice(reasons.SERVER_NOT_FOUND, f"ProtectedServer {name} cannot be read; correct it", stalled=False)
    if server is None:
        return Notice(
            reasons.SERVER_NOT_FOUND,
            f"ProtectedServer {name} does not exist in namespace {namespace}; create it",
            stalled=False,
        )
    if (its := why(server, tools)) is None:
        return None
    return Notice(reasons.SERVER_NOT_FOUND, f"ProtectedServer {name} cannot be worked on: {its.message}", stalled=False)


def _may_go(resource: ProtectedServer | Drill | Failover) -> bool:
    """Whether a deleted object may go without its pair: only a server whose replica is kept anyway."""
    return (
        isinstance(resource, ProtectedServer)
        and resource.metadata.deletion_timestamp is not None
        and FINALIZER in resource.metadata.finalizers
        and resource.spec.deletion_policy is DeletionPolicy.RETAIN
    )


async def _tell_unreadable(key: Key, unreadable: Unreadable, tools: Tools) -> None:
    """Say on the object that it cannot be read: past the models, which is the point."""
    metadata = unreadable.body["metadata"]
    message = f"the object cannot be read and is left alone: {unreadable.problem}; correct it"
    given = unreadable.body.get("status")
    status: dict[str, Any] = dict(given) if isinstance(given, dict) else {}
    generation = metadata.get("generation", 0)
    status["observedGeneration"] = generation
    status["conditions"] = _conditions(message, generation, tools.now())
    tools.metrics.stalled(key, status)
    if await tools.writer.status(key, status):
        event = Event(Subject(key.kind, key.name), reasons.INVALID_VALUE, message, warning=True)
        tools.writer.event(key, event)


def _conditions(message: str, generation: int, now: datetime) -> list[dict[str, Any]]:
    states: dict[str, Literal["True", "False"]] = {"Ready": "False", "Reconciling": "False", "Stalled": "True"}
    return [
        Condition(
            type=name,
            status=state,
            reason=reasons.INVALID_VALUE,
            message=message,
            observed_generation=generation,
            last_transition_time=now,
        ).as_dict()
        for name, state in states.items()
    ]
