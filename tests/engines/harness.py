"""What the conformance suite needs of an engine and of the world around it.

An engine's harness makes a pair of zones with one server of two disks or more, and plays the people and disasters that
no engine offers. How it does that is its own: the suite sees only what is here. In a case with the mark `guest` the
application and the client in the server answer, and those in the machines that are started from it will. Any other case
needs only the disks, so where to boot something takes long its harness may leave that out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

import pytest

from lifeboat.engines.contract import Engine, Pair, Refused, Retry, Target
from lifeboat.engines.facts import (
    Fact,
    Known,
    Machine,
    MachineState,
    PairFacts,
    Replica,
    ReplicaState,
    SiteFacts,
    Source,
    Way,
)
from lifeboat.engines.ledger import Direction, Ledger
from lifeboat.engines.verbs import Launch, Shape, StartReplication, TakePoint, Verb

T = TypeVar("T")


class Harness(Protocol):
    """A fresh world and the hands on it. Addresses and networks are those of the zone that is copied to.

    What is said of the source and of machines is of those in the harness's direction.
    """

    engine: Engine
    pair: Pair
    server_id: str
    direction: Direction
    """The way that verbs act and facts are looked at."""
    outside_address: str
    elastic_ips: tuple[str, ...]
    cpu: int
    memory_bytes: int
    boots: bool
    """Whether a client answers in what was started; if not, machines only have disks."""

    @property
    def recovery_network(self) -> str:
        """The network that machines join."""
        ...

    @property
    def replication_network(self) -> str:
        """The network that carries the copy."""
        ...

    def address(self, number: int) -> str:
        """A free address of the recovery network, another one for each number from 0 to 9."""
        ...

    async def settle(self, predicate: Callable[[Way], bool], timeout: float = 120.0) -> Way:  # noqa: ASYNC109 - simulated seconds, where time is
        """Observe until the predicate holds, and fail after so many seconds of the engine's time."""
        ...

    async def restart_engine(self) -> None:
        """Close the engine and put a new instance over the same zones."""
        ...

    async def write(self, number: int) -> None:
        """Write a higher number into the source; it is on its disks and acknowledged when this returns."""
        ...

    async def write_in(self, machine: str, number: int) -> None:
        """The same in a started machine."""
        ...

    async def contents(self, machine: str) -> int:
        """The last number on a running machine's disks, 0 where there is none."""
        ...

    async def original(self) -> int | None:
        """The last number on the disks of the primary zone's own server while it is down, None once they are wiped."""
        ...

    def alternating(self) -> AbstractAsyncContextManager[None]:
        """While this is entered, the source writes rising numbers to one disk and then to the other, and so on."""
        ...

    async def disks_agree(self, machine: str) -> bool:
        """Whether a machine's disks are of one instant: what the first has, the second lacks by one write at most."""
        ...

    async def kill_source(self) -> None:
        """Let the source die at once."""
        ...

    async def start_source(self) -> bool:
        """Start the source as the people of its zone would; false where the zone refuses."""
        ...

    async def silence(self, zone: str) -> None:
        """Let a zone answer nothing to the operator."""
        ...

    async def answer(self, zone: str) -> None:
        """Let it answer again."""
        ...

    async def cut_link(self) -> None:
        """Break the connection that data passes through between the zones; the source goes on."""
        ...

    async def restore_link(self) -> None:
        """Let a resume find a connection again."""
        ...

    async def fill_recovery(self) -> None:
        """Use up the recovery zone's storage."""
        ...

    async def close(self) -> None:
        """Take the world down."""
        ...


Factory = Callable[[], Awaitable[Harness]]


def known(fact: Fact[T]) -> T:
    """The value of a fact that has to be known."""
    assert isinstance(fact, Known), fact
    return fact.value


