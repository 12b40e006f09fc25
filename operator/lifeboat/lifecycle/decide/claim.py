"""Who a server belongs to: one ProtectedServer, whatever the namespace, as the ledger says."""

from __future__ import annotations

from dataclasses import replace

from lifeboat.api.names import FINALIZER
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.engines.facts import Known, Unknown
from lifeboat.engines.ledger import Claim
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.decide.failovers import expire_failovers
from lifeboat.lifecycle.view import DRILL, FAILOVER, Draft, DropFinalizer, KeepFinalizer, Notice, View, subject_of


def decide_claim(view: View, draft: Draft) -> bool:
    """Claim the server for this object, or say why it cannot be. True where the claim stands."""
    refusal = _refusal(view, draft)
    if refusal is None:
        metadata = view.server.metadata
        if FINALIZER not in metadata.finalizers and not metadata.deletion_timestamp:
            draft.act(view.subject, KeepFinalizer())
        ours = Claim(metadata.namespace, metadata.name, metadata.uid)
        if draft.ledger.claim != ours and not metadata.deletion_timestamp:
            draft.ledger = replace(draft.ledger, claim=ours)
        if draft.ledger.term < view.term:
            draft.ledger = replace(draft.ledger, term=view.term)
        return True
    draft.note(view.subject, refusal)
    expire_failovers(view, draft)
    for kind, objects in ((DRILL, view.drills), (FAILOVER, view.failovers)):
        for each in objects:
            draft.note(
                subject_of(kind, each.metadata),
                Notice(
                    reasons.SERVER_NOT_FOUND,
                    f"ProtectedServer {view.server.metadata.name} is not accepted: {refusal.message}",
                    refusal.stalled,
                ),
            )
    if view.server.metadata.deletion_timestamp:
        draft.act(view.subject, DropFinalizer())
    return False


def _refusal(view: View, draft: Draft) -> Notice | None:
    claim = draft.ledger.claim
    metadata = view.server.metadata
    if claim is not None and (claim.namespace, claim.name) == (metadata.namespace, metadata.name):
        return None
    if claim is not None and any(_is(rival, claim) for rival in view.rivals):
        return _claimed(view, f"{claim.namespace}/{claim.name}")
    elder = min((view.server, *view.rivals), key=_seniority)
    if elder is not view.server:
        return _claimed(view, f"{elder.metadata.namespace}/{elder.metadata.name}")
    if metadata.deletion_timestamp:
        return Notice(reasons.DELETING, "the object is being deleted")
    for site in (view.primary, view.recovery):
        if isinstance(site, Known) and metadata.namespace not in site.value.namespaces:
            return Notice(
                reasons.NAMESPACE_NOT_ALLOWED,
                f"zone {site.value.zone} does not allow namespace {metadata.namespace}; "
                f"allowed are: {', '.join(site.value.namespaces) or 'none'} (the zone's inventory lists them)",
            )
    if isinstance(view.recovery, Unknown):
        return Notice(reasons.SITE_SILENT, f"the recovery site does not answer: {view.recovery.reason}", stalled=False)
    if draft.ledger.version == 0:
        match view.facts.forward.exists:
            case Unknown(reason):
                return Notice(reasons.SITE_SILENT, f"the primary site does not answer: {reason}", stalled=False)
            case Known(False):
                return Notice(
                    reasons.UNKNOWN_SERVER,
                    f"zone {view.pair.spec.primary.zone} has no server {view.server.spec.server_id!r}; "
                    f"it has: {_servers(view)}",
                )
            case _:
                pass
    return None


def _claimed(view: View, by: str) -> Notice:
    return Notice(
        reasons.SERVER_CLAIMED,
        f"server {view.server.spec.server_id} is protected by ProtectedServer {by} already; delete one of the two",
    )


def _is(server: ProtectedServer, claim: Claim) -> bool:
    return (server.metadata.namespace, server.metadata.name) == (claim.namespace, claim.name)


def _seniority(server: ProtectedServer) -> tuple[float, str]:
    created = server.metadata.creation_timestamp
    return (created.timestamp() if created else 0.0, server.metadata.uid)


def _servers(view: View) -> str:
    if isinstance(view.primary, Known) and view.primary.value.servers:
        return ", ".join(sorted(view.primary.value.servers)[:20])
    return "none"
