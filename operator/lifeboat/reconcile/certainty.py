"""Asking once more before a failover begins: a watch that was torn may show an object that was deleted meanwhile.

A failover that starts hours after its object was deleted would be the worst of surprises, so its object is read again
at the moment that it counts. One request for each failover; everything else can live with what the watch says.
"""

from __future__ import annotations

from lifeboat import kube
from lifeboat.api.failover import Failover
from lifeboat.engines.facts import Known
from lifeboat.engines.ledger import Ledger
from lifeboat.lifecycle.view import View
from lifeboat.reconcile.tools import Tools
from lifeboat.world import Key


def beginning(view: View, ledger: Ledger) -> str | None:
    """The name of the failover that this ledger would begin, or hand over to another object."""
    before = view.facts.ledger.value.failover if isinstance(view.facts.ledger, Known) else None
    if ledger.failover is None or (before is not None and before.name == ledger.failover.name):
        return None
    return ledger.failover.name


async def still_asked(tools: Tools, namespace: str, name: str) -> bool:
    """Whether the Failover is there now exactly as it was decided upon; the world is put right where not.

    Raises:
        kube.KubeError: it could not be asked.
    """
    seen = tools.world.get(Failover, namespace, name)
    if seen is None:
        return False
    try:
        found = await tools.kube.read(Failover, namespace, name)
    except kube.NotFound:
        tools.world.remove(Key(Failover.__name__, namespace, name), seen.metadata.uid)
        return False
    metadata = found["metadata"]
    same = (metadata["uid"], metadata["generation"]) == (seen.metadata.uid, seen.metadata.generation)
    if same and not metadata.get("deletionTimestamp"):
        return True
    tools.world.put(found)
    return False
