"""One server's way down the road: look, decide, act, look again, until nothing is left to do; then report.

A round writes the ledger or acts, never both: what is written is seen again before anything is done about it. What an
act ends in, an error included, is part of the next view.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from lifeboat import kube
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair
from lifeboat.engines import verbs
from lifeboat.engines.contract import Engine, EngineError, LedgerConflict, StaleTerm, Target, Underway
from lifeboat.engines.facts import Known, MachineState, Unknown
from lifeboat.engines.ledger import Direction, Ledger
from lifeboat.leader import NotLeader
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.decide import decide
from lifeboat.lifecycle.report import report
from lifeboat.lifecycle.report.events import mended
from lifeboat.lifecycle.view import (
    DRILL,
    FAILOVER,
    Action,
    DropFinalizer,
    KeepFinalizer,
    Notice,
    Plan,
    Subject,
    Verify,
    View,
    subject_of,
)
from lifeboat.logs import about
from lifeboat.reconcile import certainty, moving
from lifeboat.reconcile.looks import Look, look, pair_of
from lifeboat.reconcile.pace import Pace
from lifeboat.reconcile.rest import Rest, rest_of
from lifeboat.reconcile.tools import Tools
from lifeboat.verification import scripts
from lifeboat.verification.verifier import Job
from lifeboat.world import Key

MAX_ROUNDS: Final = 20
VERB_SECONDS: Final = 30.0
FENCE_SECONDS: Final = 3.0
RECORD_SECONDS: Final = 10.0
TELL_SECONDS: Final = 0.3
"""What a pass that takes longer than this has to say is written before its end."""
UNHEARD_SECONDS: Final = 1.0  # how soon what could not be written is written again
RECORD: Final = "record"

_log = logging.getLogger(__name__)


class ServerRounds:
    """The passes over one protected server, one at a time. `again_in` says when the next is due, if before a poll."""

    def __init__(self, key: Key, tools: Tools, engine: Engine, wake: Callable[[], None]) -> None:
        self._key = key
        self._tools = tools
        self._engine = engine
        self._wake = wake
        self._pace = Pace(elapsed=tools.elapsed)
        self._complained: set[str] = set()
        self._acted = 0.0
        self._changed = tools.elapsed()
        self._rest: Rest | None = None
        self._mute = False
        self.again_in: float | None = None

    def rests(self, pair: SitePair, seen: Look) -> bool:
        """Whether nothing has changed since the last pass left nothing to do, so that another one would do nothing."""
        rest = self._rest
        return (
            rest is not None
            and self._tools.elapsed() < rest.until
            and seen.asked > self._acted
            and rest.holds(
                self._tools.world, pair, seen.sites, seen.facts.servers, self._tools.verifier.snapshots(self._key)
            )
        )

    async def run(self, pair: SitePair, seen: Look) -> None:
        """Bring the server as far as it goes now. Never raises but for cancellation."""
        self.again_in = None
        self._rest = None
        with self._tools.metrics.reconcile.time():
            try:
                await self._run(pair, seen)
            except NotLeader:
                pass
            except kube.KubeError as error:
                self._unheard(error)
            except Exception as error:  # noqa: BLE001 - one server's fault must never end the loop that all others need
                self._complain("the pass", error)
                self.again_in = 1.0
            else:
                self._mute = False

    async def _run(self, pair: SitePair, seen: Look) -> None:
        told = self._tools.elapsed()
        for number in range(1, MAX_ROUNDS + 1):
            if seen.asked <= self._acted:
                server = self._server()
                if server is None:
                    return
                seen = await look(self._tools, self._engine, pair, (server.spec.server_id,))
            view = await self._view(pair, seen)
            if view is None:
                return
            plan = self._decide(view)
            if self._tools.elapsed() - told > TELL_SECONDS:
                try:
                    await self._report(view, plan)
                except kube.KubeError as error:
                    # What is to be done is done all the same.
                    self._unheard(error)
                told = self._tools.elapsed()
            if await self._carry_out(view, plan):
                self._changed = self._tools.elapsed()
                if number < MAX_ROUNDS:
                    continue
                about(_log, *self._key).warning("it did not come to rest in %d rounds", MAX_ROUNDS)
            elif plan.ledger is None:
                self._pace.settle(plan.actions)
            view = replace(view, troubles=self._pace.troubles())
            self._when_again(view, plan)
            await self._report(view, plan)
            self._take_rest(view, plan, seen)
            return

    # --- view

    def _server(self) -> ProtectedServer | None:
        return self._tools.world.get(ProtectedServer, self._key.namespace, self._key.name)

    async def _view(self, pair: SitePair, seen: Look) -> View | None:
        world, server = self._tools.world, self._server()
        if server is None or (facts := seen.facts.servers.get(server.spec.server_id)) is None:
            return None
        pair = world.get(SitePair, pair.metadata.namespace, pair.metadata.name) or pair
        drills, failovers = world.drills(server), world.failovers(server)
        ledger = facts.ledger.value if isinstance(facts.ledger, Known) else None
        machines = facts.way(ledger.direction).machines if ledger is not None else Unknown("")
        if isinstance(machines, Known):
            running = {name for name, each in machines.value.items() if each.state is MachineState.RUNNING}
            self._tools.verifier.keep_only(self._key, running)
        return View(
            now=self._tools.now(),
            term=self._tools.leader.term(),
            pair=pair,
            server=server,
            drills=drills,
            failovers=failovers,
            rivals=world.rivals(server, pair),
            primary=seen.facts.primary,
            recovery=seen.facts.recovery,
            facts=facts,
            capabilities=self._engine.capabilities,
            verifications=self._tools.verifier.snapshots(self._key),
            scripts=await self._scripts(drills, failovers, ledger),
            troubles=self._pace.troubles(),
        )

    async def _scripts(
        self, drills: tuple[Drill, ...], failovers: tuple[Failover, ...], ledger: Ledger | None
    ) -> dict[Subject, Notice | None]:
        """Whether the scripts of those that have not begun can be read; the others have been asked."""
        found: dict[Subject, Notice | None] = {}
        for kind, objects in ((DRILL, drills), (FAILOVER, failovers)):
            for each in objects:
                name = each.metadata.name
                if each.spec.instance.post_script is None or ledger is None or ledger.ended(kind, name):
                    continue
                if ledger.drill(name) if kind == DRILL else ledger.failover and ledger.failover.name == name:
                    continue
                found[subject_of(kind, each.metadata)] = await self._tools.readability.problem(
                    each.metadata.namespace, each.spec.instance.post_script
                )
        return found

    # --- decide

    def _decide(self, view: View) -> Plan:
        try:
            return decide(view)
        except Exception as error:  # noqa: BLE001 - told on the object, and tried again at the next look
            self._complain("the decision", error)
            message = f"nothing can be decided ({type(error).__name__}), see the operator's log"
            return Plan(None, (), {view.subject: Notice(reasons.ENGINE_ERROR, message)})

    # --- act

    async def _carry_out(self, view: View, plan: Plan) -> bool:
        """Do what the plan says; whether anything may be different now."""
        changed = False
        held_up: set[Subject] = set()
        for action in plan.actions:
            if action.subject in held_up:
                continue
            match action.step:
                case KeepFinalizer() | DropFinalizer():
                    done = await self._finalizer(action)
                    if done is None:
                        # Nothing may be started that an object without its finalizer would leave behind.
                        held_up.add(action.subject)
                    changed = bool(done) or changed
                case Verify() as step:
                    self._verify(view, action.subject, step)
                case verb:
                    changed = await self._perform(view, action, verb) or changed
        if plan.ledger is not None and view.subject not in held_up:
            changed = await self._record(view, plan.ledger) or changed
        return changed

    async def _finalizer(self, action: Action) -> bool | None:
        """Keep or drop a finalizer: whether anything changed, None where it could not be done."""
        if not self._pace.may(action.subject, action.step):
            return None
        key = Key(action.subject.kind, self._key.namespace, action.subject.name)
        writer = self._tools.writer
        change = writer.keep_finalizer if isinstance(action.step, KeepFinalizer) else writer.drop_finalizer
        try:
            changed = await change(key)
        except kube.KubeError as error:
            about(_log, *key).warning("the finalizer could not be written: %s", error)
            self._pace.tried(action.subject, action.step, EngineError(f"the finalizer cannot be written: {error}"))
            return None
        self._pace.forget(action.subject, action.step)
        return changed

    async def _record(self, view: View, ledger: Ledger) -> bool:
        if not self._pace.may(view.subject, RECORD):
            return False
        name = certainty.beginning(view, ledger)
        if name is not None and not await certainty.still_asked(self._tools, self._key.namespace, name):
            return True
        failed: Exception | None = None
        try:
            async with self._tools.calls, asyncio.timeout(RECORD_SECONDS):
                await self._engine.record(self._target(view), ledger)
        except LedgerConflict:
            about(_log, *self._key).info("the ledger was written by somebody else; looking again")
        except StaleTerm as error:
            self._let_go(error)
        except (EngineError, TimeoutError) as error:
            failed = error
        finally:
            self._acted = self._tools.elapsed()
        if failed is not None:
            self._tools.metrics.engine_failed(self._engine.name, "Record", failed)
            self._pace.tried(view.subject, RECORD, failed)
            return False
        self._pace.forget(view.subject, RECORD)
        return True

    async def _perform(self, view: View, action: Action, verb: verbs.Verb) -> bool:
        if not self._pace.may(action.subject, verb):
            return False
        log, name = about(_log, *self._key), type(verb).__name__
        seconds = FENCE_SECONDS if isinstance(verb, verbs.Fence) else VERB_SECONDS
        failed: Exception | None = None
        target = self._target(view, action.direction)
        try:
            async with self._tools.calls, asyncio.timeout(seconds):
                await self._engine.perform(target, verb)
        except StaleTerm as error:
            self._let_go(error)
        except (EngineError, TimeoutError) as error:
            failed = error
        except Exception as error:  # noqa: BLE001 - an engine's fault is told on the object, and tried again
            self._complain(name, error)
            failed = error
        finally:
            self._acted = self._tools.elapsed()
        trouble = self._pace.tried(action.subject, verb, failed)
        if failed is not None:
            if isinstance(failed, Underway):
                return False
            self._tools.metrics.engine_failed(self._engine.name, name, failed)
            if self._news(f"{action.subject}{name}{trouble}"):
                log.warning("%s failed: %s", name, failed, fields={"operation": name, "for": action.subject.name})
            return False
        log.info("%s", verb, fields={"operation": name, "for": action.subject.name})
        if (event := mended(view, action)) is not None:
            self._tools.writer.event(Key(action.subject.kind, self._key.namespace, action.subject.name), event)
        return True

    def _verify(self, view: View, subject: Subject, step: Verify) -> None:
        launched, owner = moving.launched_at(view, subject, step.machine), self._owner(subject)
        script = owner.spec.instance.post_script if owner is not None else None

        async def content() -> scripts.Content:
            assert script is not None  # noqa: S101 - it is given only where there is one
            return await scripts.fetch(self._tools.kube, self._key.namespace, script)

        job = Job(
            machine=step.machine,
            engine=self._engine,
            target=lambda: self._target(view, view.direction),
            launched_at=launched or view.now,
            checks=step.checks,
            script=content if step.run_script and script is not None else None,
        )
        self._tools.verifier.start(self._key, job, self._wake)

    def _owner(self, subject: Subject) -> Drill | Failover | None:
        world = self._tools.world
        if subject.kind == DRILL:
            return world.get(Drill, self._key.namespace, subject.name)
        return world.get(Failover, self._key.namespace, subject.name)

    def _target(self, view: View, direction: Direction = Direction.FORWARD) -> Target:
        """The server, in the term that holds at this instant: asked before every act."""
        return Target(pair_of(view.pair), view.server.spec.server_id, self._tools.leader.term(), direction)

    def _let_go(self, error: StaleTerm) -> None:
        about(_log, *self._key).warning("%s", error)
        self._tools.leader.told(error.term)
        raise NotLeader(str(error)) from error

    # --- report

    async def _report(self, view: View, plan: Plan) -> None:
        said = report(view, plan)
        metrics = self._tools.metrics
        for subject, status in said.statuses.items():
            key = Key(subject.kind, self._key.namespace, subject.name)
            if subject == view.subject:
                metrics.server(key, view, status)
            else:
                metrics.recovery(key, view.subject.name, status)
        await self._tools.writer.publish(self._key.namespace, said)

    def _when_again(self, view: View, plan: Plan) -> None:
        """Look again soon while something moves; slower once it has not moved for a while."""
        settings = self._tools.settings
        waits = [wait] if (wait := self._pace.next_in(plan.actions)) is not None else []
        if moving.is_moving(view):
            still = timedelta(seconds=self._tools.elapsed() - self._changed)
            often = still < moving.PATIENCE and not moving.is_verified_only(view)
            waits.append(settings.poll_moving if often else settings.poll)
        if plan.ledger is not None:
            waits.append(settings.poll_moving)
        if waits:
            self.again_in = max(settings.poll_moving, min(waits))

    def _take_rest(self, view: View, plan: Plan, seen: Look) -> None:
        world, rest = self._tools.world, rest_of(view, plan)
        body = world.body(self._key)
        if rest and body is not None:
            # Spread, so that thousands that were made at once are not gone through again at once.
            seconds = rest.total_seconds() * random.uniform(0.5, 1)  # noqa: S311 - nothing secret
            self._rest = Rest.after(view, body, seen.sites, self._tools.elapsed() + seconds)

    # --- complaints

    def _unheard(self, error: kube.KubeError) -> None:
        """Complain once that nothing can be written, until something can; and try again soon."""
        self.again_in = min(UNHEARD_SECONDS, self.again_in or UNHEARD_SECONDS)
        if not self._mute:
            about(_log, *self._key).warning("the status could not be written: %s", error)
        self._mute = True

    def _news(self, mark: str) -> bool:
        """Whether this was not said before; what is said all the time is not heard."""
        if mark in self._complained:
            return False
        if len(self._complained) > 100:
            self._complained.clear()
        self._complained.add(mark)
        return True

    def _complain(self, what: str, error: Exception) -> None:
        if self._news(f"{what} {type(error).__name__} {error}"):
            about(_log, *self._key).error("%s broke: %s", what, error, exc_info=error)
