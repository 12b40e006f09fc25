"""The engine contract: what Lifeboat asks of whatever copies the disks and starts the servers.

Every rule of it is a row of docs/engine-contract.md and a test of tests/engines/.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lifeboat.engines.facts import PairFacts
from lifeboat.engines.ledger import Direction, Ledger, ScriptOutcome
from lifeboat.engines.verbs import Verb


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do; what it cannot is refused with that reason, never ignored.

    The last two say how it copies. `ordered_replay`: writes are acknowledged before they are copied and arrive in their
    order, some time later; so a replica is consistent at every moment, an interruption ends by itself, and points are
    taken at the source. `outlives_source`: what is to be copied is kept when the source dies, and costs no full copy.
    """

    application_consistent_points: bool = False
    delta_resync: bool = False
    bandwidth_limit: bool = False
    elastic_ips: bool = False
    planned_failover: bool = False
    reverse_replication: bool = False
    ordered_replay: bool = False
    outlives_source: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """Where an engine works: two zones, and the pair's block of options for it.

    `namespace` is the pair's own: Secrets that its options name are there.
    """

    primary_zone: str
    recovery_zone: str
    options: Mapping[str, object] = field(default_factory=dict)
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """One server of a pair, and the term of the leader whose hand is on it.

    Verbs act in `direction`: the source they speak of is at its source site, replica and machines at its target site.
    The ledger has one home, the recovery site, whatever the direction.
    """

    pair: Pair
    server_id: str
    term: int
    direction: Direction = Direction.FORWARD


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a program in a guest ended: exit code, and the end of what it printed."""

    exit_code: int
    output: str


@dataclass(frozen=True, slots=True)
class Script:
    """A script for a guest. `key` names this run: a key that ran is not run again, its outcome is told again."""

    key: str
    content: str = field(repr=False)


class Secrets(Protocol):
    """How an engine reads what a pair's options may only name."""

    async def read(self, namespace: str, name: str) -> Mapping[str, str]:
        """The texts in a Secret that is meant for engines.

        Raises:
            Refused: there is no such Secret, or it is not meant for that.
            Retry: it cannot be read now.
        """
        ...


class EngineError(Exception):
    """Something an engine could not do. The class says whether asking again makes sense."""


class Retry(EngineError):
    """Raised when the same call may work later: something has to change first, or a program did not answer."""


class Underway(Retry):
    """Raised when nothing is wrong, and what was asked takes its time; the same call later finds it done."""


class Unreachable(Retry):
    """Raised when a site does not answer."""


class NoSpace(Retry):
    """Raised when a zone's disk is full."""


class Refused(EngineError):
    """Raised when the call cannot work as it is asked; asking again changes nothing."""


class LedgerConflict(Retry):
    """Raised when the ledger was written by somebody else since it was read."""


class StaleTerm(EngineError):
    """Raised when a later leader has taken over: this hand must let go. `term` is the later one's."""

    def __init__(self, term: int) -> None:
        super().__init__(f"a later leader (term {term}) has taken over")
        self.term = term


class Engine(Protocol):
    """What every engine offers. All of it is async, and nothing blocks the event loop."""

    @property
    def name(self) -> str:
        """The member of `spec.engine` that chooses this engine."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do."""
        ...

    async def observe(self, pair: Pair, server_ids: Collection[str]) -> PairFacts:
        """Look at both sites and these servers in one go, and change nothing. Never raises for a silent site."""
        ...

    async def record(self, target: Target, ledger: Ledger) -> Ledger:
        """Store `ledger` durably as the successor of `ledger.version`; the answer carries the new version.

        Raises:
            LedgerConflict: the stored version is not `ledger.version`.
            StaleTerm: the stored term is higher than the target's.
        """
        ...

    async def perform(self, target: Target, verb: Verb) -> None:
        """Do what the verb says, or see that it is done already.

        Raises:
            StaleTerm: the ledger's term is higher than the target's.
            Retry: it may work later.
            Refused: it cannot work.
        """
        ...

    async def route(self, target: Target, machine: str, port: int) -> tuple[str, int]:
        """A private address and port through which the operator reaches `port` of a machine, elastic IP or not.

        Raises:
            Retry: nothing in the machine accepts connections on that port (yet).
        """
        ...

    async def execute(self, target: Target, machine: str, argv: Collection[str], seconds: float) -> ExecResult:
        """Run a program in a machine's guest and wait for it at most so long."""
        ...

    async def run_script(self, target: Target, machine: str, script: Script, seconds: float) -> ScriptOutcome:
        """Run a script in a machine's guest once, handed over as a file, and wait for it at most so long."""
        ...

    async def close(self) -> None:
        """Let go of connections; what was started goes on."""
        ...
