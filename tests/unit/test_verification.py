"""Script and checks against simulated machines: once, until they pass or are late, and ended with the machine."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from lifeboat.api.common import Check
from lifeboat.engines.contract import ExecResult, Pair, Refused, Retry, StaleTerm, Target
from lifeboat.engines.ledger import ScriptOutcome
from lifeboat.leader import NotLeader
from lifeboat.lifecycle.view import Verification
from lifeboat.verification.scripts import Content, ScriptProblem
from lifeboat.verification.verifier import Job, Verifier

TARGET = Target(Pair("a", "b"), "web", 1)


class Machine:
    """An engine as far as a verification sees it."""

    name = "fake"

    def __init__(self) -> None:
        self.port = 0
        self.answers: list[ExecResult | Exception] = []
        self.scripts: list[ScriptOutcome | Exception] = [ScriptOutcome(0, "done")]
        self.ran: list[str] = []

    async def route(self, target: Target, machine: str, port: int) -> tuple[str, int]:  # noqa: ARG002 - as the contract
        return "127.0.0.1", self.port

    async def execute(self, target: Target, machine: str, argv: object, seconds: float) -> ExecResult:  # noqa: ARG002 - as the contract
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def run_script(self, target: Target, machine: str, script: object, seconds: float) -> ScriptOutcome:  # noqa: ARG002 - as the contract
        self.ran.append(machine)
        outcome = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
async def verifier() -> AsyncIterator[Verifier]:
    made = Verifier()
    yield made
    await made.close()


@pytest.fixture
async def site(machine: Machine) -> AsyncIterator[Machine]:
    """A machine that serves: `/` well, `/away` elsewhere, `/long` without end."""

    async def root(_: web.Request) -> web.Response:
        return web.Response(text="welcome")

    async def away(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})

    async def long(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(64):
            await answer.write(b"x" * 64 * 1024)
        await answer.write(b"the end")
        return answer

    app = web.Application()
    app.add_routes([web.get("/", root), web.get("/away", away), web.get("/long", long)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    machine.port = runner.addresses[0][1]
    yield machine
    await runner.cleanup()


def check(name: str, seconds: int = 1, **how: object) -> Check:
    return Check.model_validate({"name": name, "timeoutSeconds": seconds, **how})


def job(
    machine: Machine,
    *checks: Check,
    script: Content | ScriptProblem | None = None,
    target: Callable[[], Target] = lambda: TARGET,
) -> Job:
    async def content() -> Content:
        assert script is not None
        if isinstance(script, ScriptProblem):
            raise script
        return script

    return Job("m", machine, target, datetime.now(UTC), checks, content if script is not None else None)  # type: ignore[arg-type]


async def proved(verifier: Verifier, what: Job) -> Verification:
    done = asyncio.Event()
    assert verifier.start("web", what, done.set)
    async with asyncio.timeout(10):
        while not (found := verifier.snapshots("web")["m"]).done:
            done.clear()
            await done.wait()
    return found


async def test_checks_of_all_sorts_pass(verifier: Verifier, site: Machine) -> None:
    site.answers = [Retry("the client is silent"), ExecResult(1, "not yet"), ExecResult(0, "")]
    found = await proved(
        verifier,
        job(
            site,
            check("http", httpGet={"port": 80, "contains": "welcome"}),
            check("away", httpGet={"port": 80, "path": "/away"}),
            check("tcp", tcpSocket={"port": 80}),
            check("exec", seconds=5, exec={"command": ["true"]}),
        ),
    )
    assert {each.name: each.passed for each in found.checks} == dict.fromkeys(("http", "away", "tcp", "exec"), True)
    assert found.ready_at is not None


async def test_what_fails_says_what_was_seen(verifier: Verifier, site: Machine) -> None:
    site.answers = [ExecResult(3, "broken pipe")]
    found = await proved(
        verifier,
        job(
            site,
            check("status", httpGet={"port": 80, "path": "/nothing"}),
            check("text", httpGet={"port": 80, "contains": "goodbye"}),
            check("long", httpGet={"port": 80, "path": "/long", "contains": "the end"}),
            check("exec", exec={"command": ["x"]}),
        ),
    )
    said = {each.name: each.message for each in found.checks}
    assert not any(each.passed for each in found.checks)
    assert "HTTP 404" in said["status"]
    assert "without the expected text" in said["text"]
    assert "without the expected text" in said["long"], "only the first 64 KiB are read"
    assert "exit code 3: broken pipe" in said["exec"]
    assert found.ready_at is None


async def test_a_check_that_is_late_already_is_tried_once(verifier: Verifier, site: Machine) -> None:
    late = job(site, check("http", httpGet={"port": 80}))
    found = await proved(
        verifier, Job(late.machine, late.engine, late.target, datetime(2020, 1, 1, tzinfo=UTC), late.checks)
    )
    assert found.checks[0].passed


async def test_the_script_waits_for_the_client_and_runs_once(verifier: Verifier, machine: Machine) -> None:
    machine.scripts = [Retry("the client is silent"), Retry("the client is silent"), ScriptOutcome(0, "hello")]
    found = await proved(verifier, job(machine, script=Content("echo hello")))
    assert found.script == ScriptOutcome(0, "hello")
    assert found.ready_at is not None
    assert not verifier.start("web", job(machine, script=Content("echo hello")), lambda: None)
    assert len(machine.ran) == 3


async def test_a_long_script_is_not_called_failed_for_one_slow_answer(machine: Machine) -> None:
    time = datetime.now(UTC)

    def lasts(seconds: float, outcome: ScriptOutcome | Exception) -> Callable[[], ScriptOutcome | Exception]:
        def pass_by() -> ScriptOutcome | Exception:
            nonlocal time
            time += timedelta(seconds=seconds)
            return outcome

        return pass_by

    runs = [lasts(400, Retry("slow")), lasts(5, Retry("slow")), lasts(30, ScriptOutcome(0, "done"))]

    async def run_script(*_: object) -> ScriptOutcome:
        outcome = runs.pop(0)()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    machine.run_script = run_script  # type: ignore[method-assign, assignment]
    verifier = Verifier(now=lambda: time)
    found = await proved(verifier, job(machine, script=Content("sleep 430")))
    assert found.script == ScriptOutcome(0, "done")
    assert not runs
    await verifier.close()


async def test_a_client_that_never_answers_fails_the_script_in_the_end(machine: Machine) -> None:
    time = datetime.now(UTC)

    async def run_script(*_: object) -> ScriptOutcome:
        nonlocal time
        time += timedelta(seconds=10)
        raise Retry("the client is silent")

    machine.run_script = run_script  # type: ignore[method-assign, assignment]
    verifier = Verifier(now=lambda: time)
    what = job(machine, script=Content("x"))
    late = Job(what.machine, what.engine, what.target, time - timedelta(seconds=400), what.checks, what.script)
    found = await proved(verifier, late)
    assert found.script is not None
    assert found.script.exit_code is None
    assert "the client is silent" in found.script.output
    await verifier.close()


async def test_a_secret_script_keeps_its_output_to_itself(verifier: Verifier, machine: Machine) -> None:
    found = await proved(verifier, job(machine, script=Content("echo password", secret=True)))
    assert found.script == ScriptOutcome(0, "")


async def test_a_script_that_cannot_be_had_or_run_fails_with_its_reason(verifier: Verifier, machine: Machine) -> None:
    found = await proved(verifier, job(machine, script=ScriptProblem("ConfigMap gone")))
    assert found.script == ScriptOutcome(None, "ConfigMap gone")
    verifier.keep_only("web", ())
    machine.scripts = [Refused("no shell in this guest")]
    found = await proved(verifier, job(machine, script=Content("x")))
    assert found.script == ScriptOutcome(None, "no shell in this guest")
    assert found.ready_at is None


@pytest.mark.parametrize("error", [NotLeader("lost"), StaleTerm(2)])
async def test_without_the_lease_nothing_is_found(verifier: Verifier, machine: Machine, error: Exception) -> None:
    def lost() -> Target:
        raise error

    gone = asyncio.Event()
    verifier.start("web", job(machine, check("exec", exec={"command": ["x"]}), target=lost), gone.set)
    async with asyncio.timeout(5):
        await gone.wait()
    assert not verifier.snapshots("web"), "it is started anew by whoever leads"


async def test_it_ends_with_its_machine(verifier: Verifier, machine: Machine) -> None:
    machine.answers = [ExecResult(1, "")]
    verifier.start("web", job(machine, check("never", seconds=60, exec={"command": ["x"]})), lambda: None)
    await asyncio.sleep(0.05)
    verifier.keep_only("web", {"m"})
    assert verifier.snapshots("web")
    verifier.keep_only("web", ())
    assert not verifier.snapshots("web")