class Stage:
    """A harness with the words that the suite is written in."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness

    def target(self, term: int = 1) -> Target:
        return Target(self.harness.pair, self.harness.server_id, term, self.harness.direction)

    async def perform(self, *verbs: Verb, term: int = 1) -> None:
        for verb in verbs:
            await self.harness.engine.perform(self.target(term), verb)

    async def insist(self, verb: Verb, looks: int = 300) -> list[str]:
        """Perform a verb again and again while it asks for that, and tell the reasons it gave."""
        reasons: list[str] = []
        while len(reasons) < looks:
            try:
                await self.perform(verb)
            except Retry as error:
                reasons.append(str(error))
                await self.pause()
            else:
                return reasons
        raise AssertionError(f"not done after {looks} calls: {reasons[-1]}")

    async def refuses(self, verb: Verb) -> None:
        with pytest.raises(Refused) as caught:
            await self.perform(verb)
        assert str(caught.value), "a refusal says why"

    async def look(self) -> PairFacts:
        return await self.harness.engine.observe(self.harness.pair, [self.harness.server_id])

    async def server(self) -> Way:
        return (await self.look()).servers[self.harness.server_id].way(self.harness.direction)

    async def recovery(self) -> SiteFacts:
        return known((await self.look()).recovery)

    async def ledger(self) -> Ledger:
        return known((await self.look()).servers[self.harness.server_id].ledger)

    async def replica(self) -> Replica:
        return known((await self.server()).replica)

    async def source(self) -> Source:
        return known((await self.server()).source)

    async def machines(self) -> dict[str, Machine]:
        return dict(known((await self.server()).machines))

    async def points(self) -> list[str]:
        return [point.name for point in (await self.replica()).points]

    async def record(self, ledger: Ledger, term: int = 1) -> Ledger:
        return await self.harness.engine.record(self.target(term), ledger)

    def copy(
        self, run: int = 1, bandwidth_limit: int | None = None, *, onto_original: bool = False
    ) -> StartReplication:
        return StartReplication(
            run=run,
            replication_network=self.harness.replication_network,
            bandwidth_limit=bandwidth_limit,
            onto_original=onto_original,
        )

    async def reaches(self, state: ReplicaState) -> Replica:
        facts = await self.harness.settle(lambda facts: known(facts.replica).state is state)
        return known(facts.replica)

    async def replicate(self, run: int = 1) -> Replica:
        """Start a copy and wait until it is in sync."""
        await self.perform(self.copy(run))
        return await self.reaches(ReplicaState.SYNCED)

    async def take_frozen(self, name: str) -> None:
        """Take an application-consistent point, asking again where a guest on a busy host was too slow to freeze."""
        await self.insist(TakePoint(name, application_consistent=True))

    def shape(
        self,
        *,
        cpu: int | None = None,
        ip_address: str | None = None,
        elastic_ip: str | None = None,
        isolated: bool = False,
    ) -> Shape:
        return Shape(
            cpu=cpu or self.harness.cpu,
            memory_bytes=self.harness.memory_bytes,
            network=self.harness.recovery_network,
            ip_address=ip_address,
            elastic_ip=elastic_ip,
            isolated=isolated,
        )

    async def pause(self) -> None:
        """Let a few looks go by, so that a time that is read again differs from one that was kept."""
        looks = iter((False, False, True))
        await self.harness.settle(lambda _: next(looks))

    def is_up(self, facts: Way, machine: str) -> bool:
        """Whether the client in a machine answers, or the machine runs where there is none."""
        found = known(facts.machines).get(machine)
        if found is None:
            return False
        return found.agent_connected if self.harness.boots else found.state is MachineState.RUNNING

    async def up(self, machine: str) -> Machine:
        """Wait until a machine is up."""
        facts = await self.harness.settle(lambda facts: self.is_up(facts, machine))
        return known(facts.machines)[machine]

    async def launch(
        self, machine: str, point: str, shape: Shape | None = None, disks_of: str | None = None
    ) -> Machine:
        """Launch a machine and wait until it is up."""
        await self.perform(Launch(machine, point, shape or self.shape(), disks_of))
        return await self.up(machine)
