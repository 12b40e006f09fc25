"""The compute that hands servers to KubeVirt: each question and order of the seam, and who answers it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from datetime import datetime

from lifeboat.engines.ceph.compute import Disk, Hold, Made, Offer, Order
from lifeboat.engines.ceph.compute.kubevirt import machines, names, reading, servers
from lifeboat.engines.ceph.compute.kubevirt.cluster import INSTANCE, QUOTA, VIRTUAL_MACHINE, Cluster
from lifeboat.engines.ceph.compute.kubevirt.reading import Found, Seen
from lifeboat.engines.ceph.connection import Connection
from lifeboat.engines.ceph.options import KubeVirt
from lifeboat.engines.contract import EngineError, ExecResult, Refused, Retry, Script, Unreachable
from lifeboat.engines.facts import Machine, Source
from lifeboat.engines.ledger import ScriptOutcome

logger = logging.getLogger(__name__)

# One look at a site asks for all of its servers one after the other: they are answered from one list of each kind.
_FRESH = 2.0
_FENCE = 2.9
_NO_PROGRAMS = "KubeVirt lets nobody run a program in a guest: write a check of http or tcp instead of exec"
_NO_SCRIPTS = (
    "KubeVirt lets nobody run a script in a guest: leave postScript out, and let what it does be a service in the "
    "guest's own image that is started at each boot"
)


class KubeVirtCompute:
    """A site's servers in a namespace of a cluster, for the SitePairs of namespace `user`, which has the way in."""

    def __init__(
        self,
        cluster: Cluster,
        options: KubeVirt,
        user: str,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._options = options
        self._user = user
        self._clock = clock
        self._monotonic = monotonic
        self._looking = asyncio.Lock()
        self._seen: tuple[float, Seen] | None = None

    async def offer(self, zone: str) -> Offer:  # noqa: ARG002 - it is of one zone; so below
        """What the zone has, looked at anew."""
        self._seen = None
        return reading.offer(self._options, self._user, await self._look())

    async def made(self, zone: str, server_id: str) -> Made | None:
        """What the zone's server of that id is made of, None where it has none."""
        found = (await self._look()).server(zone, server_id)
        return None if found is None else reading.made(found)

    async def source(self, zone: str, server_id: str) -> Source:
        """What the zone's server does now."""
        return reading.source(await self._server(zone, server_id))

    async def start(self, zone: str, server_id: str, disks: tuple[Disk, ...], access: Connection) -> None:  # noqa: ARG002 - its claims are its owner's
        """Start the zone's server, or see that it runs; `Refused` while it is fenced."""
        async with self._changing():
            await servers.start(self._cluster, await self._server(zone, server_id))

    async def stop(self, zone: str, server_id: str) -> None:
        """Stop the zone's server as if its power was cut."""
        async with self._changing():
            await machines.halt(self._cluster, (await self._server(zone, server_id)).name)

    async def restart(self, zone: str, server_id: str) -> None:
        """Boot the zone's server anew, in a pod of its own."""
        async with self._changing():
            await servers.restart(self._cluster, await self._server(zone, server_id))

    async def fence(self, zone: str, server_id: str) -> None:
        """Stop the zone's server, and keep it from being started; in less than 3 s or `Unreachable`."""
        try:
            async with asyncio.timeout(_FENCE), self._changing():
                await servers.fence(self._cluster, await self._server(zone, server_id))
        except TimeoutError as error:
            raise Unreachable(
                f"server {server_id} could not be fenced within {_FENCE:g} s: it may still run"
            ) from error

    async def fence_orderly(self, zone: str, server_id: str, drain: Callable[[], Awaitable[None]]) -> None:
        """Fence the zone's server and let its guest end in an orderly way; it counts as ended once `drain` returns."""
        async with self._changing():
            await servers.fence_orderly(self._cluster, await self._server(zone, server_id), drain)

    async def unfence(self, zone: str, server_id: str, disks: tuple[Disk, ...], access: Connection) -> None:  # noqa: ARG002 - its claims are its owner's
        """Lift the fence, and start what it stopped."""
        async with self._changing():
            await servers.unfence(self._cluster, await self._server(zone, server_id))

    async def register(self, zone: str, server_id: str, name: str) -> None:  # noqa: ARG002
        """Let a machine that was launched be the zone's server from now on."""
        async with self._changing():
            await servers.register(self._cluster, self._options, await self._look(), server_id, name)

    async def check_given_up(self, zone: str, server_id: str) -> None:
        """See that the disks of the zone's server may be given up."""
        async with self._changing():
            servers.check_given_up(await self._look(), server_id, await self._server(zone, server_id))

    async def give_up(self, zone: str, server_id: str, run: int) -> None:
        """Write down that they are given up for the copy of a run: the server is never started again."""
        async with self._changing():
            await servers.give_up(self._cluster, await self._server(zone, server_id), run)

    def hold(self, zone: str, server_id: str) -> AbstractAsyncContextManager[Hold]:
        """Let the zone's server stand still for a moment; it goes on by itself after that."""
        return self._hold(zone, server_id)

    async def machines(self, zone: str, server_id: str) -> dict[str, Machine]:  # noqa: ARG002
        """The machines that were started for a server, by name."""
        found = (await self._look()).machines.get(server_id, {})
        return {name: reading.machine(name, each) for name, each in found.items()}

    async def disks(self, zone: str, server_id: str) -> dict[str, tuple[Disk, ...]]:  # noqa: ARG002
        """The disks of these machines, by machine."""
        found = (await self._look()).machines.get(server_id, {})
        return {name: reading.disks(each) for name, each in found.items()}

    async def check(self, zone: str, order: Order) -> None:
        """See that the machine could be started; `Refused` where it could not. It leaves nothing behind."""
        machines.check(self._options, zone, await self._look(), order)

    async def launch(self, zone: str, order: Order, access: Connection) -> None:  # noqa: ARG002 - ceph-csi has its own
        """Start a machine, or see that it runs."""
        async with self._changing():
            await machines.launch(self._cluster, self._options, await self._look(), order)

    async def halt(self, zone: str, server_id: str, name: str) -> None:
        """Stop a machine and keep its disks."""
        async with self._changing():
            await machines.halt(self._cluster, names.machine(zone, server_id, name))

    async def go_on(self, zone: str, server_id: str, name: str) -> None:
        """Let a machine go on that stands still for want of space."""
        async with self._changing():
            found = machines.present(await self._look(), zone, server_id, name)
            if not found.alive:
                raise Retry(f"machine {name} does not run")
            if reading.machine(name, found).out_of_space:
                await self._cluster.tell(INSTANCE, found.name, "unpause")

    async def move_elastic_ip(self, zone: str, server_id: str, name: str, elastic_ip: str | None) -> None:
        """Refuse another elastic IP than none."""
        machines.present(await self._look(), zone, server_id, name)
        if elastic_ip is not None:
            raise Refused(
                f"{elastic_ip} is not an elastic IP of zone {zone}: KubeVirt has none; make a Service that selects "
                f"{names.SERVER}: {server_id}"
            )

    async def remove(self, zone: str, server_id: str, name: str) -> None:  # noqa: ARG002
        """Stop a machine and forget it, or see that there is none."""
        async with self._changing():
            await machines.remove(self._cluster, server_id, name)

    async def route(self, zone: str, server_id: str, name: str, port: int) -> tuple[str, int]:  # noqa: ARG002
        """A private address and port that lead to a port of a machine."""
        return await machines.route(self._cluster, await self._look(), server_id, name, port)

    async def execute(self, zone: str, server_id: str, name: str, argv: Collection[str], seconds: float) -> ExecResult:  # noqa: ARG002
        """Refuse to run a program in a machine's guest."""
        machines.present(await self._look(), zone, server_id, name)
        raise Refused(_NO_PROGRAMS)

    async def run_script(self, zone: str, server_id: str, name: str, script: Script, seconds: float) -> ScriptOutcome:  # noqa: ARG002
        """Refuse to run a script in a machine's guest."""
        machines.present(await self._look(), zone, server_id, name)
        raise Refused(_NO_SCRIPTS)

    async def close(self) -> None:
        """Let go of connections; what runs goes on."""
        await self._cluster.close()

    async def _look(self) -> Seen:
        """All of the namespace, by one list of each kind for all who ask within a moment."""
        async with self._looking:
            if self._seen is not None and self._monotonic() - self._seen[0] < _FRESH:
                return self._seen[1]
            vms, instances, quotas = await asyncio.gather(
                self._cluster.all(VIRTUAL_MACHINE, names.SERVER),
                self._cluster.all(INSTANCE),
                self._cluster.all(QUOTA),
            )
            seen = reading.look(self._cluster.zone, vms, instances, quotas)
            # The one thing that a look changes: nobody else lets a server go on whose operator died in a point.
            for found in seen.held():
                try:
                    await servers.let_abandoned_go(self._cluster, found, self._clock())
                except EngineError as error:
                    logger.warning("virtual machine %s stands still and could not be let go on: %s", found.name, error)
            self._seen = self._monotonic(), seen
            return seen

    async def _server(self, zone: str, server_id: str) -> Found:
        found = (await self._look()).server(zone, server_id)
        if found is None:
            raise Refused(
                f"zone {zone} has no server {server_id!r}: label its virtual machine in namespace "
                f"{self._cluster.namespace} with {names.SERVER}: {server_id}"
            )
        return found

    @contextlib.asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """Look anew before something is changed, and let the next one look anew after that."""
        self._seen = None
        try:
            yield
        finally:
            self._seen = None

    @contextlib.asynccontextmanager
    async def _hold(self, zone: str, server_id: str) -> AsyncIterator[Hold]:
        async with (
            self._changing(),
            servers.hold(self._cluster, await self._server(zone, server_id), self._clock) as held,
        ):
            yield held
