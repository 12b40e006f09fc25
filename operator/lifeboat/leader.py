"""One hand at a time: a Lease says which operator may act, and for how long it may believe so.

The lease's count of transitions is the leader's term, which every verb carries and every ledger remembers, so that a
hand that let go without noticing is refused by the engine. Belief ends by the clock, not by a message: a process that
was stopped and continued finds at its next step that its last renewal is too long ago.

While the API server answers nobody, nobody can be elected, and the leader goes on: a failover must not stand still
because the cluster that burns took the API server with it. Where only the leader is cut off, another one takes over in
a later term, writes that into each ledger before it acts there, and the ledgers refuse the former one from then on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Protocol

from lifeboat import clock, identity, kube

LEASE_SECONDS: Final = 15
RENEW_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 2.0
AGAIN_SECONDS: Final = 1.0
ACT_SECONDS: Final = 10.0
"""How long one may act after a renewal was asked for; the rest of the lease is for what is under way to end."""

_log = logging.getLogger(__name__)

Body = dict[str, Any]


class NotLeader(Exception):
    """Raised before a step that only the leader may take."""


class Leases(Protocol):
    """What leadership needs of the API server."""

    async def read_lease(self, namespace: str, name: str) -> Body:
        """The Lease as it is."""
        ...

    async def create_lease(self, namespace: str, body: Body) -> Body:
        """Create a Lease."""
        ...

    async def replace_lease(self, namespace: str, body: Body) -> Body:
        """Replace the Lease of that resourceVersion."""
        ...


class Leadership:
    """Holds the Lease where it can. `changed` is set whenever it is won or lost."""

    def __init__(
        self,
        leases: Leases,
        namespace: str,
        name: str,
        identity: str,
        *,
        elapsed: Callable[[], float] = clock.elapsed,
        now: Callable[[], datetime] = clock.now,
        gone: Callable[[str], bool] = identity.gone,
    ) -> None:
        self._leases = leases
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._elapsed = elapsed
        self._now = now
        self._gone = gone
        self._held: Body | None = None
        self._sure = 0.0
        self._silent = False
        self._seen: tuple[object, float] | None = None
        self._told = 0
        self._hurry = asyncio.Event()
        self.changed = asyncio.Event()

    @property
    def leading(self) -> bool:
        """Whether one may act at this instant."""
        return self._held is not None and self._elapsed() - self._sure < ACT_SECONDS

    def term(self) -> int:
        """The term to act in, asked before every act.

        Raises:
            NotLeader: the lease is not held, or was last renewed, or tried to be, too long ago.
        """
        if self._held is None or not self.leading:
            raise NotLeader("the lease is not held")
        return _transitions(self._held)

    def may_write(self) -> None:
        """See that it makes sense to write to the API server now.

        Raises:
            NotLeader: as for `term`.
            kube.Unavailable: it did not answer the last renewal; the next one, at most a second away, says more.
        """
        self.term()
        if self._silent:
            raise kube.Unavailable("the API server does not answer")

    def told(self, term: int) -> None:
        """Hear from a ledger that a later term has been there.

        Where another leader is about, the next renewal says so. Where the lease is still ours, the API server has
        forgotten (an etcd restored from a snapshot), and the term has to pass the one that the ledgers know. Where the
        API server answers others only, the ledger's word is enough.
        """
        self._told = max(self._told, term)
        if self._silent and self._held is not None and _transitions(self._held) < term:
            self._lose(f"a ledger knows of term {term}, and the API server does not answer")
        self._hurry.set()

    async def run(self) -> None:
        """Win the lease, keep it, win it again; until cancelled."""
        said = False
        while True:
            self._hurry.clear()
            pause = LOOK_SECONDS
            try:
                await self.step()
                said = False
                if self._held is not None:
                    pause = RENEW_SECONDS
            except kube.KubeError as error:
                if not said:
                    goes_on = "; the work goes on" if self.leading else ""
                    _log.warning("the lease could not be written, which is tried each second%s: %s", goes_on, error)
                said, pause = True, AGAIN_SECONDS
            if self._held is not None and not self.leading:
                self._lose("it could not be renewed in time")
            try:
                async with asyncio.timeout(pause):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    async def step(self) -> None:
        """Look at the lease once, and take or renew it where that is right.

        Raises:
            kube.KubeError: it could not be looked at or written. Where the API server did not answer at all, what was
                believed when it was asked goes on; otherwise until its time is over.
        """
        asked, leading = self._elapsed(), self.leading
        try:
            await self._step(asked)
        except kube.Unavailable:
            self._silent = True
            if leading:
                # Counted from before the question: one that was stopped in the middle of it may know nothing any more.
                self._sure = asked
            raise
        except kube.KubeError:
            self._silent = False
            raise
        self._silent = False

    async def _step(self, asked: float) -> None:
        try:
            lease = await self._leases.read_lease(self._namespace, self._name)
        except kube.NotFound:
            await self._write(None, asked, transitions=max(1, self._told + 1))
            return
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder == self._identity:
            held = _transitions(lease)
            await self._write(lease, asked, transitions=held if held > self._told or not self._told else self._told + 1)
            return
        if self._held is not None:
            # Where the API server has forgotten, the next term must not be one that was.
            self._told = max(self._told, _transitions(self._held))
            self._lose(f"{holder or 'nobody'} holds it now")
        mark = (holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if self._seen is None or self._seen[0] != mark:
            self._seen = (mark, asked)
        patience = float(spec.get("leaseDurationSeconds") or LEASE_SECONDS)
        if holder and asked - self._seen[1] < patience and not self._gone(holder):
            return
        await self._write(lease, asked, transitions=max(_transitions(lease), self._told) + 1)

    async def release(self) -> None:
        """Give the lease back at once, so that nobody has to wait for it to run out."""
        held, self._held = self._held, None
        if held is None:
            return
        self.changed.set()
        try:
            # Read anew: a renewal may have been cut off between the write and its answer.
            lease = await self._leases.read_lease(self._namespace, self._name)
            if lease["spec"].get("holderIdentity") == self._identity:
                free = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._leases.replace_lease(self._namespace, {**lease, "spec": free})
        except kube.KubeError as error:
            _log.warning("the lease could not be released, and runs out by itself: %s", error)

    async def _write(self, lease: Body | None, asked: float, *, transitions: int) -> None:
        """Write the lease as ours. Time counts from before the request: when it was written is not known better."""
        stamp = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "leaseTransitions": transitions,
            "renewTime": stamp,
            "acquireTime": (lease or {}).get("spec", {}).get("acquireTime", stamp) if self._held else stamp,
        }
        metadata = {"name": self._name, "namespace": self._namespace}
        if lease is not None:
            metadata["resourceVersion"] = lease["metadata"]["resourceVersion"]
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        try:
            if lease is None:
                written = await self._leases.create_lease(self._namespace, body)
            else:
                written = await self._leases.replace_lease(self._namespace, body)
        except kube.Conflict:
            # Somebody else wrote it in between; the next look says who.
            self._hurry.set()
            return
        before, self._held = self._held, written
        self._sure = asked
        if before is None or _transitions(before) != transitions:
            _log.info("leading in term %d", transitions)
            self.changed.set()

    def _lose(self, why: str) -> None:
        _log.warning("the lease is lost: %s", why)
        self._held = None
        self.changed.set()


def _transitions(lease: Body) -> int:
    return int((lease.get("spec") or {}).get("leaseTransitions") or 0)
