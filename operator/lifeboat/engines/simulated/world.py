"""The simulated world: an engine's whole behaviour as a synchronous, deterministic model with an explicit clock.

Nothing sleeps, nothing is random and time passes only in `advance`, so a failing history replays exactly.
The verbs are in modules of their own; what tests do to the world (write, kill, cut, silence) is in `controls`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeAlias, assert_never

from lifeboat.engines.contract import (
    Capabilities,
    EngineError,
    LedgerConflict,
    Pair,
    Refused,
    StaleTerm,
    Target,
)
from lifeboat.engines.facts import PairFacts
from lifeboat.engines.ledger import Direction, Ledger, ScriptOutcome
from lifeboat.engines.simulated import machines, power, replication, source, view
from lifeboat.engines.simulated.controls import Controls
from lifeboat.engines.simulated.guest import Guest, Visit
from lifeboat.engines.simulated.state import MachineRecord, Model, Track
from lifeboat.engines.verbs import (
    Continue,
    Fence,
    Halt,
    Launch,
    LimitBandwidth,
    MakeIndependent,
    MoveElasticIP,
    PrunePoints,
    Register,
    ReleaseReplica,
    RemoveMachine,
    Restart,
    ResumeReplication,
    Shape,
    StartReplication,
    StopReplication,
    TakePoint,
    Unfence,
    Verb,
)

Act: TypeAlias = Verb | Ledger
ALL = Capabilities(
    application_consistent_points=True,
    delta_resync=True,
    bandwidth_limit=True,
    elastic_ips=True,
    planned_failover=True,
    reverse_replication=True,
)
# What needs the source zone alone; everything else needs the target zone.
OF_SOURCE = (Restart, Fence, Unfence, Register)


class World(Controls):
    """Two zones and what is in them, as an engine sees and changes them; tests use the controls as well.

    `performed` lists the verbs that took effect, `journal` those and the stored ledgers in one order, so that a test
    can say what must be on record before what.
    """

    def __init__(
        self,
        now: datetime,
        *,
        pair: Pair | None = None,
        capabilities: Capabilities = ALL,
        copy_rate: float = 100 << 20,
        boot_seconds: float = 5.0,
        shutdown_seconds: float = 2.0,
    ) -> None:
        super().__init__(
            pair or Pair("zone-a", "zone-b"),
            Model(now, capabilities, copy_rate, timedelta(seconds=boot_seconds), timedelta(seconds=shutdown_seconds)),
        )
        self.guest = Guest()
        self.performed: list[tuple[Target, Verb]] = []
        self.journal: list[tuple[Target, Act]] = []
        self._faults: list[tuple[type[Act], EngineError, bool]] = []

    @property
    def capabilities(self) -> Capabilities:
        """What this world's engine can do."""
        return self._model.capabilities

    def advance(self, by: timedelta) -> None:
        """Let time pass: copies, boots and clean-ups move on."""
        if by < timedelta():
            raise ValueError("time does not go backwards")
        model = self._model
        model.now += by
        power.progress(model)
        for track in list(model.moving):
            replication.progress(model, track)
            machines.progress(model, track)
            model.touch(track)
            if not track.moving():
                del model.moving[track]

    def observe(self, pair: Pair, server_ids: Collection[str]) -> PairFacts:
        """See the pair; a server of which nothing changed is the same object as before."""
        return view.pair_facts(self._model, pair, server_ids)

    def record(self, target: Target, ledger: Ledger) -> Ledger:
        """Store the successor of `ledger.version`; neither version nor term ever goes back."""
        track = self._home(target)
        stored = track.ledger or Ledger(target.server_id)
        if ledger.server_id != target.server_id:
            raise Refused(f"this is the ledger of {ledger.server_id}, not of {target.server_id}")
        late = self._fault(Ledger)
        if ledger.version != stored.version:
            raise LedgerConflict(f"version {stored.version} is stored, {ledger.version} was read")
        track.ledger = replace(ledger, version=stored.version + 1, term=target.term)
        self.journal.append((target, track.ledger))
        self._model.touch_ledger(track)
        if late is not None:
            raise late
        return track.ledger

    def perform(self, target: Target, verb: Verb) -> None:
        """Do what the verb says, or see that it is done already."""
        track = self._reach(target)
        late = self._fault(type(verb))
        _refuse_unable(self.capabilities, target.direction, verb)
        if not isinstance(verb, OF_SOURCE):
            track.target_zone.need_answer()
        self._do(track, verb)
        self.performed.append((target, verb))
        self.journal.append((target, verb))
        self._model.touch(track)
        if late is not None:
            raise late

    def _do(self, track: Track, verb: Verb) -> None:
        model = self._model
        match verb:
            case Restart():
                source.restart(model, track)
            case StartReplication():
                replication.start(model, track, verb)
            case ResumeReplication():
                replication.resume(model, track, verb)
            case LimitBandwidth():
                replication.limit(track, verb)
            case StopReplication():
                replication.stop(model, track, verb)
            case TakePoint():
                replication.take_point(model, track, verb)
            case PrunePoints():
                replication.prune(track, verb)
            case Fence():
                source.fence(model, track, verb)
            case Unfence():
                source.unfence(model, track)
            case Register():
                source.register(model, track, verb)
            case Launch():
                machines.launch(model, track, verb)
            case Halt():
                machines.halt(model, track, verb)
            case Continue():
                machines.go_on(track, verb)
            case MoveElasticIP():
                machines.move_elastic_ip(track, verb)
            case RemoveMachine():
                machines.remove(model, track, verb)
            case MakeIndependent():
                machines.make_independent(model, track, verb)
            case ReleaseReplica():
                replication.release(model, track)
            case _:
                assert_never(verb)

    def visit(self, target: Target, machine: str) -> tuple[Visit, MachineRecord]:
        """A machine as a program in it sees itself, for a hand that may still act."""
        track = self._reach(target)
        track.target_zone.need_answer()
        found = track.machine(machine)
        return Visit(target.server_id, machine, found.shape, found.disks.held), found

    def run_once(self, target: Target, key: str, run: Callable[[], ScriptOutcome]) -> ScriptOutcome:
        """The outcome of the script run of that key, from memory where it ran before."""
        scripts = self._reach(target).scripts
        if key not in scripts:
            scripts[key] = run()
        return scripts[key]

    def fail_next(self, act: type[Act], error: EngineError, *, after_effect: bool = False) -> None:
        """Let the next verb of this type (or the next `Ledger` that is recorded) fail, before or after its effect."""
        self._faults.append((act, error, after_effect))

    def _home(self, target: Target) -> Track:
        """The record that has the ledger, once the recovery zone answers and no later leader has written there."""
        home = self._model.track(target.pair.primary_zone, target.pair.recovery_zone, target.server_id)
        home.target_zone.need_answer()
        if home.ledger is not None and home.ledger.term > target.term:
            raise StaleTerm(home.ledger.term)
        return home

    def _reach(self, target: Target) -> Track:
        """The record of the direction that a hand acts in, once it may."""
        home = self._home(target)
        if target.direction is Direction.FORWARD:
            return home
        return self._model.track(home.target_zone.name, home.source_zone.name, target.server_id)

    def _fault(self, act: type[Act]) -> EngineError | None:
        """Raise a fault that was asked for before the effect; return one that is due after it."""
        for index, (kind, error, after) in enumerate(self._faults):
            if kind is act:
                del self._faults[index]
                if after:
                    return error
                raise error
        return None


def _refuse_unable(able: Capabilities, direction: Direction, verb: Verb) -> None:
    """Refuse what the engine cannot do, instead of ignoring that part of the verb."""
    if direction is Direction.REVERSE and not able.reverse_replication:
        raise Refused("this engine does not replicate back")
    match verb:
        case Register() | StartReplication(onto_original=True) if not able.reverse_replication:
            raise Refused("this engine does not replicate back")
        case Fence(orderly=True) if not able.planned_failover:
            raise Refused("this engine does not stop a source in order")
        case TakePoint(application_consistent=True) if not able.application_consistent_points:
            raise Refused("this engine takes no application-consistent points")
        case ResumeReplication() if not able.delta_resync:
            raise Refused("this engine cannot copy only what changed")
        case StartReplication(bandwidth_limit=int()) | LimitBandwidth(bandwidth_limit=int()) if (
            not able.bandwidth_limit
        ):
            raise Refused("this engine cannot limit a copy's bandwidth")
        case Launch(shape=Shape(elastic_ip=str())) | MoveElasticIP(elastic_ip=str()) if not able.elastic_ips:
            raise Refused("this engine has no elastic IPs")
        case _:
            pass
