"""Proves started machines in the background: the script once, then all checks, each until it passes or is late.

What was found is a snapshot that the next look at the server takes in. Nothing is kept here that matters: after a
restart of the operator the script's outcome is told again by the engine, and the checks are tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import aiohttp

from lifeboat import clock
from lifeboat.api.common import Check
from lifeboat.engines.contract import Engine, EngineError, ExecResult, Retry, Script, StaleTerm, Target
from lifeboat.engines.ledger import CheckOutcome, ScriptOutcome
from lifeboat.leader import NotLeader
from lifeboat.lifecycle.view import Verification
from lifeboat.verification import probes
from lifeboat.verification.scripts import Content, ScriptProblem

RETRY_SECONDS: Final = 0.25
BOOT_SECONDS: Final = 300.0
"""How long a machine's client may take until it answers."""
SILENCE_SECONDS: Final = 60.0
"""How long a client may be silent that has answered before, or in whose machine the script may be under way already."""
ANSWERED_SECONDS: Final = 15.0
"""What takes longer than this was answered at first: the script was begun, and only its end is not known."""
SCRIPT_SECONDS: Final = 600.0
"""How long the script itself may take."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """What to prove about one machine. `target` gives the term anew at each step: it ends when the lease does.

    `script` fetches the script's content when it is time to run it, None where none has to run.
    """

    machine: str
    engine: Engine
    target: Callable[[], Target]
    launched_at: datetime
    checks: tuple[Check, ...]
    script: Callable[[], Awaitable[Content]] | None = None


@dataclass(slots=True)
class _Running:
    task: asyncio.Task[None]
    found: Verification = field(default_factory=lambda: Verification(done=False))


class Verifier:
    """The verifications that are under way or done, by server and machine; an async context that owns their tasks."""

    def __init__(self, *, now: Callable[[], datetime] = clock.now) -> None:
        self._now = now
        self._running: dict[object, dict[str, _Running]] = {}
        self._http: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """End all verifications."""
        tasks = [running.task for machines in self._running.values() for running in machines.values()]
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()
            self._http = None

    def start(self, server: object, job: Job, wake: Callable[[], None]) -> bool:
        """Start to prove a machine, unless that is under way or done; `wake` is called at each news."""
        machines = self._running.setdefault(server, {})
        if job.machine in machines:
            return False
        task = asyncio.create_task(self._prove(server, job, wake), name=f"verify {job.machine}")
        machines[job.machine] = _Running(task)
        return True

    def snapshots(self, server: object) -> Mapping[str, Verification]:
        """How far the verifications of a server are, by machine."""
        return {machine: each.found for machine, each in self._running.get(server, {}).items()}

    def keep_only(self, server: object, machines: Collection[str]) -> None:
        """End and forget the verifications of machines that do not run any more."""
        for machine in self._running.get(server, {}).keys() - set(machines):
            self._forget(server, machine).task.cancel()

    def _forget(self, server: object, machine: str) -> _Running:
        machines = self._running[server]
        forgotten = machines.pop(machine)
        if not machines:
            del self._running[server]
        return forgotten

    async def _prove(self, server: object, job: Job, wake: Callable[[], None]) -> None:
        try:
            script = await self._script(job) if job.script is not None else None
            self._tell(server, job, replace(self._found(server, job), script=script))
            if script is not None:
                wake()
            outcomes = await self._checks(job)
        except Exception as error:  # noqa: BLE001 - a fault of ours in the background must be seen, as a failed check
            if _let_go(error):
                # What could not be proved without the lease is no finding: it is started anew, here or elsewhere.
                if job.machine in self._running.get(server, {}):
                    self._forget(server, job.machine)
                wake()
                return
            _log.exception("the verification of %s broke", job.machine)
            broke = "it broke in the operator, see its log"
            outcomes = tuple(CheckOutcome(check.name, passed=False, message=broke) for check in job.checks)
            script = self._found(server, job).script or (ScriptOutcome(None, broke) if job.script else None)
        passed = all(outcome.passed for outcome in outcomes) and (script is None or script.exit_code == 0)
        done = Verification(done=True, script=script, checks=outcomes, ready_at=self._now() if passed else None)
        self._tell(server, job, done)
        wake()

    def _found(self, server: object, job: Job) -> Verification:
        running = self._running.get(server, {}).get(job.machine)
        return running.found if running is not None else Verification(done=False)

    def _tell(self, server: object, job: Job, found: Verification) -> None:
        if (running := self._running.get(server, {}).get(job.machine)) is not None:
            running.found = found

    async def _script(self, job: Job) -> ScriptOutcome:
        """Run the script once, as soon as the machine's client answers."""
        assert job.script is not None  # noqa: S101 - the caller has looked
        silence = timedelta(seconds=SILENCE_SECONDS)
        begins = self._now()
        gives_up = max(job.launched_at + timedelta(seconds=BOOT_SECONDS), begins + silence)
        last = gives_up + timedelta(seconds=SCRIPT_SECONDS)
        problem = ""
        while (tried := self._now()) < min(gives_up, last):
            try:
                content = await job.script()
                script = Script(key=f"script-{job.machine}", content=content.text)
                async with asyncio.timeout(SCRIPT_SECONDS + 10):
                    outcome = await job.engine.run_script(job.target(), job.machine, script, SCRIPT_SECONDS)
            except (Retry, TimeoutError) as error:
                problem = str(error) or "the machine's client did not answer in time"
                if self._now() - tried > timedelta(seconds=ANSWERED_SECONDS):
                    gives_up = max(gives_up, self._now() + silence)
            except ScriptProblem as error:
                if not error.waits:
                    return ScriptOutcome(None, str(error))
                problem = str(error)
            except StaleTerm:
                raise
            except EngineError as error:
                return ScriptOutcome(None, str(error)[-1024:])
            else:
                return replace(outcome, output="") if content.secret else outcome
            await asyncio.sleep(RETRY_SECONDS)
        waited = (self._now() - job.launched_at).total_seconds()
        return ScriptOutcome(None, f"it has not ended {waited:.0f} s after the start: {problem}"[:1024])

    async def _checks(self, job: Job) -> tuple[CheckOutcome, ...]:
        if not job.checks:
            return ()
        if self._http is None:
            self._http = probes.session()
        http = self._http
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._check(job, each, http), name=f"check {each.name}") for each in job.checks]
        return tuple(task.result() for task in tasks)

    async def _check(self, job: Job, check: Check, http: aiohttp.ClientSession) -> CheckOutcome:
        """Try a check until it passes or its time from the machine's start is over, but once at least."""
        ends = job.launched_at + timedelta(seconds=check.timeout_seconds)

        async def route(port: int) -> tuple[str, int]:
            return await job.engine.route(job.target(), job.machine, port)

        async def execute(argv: Collection[str], seconds: float) -> ExecResult:
            return await job.engine.execute(job.target(), job.machine, argv, seconds)

        while True:
            passed, message = await probes.try_check(check, http, route, execute)
            if passed:
                return CheckOutcome(check.name, passed=True, message=message[:1024])
            if self._now() >= ends:
                late = f"{message} (tried for {check.timeout_seconds} s)"
                return CheckOutcome(check.name, passed=False, message=late[:1024])
            await asyncio.sleep(RETRY_SECONDS)


def _let_go(error: Exception) -> bool:
    """Whether it ended because this process may not act, or may not any more."""
    if isinstance(error, ExceptionGroup):
        return any(_let_go(each) for each in error.exceptions)
    return isinstance(error, NotLeader | StaleTerm)
