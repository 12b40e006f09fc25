"""Servers that a zone has already: virtual machines of their owners, which a label says the id of.

What they are made of is never touched, only whether they run. A fence is a label that outlives everything, the note
what kept the server running before, and `Halted`, in one write. KubeVirt itself starts such a machine again if it is
told to; docs/how-to/ceph.md has the policy by which an API server refuses that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta

from lifeboat.api.values import format_micro_time, parse_time
from lifeboat.engines.ceph.compute import Hold
from lifeboat.engines.ceph.compute.kubevirt import machines, manifests, names
from lifeboat.engines.ceph.compute.kubevirt.cluster import INSTANCE, VIRTUAL_MACHINE, Cluster
from lifeboat.engines.ceph.compute.kubevirt.manifests import HALTED, MANUAL
from lifeboat.engines.ceph.compute.kubevirt.reading import AT_ONCE, DRAINED, ORDERLY, Found, Seen, claims, condition
from lifeboat.engines.ceph.options import KubeVirt
from lifeboat.engines.contract import Refused, Retry, Underway

_MARK = {names.FENCED: "true"}
# How long a server stands still for a point at most, and after how long whoever looks lets it go on: whoever held it
# is not there any more.
BOUND = 2.5
ABANDONED = timedelta(seconds=10)


def check_start(found: Found, *, lifting: bool = False) -> None:
    """See that a virtual machine may start; `lifting` is for the fence's own end.

    Raises:
        Refused: it is fenced, or its disks were given up.
    """
    who = f"virtual machine {found.name}"
    if found.fenced and not lifting:
        raise Refused(
            f"{who} is fenced: it was failed over to another zone and must not serve beside its recovered copy; a "
            "rollback or a failback lifts the fence"
        )
    if names.GIVEN_UP in found.notes:
        raise Refused(f"{who} has no disks: they were given up for a replica ({names.GIVEN_UP})")


async def start(cluster: Cluster, found: Found) -> None:
    """Start a server, or see that it runs."""
    check_start(found)
    if found.strategy == HALTED:
        await cluster.apply(manifests.power(found.vm, manifests.STRATEGY, {}, {}), names.POWER)
    elif found.off:
        await cluster.tell(VIRTUAL_MACHINE, found.name, "start")


async def restart(cluster: Cluster, found: Found) -> None:
    """Let KubeVirt stop a server in an orderly way and start it again, once."""
    if found.fenced:
        raise Refused(f"server {found.name} is fenced")
    if not found.alive:
        raise Retry(f"server {found.name} does not run: start it in its zone")
    underway = (found.instance or {}).get("metadata", {}).get("deletionTimestamp")
    asked = (found.vm.get("status") or {}).get("stateChangeRequests")
    if not underway and not asked:
        await cluster.tell(VIRTUAL_MACHINE, found.name, "restart")


async def fence(cluster: Cluster, found: Found) -> None:
    """Cut a server's power and keep it off.

    Raises:
        Retry: its node has not ended it yet.
    """
    await _order(cluster, found, AT_ONCE)
    await machines.cut(cluster, found.name)


async def fence_orderly(cluster: Cluster, found: Found, drain: Callable[[], Awaitable[None]]) -> None:
    """Let a server shut down within its own grace, and see that `drain` says that nothing of it was lost.

    Its disks outlive its process, and so does what is still to be copied: it need not be kept for that.

    Raises:
        Retry: it is not at its end yet.
    """
    if found.fenced and found.off and found.notes.get(names.FENCE) == DRAINED:
        return
    found = await _order(cluster, found, ORDERLY)
    if found.alive:
        raise Underway(f"server {found.name} is shutting down")
    await drain()
    await _order(cluster, found, DRAINED)


async def unfence(cluster: Cluster, found: Found) -> None:
    """Lift a fence, and let run what ran before it."""
    if found.fenced:
        ran = found.notes.get(names.RAN) or HALTED
        if ran != HALTED:
            check_start(found, lifting=True)
        await cluster.apply(manifests.power(found.vm, ran, {}, {}), names.POWER)
        if ran == MANUAL:
            await cluster.tell(VIRTUAL_MACHINE, found.name, "start")


async def register(cluster: Cluster, options: KubeVirt, seen: Seen, server_id: str, machine: str) -> None:
    """Let a launched machine be the server of its zone from now on, or see that it is.

    Raises:
        Refused: there is no such machine, or it cannot be copied from, or another server of this id runs.
    """
    found = machines.present(seen, cluster.zone, server_id, machine)
    if names.REGISTERED in found.labels:
        return
    if names.ISOLATED in found.notes:
        raise Refused(f"machine {machine} is isolated: a drill's machine serves nobody")
    if options.mounter == "rbd":
        raise Refused(
            f"machine {machine} cannot be copied back: the kernel maps no image that has a journal; write mounter: "
            f"rbd-nbd for zone {cluster.zone} before a server is failed over that is to come back"
        )
    before = seen.server(cluster.zone, server_id)
    if before is not None and not before.off:
        raise Refused(f"the server {server_id} that zone {cluster.zone} has now still runs")
    await cluster.apply(manifests.note(found.vm, {}, {names.REGISTERED: "true"}), names.REGISTRATION)


def check_given_up(seen: Seen, server_id: str, found: Found) -> None:
    """See that a server's disks may be given up.

    Raises:
        Refused: it is not known to serve nobody, or another machine runs on its disks.
    """
    who = f"the server {server_id}, virtual machine {found.name},"
    if not found.off:
        raise Refused(f"{who} runs: its disks are not given up")
    if not found.fenced:
        raise Refused(f"{who} is not fenced: its disks are not given up")
    mine = set(claims(found.vm))
    for other in seen.machines.get(server_id, {}).values():
        if other.name != found.name and not other.off and mine & set(claims(other.vm)):
            raise Refused(f"machine {other.machine} runs on the disks of {who} which are not given up")


async def give_up(cluster: Cluster, found: Found, run: int) -> None:
    """Write down that a server's disks are given up."""
    marks = {names.REGISTERED: "true"} if names.REGISTERED in found.labels else {}
    await cluster.apply(manifests.note(found.vm, {names.GIVEN_UP: str(run)}, marks), names.REGISTRATION)


