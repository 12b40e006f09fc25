"""What a decision is made from, and what it is: values that go into `decide` and come out of it.

A view holds everything about one protected server at one moment: its objects, what the engine sees, the ledger and the
clock. A plan says what the ledger should hold and what to do; whoever carries it out writes the ledger first, looks
again, and acts only once the ledger says so. So whatever instant it dies at, the next look finds its way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias, TypeVar

from lifeboat.api.common import Check, ObjectMeta
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import Site, SitePair
from lifeboat.engines.contract import Capabilities
from lifeboat.engines.facts import Fact, Known, ServerFacts, SiteFacts, Way
from lifeboat.engines.ledger import CheckOutcome, Direction, Ledger, ScriptOutcome
from lifeboat.engines.verbs import Verb
from lifeboat.lifecycle import reasons

T = TypeVar("T")

SITE_PAIR: Final = "SitePair"
PROTECTED_SERVER: Final = "ProtectedServer"
DRILL: Final = "Drill"
FAILOVER: Final = "Failover"


@dataclass(frozen=True, slots=True)
class Subject:
    """The object that a step or a notice is about, in the namespace of its server."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Why something is not as asked: a reason, and a message that says what to do.

    `stalled` is true where it needs a person, false where it waits by itself.
    """

    reason: str
    message: str
    stalled: bool = True


@dataclass(frozen=True, slots=True)
class Verification:
    """How far script and checks of a started machine got; `ready_at` is when the last of them passed."""

    done: bool
    script: ScriptOutcome | None = None
    checks: tuple[CheckOutcome, ...] = ()
    ready_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class View:
    """One protected server at one moment. `rivals` are other objects that name the same server.

    What is asked of source, replica and machines is asked in the direction that the ledger says: `way` is what is seen
    there, `source_site` and `target_site` are the sites in that direction.
    `troubles` are the engine's errors at the last try, by subject. `scripts` says for each drill or failover whether
    the script that it refers to can be read. `verifications` are by machine name.
    """

    now: datetime
    term: int
    pair: SitePair
    server: ProtectedServer
    drills: tuple[Drill, ...]
    failovers: tuple[Failover, ...]
    rivals: tuple[ProtectedServer, ...]
    primary: Fact[SiteFacts]
    recovery: Fact[SiteFacts]
    facts: ServerFacts
    capabilities: Capabilities
    verifications: Mapping[str, Verification] = field(default_factory=dict)
    scripts: Mapping[Subject, Notice | None] = field(default_factory=dict)
    troubles: Mapping[Subject, Notice] = field(default_factory=dict)

    @property
    def direction(self) -> Direction:
        """The way that the server is registered for, as the ledger says; forward where that is not known."""
        match self.facts.ledger:
            case Known(ledger):
                return ledger.direction
            case _:
                return Direction.FORWARD

    @property
    def way(self) -> Way:
        """What is seen of the server in its direction."""
        return self.facts.way(self.direction)

    @property
    def source_site(self) -> Site:
        """The site that is copied from, as the pair describes it."""
        return self.pair.spec.primary if self.direction is Direction.FORWARD else self.pair.spec.recovery

    @property
    def target_site(self) -> Site:
        """The site that is copied to, as the pair describes it."""
        return self.pair.spec.recovery if self.direction is Direction.FORWARD else self.pair.spec.primary

    @property
    def target(self) -> Fact[SiteFacts]:
        """What is seen of the site that is copied to."""
        return self.recovery if self.direction is Direction.FORWARD else self.primary

    def target_silent(self, reason: str = "") -> Notice:
        """Say that the site that is copied to does not answer; it is waited for."""
        which = "recovery" if self.direction is Direction.FORWARD else "primary"
        message = f"the {which} site does not answer{f': {reason}' if reason else ''}"
        return Notice(reasons.SITE_SILENT, message, stalled=False)

    @property
    def subject(self) -> Subject:
        """The protected server as the subject of steps and notices."""
        return Subject(PROTECTED_SERVER, self.server.metadata.name)


@dataclass(frozen=True, slots=True)
class Verify:
    """Start the script after the switch (where it has to run) and the checks of a machine, in the background."""

    machine: str
    checks: tuple[Check, ...]
    run_script: bool


@dataclass(frozen=True, slots=True)
class KeepFinalizer:
    """Put our finalizer on the subject, before anything is started that it has to clear."""


@dataclass(frozen=True, slots=True)
class DropFinalizer:
    """Take our finalizer off the subject: nothing is left to clear."""


Step: TypeAlias = Verb | Verify | KeepFinalizer | DropFinalizer


@dataclass(frozen=True, slots=True)
class Action:
    """A step, the object it is done for, and the direction whose source, replica and machines it is about."""

    subject: Subject
    step: Step
    direction: Direction = Direction.FORWARD


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write into the ledger (None where it is right, or unknown), what to do, and what to tell people.

    While `ledger` is set, the actions belong to a ledger that is not written yet: only finalizers may be kept.
    """

    ledger: Ledger | None
    actions: tuple[Action, ...]
    notices: Mapping[Subject, Notice]


class Draft:
    """A plan in the making: the ledger as it should be, actions and notices so far."""

    def __init__(self, ledger: Ledger) -> None:
        self.before = ledger
        self.ledger = ledger
        self.actions: list[Action] = []
        self.notices: dict[Subject, Notice] = {}

    def act(self, subject: Subject, step: Step, direction: Direction | None = None) -> None:
        """Add a step, in the direction that the ledger says where none is given."""
        self.actions.append(Action(subject, step, direction or self.before.direction))

    def note(self, subject: Subject, notice: Notice) -> None:
        """Say why something is not as asked; the first word on a subject stays."""
        self.notices.setdefault(subject, notice)

    def plan(self) -> Plan:
        """The finished plan: with a ledger to write, only finalizers go before it."""
        changed = self.ledger != self.before
        actions = [a for a in self.actions if not changed or isinstance(a.step, KeepFinalizer)]
        return Plan(self.ledger if changed else None, tuple(actions), self.notices)


def known(fact: Fact[T]) -> T | None:
    """The value of a fact, or None where it is unknown."""
    return fact.value if isinstance(fact, Known) else None


def subject_of(kind: str, metadata: ObjectMeta) -> Subject:
    """The subject for an object of that kind."""
    return Subject(kind, metadata.name)