class Held:
    """A server that stands still, until it is told to go on or has stood long enough; `stood` once that was seen."""

    def __init__(self, cluster: Cluster, name: str, *, stood: bool) -> None:
        self._cluster = cluster
        self._name = name
        self._turn = asyncio.Lock()
        self._late = False
        self.stood = stood
        self.released = False

    async def kept(self) -> bool:
        """Let it go on; whether it stood still all the time until now."""
        async with self._turn:
            # That it stood still is what KubeVirt says by letting it go on.
            if not self.released:
                self.released = await self._cluster.tell(INSTANCE, self._name, "unpause")
            return self.released and not self._late

    async def after(self, seconds: float) -> None:
        """Let it go on after so long, whatever is being done."""
        await asyncio.sleep(seconds)
        self._late = True
        await self.kept()

    async def stands_still(self) -> bool:
        """Whether KubeVirt says that it stands still: its own word for it comes a moment after the deed."""
        found = await self._cluster.get(INSTANCE, self._name)
        self.stood = self.stood or condition(found, "Paused") is not None
        return condition(found, "Paused") is not None


@contextlib.asynccontextmanager
async def hold(cluster: Cluster, found: Found, now: Callable[[], datetime]) -> AsyncIterator[Hold]:
    """Let a server stand still for a moment.

    Where the operator dies meanwhile the note on the virtual machine says so, and a later look lets it go on.

    Raises:
        Retry: it does not stand still.
    """
    if found.paused() is not None:
        # KubeVirt says so for a moment longer than it is true: who goes on just now would write between two snapshots.
        raise Retry(f"virtual machine {found.name} is paused already, by somebody else or until just now")
    await cluster.apply(manifests.note(found.vm, {names.HELD: format_micro_time(now())}), names.HOLD)
    try:
        paused = await cluster.tell(INSTANCE, found.name, "pause")
    except Refused:
        await cluster.apply(manifests.note(found.vm, {}), names.HOLD)
        raise
    if not paused:
        await cluster.apply(manifests.note(found.vm, {}), names.HOLD)
        raise Retry(f"virtual machine {found.name} could not be let stand still: it does not run yet, or any more")
    held = Held(cluster, found.name, stood=False)
    bound = asyncio.create_task(held.after(BOUND))
    try:
        await cluster.until(held.stands_still, BOUND, f"virtual machine {found.name} does not stand still")
        yield held
    finally:
        bound.cancel()
        await asyncio.gather(bound, return_exceptions=True)
        await _let_go(cluster, found, held)


async def let_abandoned_go(cluster: Cluster, found: Found, now: datetime) -> None:
    """Let a server go on that stands still since whoever let it is gone."""
    try:
        since = parse_time(found.notes[names.HELD])
    except ValueError:
        since = now - ABANDONED
    if now - since >= ABANDONED:
        await _let_go(cluster, found, Held(cluster, found.name, stood=True))


async def _let_go(cluster: Cluster, found: Found, held: Held) -> None:
    """Let a server go on, and forget that it stood still; where it may still do, the note stays for the next look."""
    await held.kept()
    if held.released or (held.stood and not await held.stands_still()):
        await cluster.apply(manifests.note(found.vm, {}), names.HOLD)


async def _order(cluster: Cluster, found: Found, how: str) -> Found:
    """Write down that a server is fenced and how far that has come; the answer is the server as it is then."""
    ran = found.notes.get(names.RAN, "") if found.fenced else "" if found.off else found.strategy
    done = found.notes.get(names.FENCE) if found.fenced else None
    if done != how or found.strategy != HALTED:
        notes = {names.FENCE: how, names.RAN: ran}
        await cluster.apply(manifests.power(found.vm, HALTED, _MARK, notes), names.POWER)
    vm, instance = await asyncio.gather(cluster.get(VIRTUAL_MACHINE, found.name), cluster.get(INSTANCE, found.name))
    if vm is None:
        raise Retry(f"virtual machine {found.name} was removed meanwhile")
    return Found(vm, instance)
