"""The engine over the simulated world: what the operator's tests hand in where a real one would be."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from lifeboat.engines.contract import Capabilities, ExecResult, Pair, Retry, Script, Target
from lifeboat.engines.facts import MachineState, PairFacts
from lifeboat.engines.ledger import Ledger, ScriptOutcome
from lifeboat.engines.simulated.guest import Visit
from lifeboat.engines.simulated.world import World
from lifeboat.engines.verbs import Verb


class SimulatedEngine:
    """A world as an engine. The world is brought to the clock's time before each call.

    With a clock that returns the world's own time, time passes only where a test says so.
    """

    def __init__(self, world: World, clock: Callable[[], datetime]) -> None:
        self._world = world
        self._clock = clock

    @property
    def name(self) -> str:
        """No manifest can say this name: the engine is handed in."""
        return "simulated"

    @property
    def capabilities(self) -> Capabilities:
        """What the world was made to do."""
        return self._world.capabilities

    async def observe(self, pair: Pair, server_ids: Collection[str]) -> PairFacts:
        """See the world as it is at the clock's time."""
        return self._current().observe(pair, server_ids)

    async def record(self, target: Target, ledger: Ledger) -> Ledger:
        """Store a ledger in the world."""
        return self._current().record(target, ledger)

    async def perform(self, target: Target, verb: Verb) -> None:
        """Do what the verb says to the world."""
        self._current().perform(target, verb)

    async def route(self, target: Target, machine: str, port: int) -> tuple[str, int]:
        """Where a test listens for this port of the machine, or a loopback port that the guest says it listens on."""
        self._visit(target, machine)
        guest = self._world.guest
        if port not in guest.listening and (machine, port) not in guest.ports:
            raise Retry(f"port {port} accepts no connections")
        return guest.ports.get((machine, port), ("127.0.0.1", port))

    async def execute(self, target: Target, machine: str, argv: Collection[str], seconds: float) -> ExecResult:  # noqa: ARG002 - a simulated program takes no time
        """Ask the world's guest how the program ends."""
        return self._world.guest.run(self._visit(target, machine, agent=True), tuple(argv))

    async def run_script(self, target: Target, machine: str, script: Script, seconds: float) -> ScriptOutcome:  # noqa: ARG002 - a simulated script takes no time
        """Ask the world's guest how the script ends, once for each key."""
        visit = self._visit(target, machine, agent=True)
        return self._world.run_once(target, script.key, lambda: self._world.guest.run_script(visit, script.content))

    async def close(self) -> None:
        """There is nothing to let go of."""

    def _current(self) -> World:
        if (elapsed := self._clock() - self._world.now) > timedelta():
            self._world.advance(elapsed)
        return self._world

    def _visit(self, target: Target, machine: str, *, agent: bool = False) -> Visit:
        visit, found = self._current().visit(target, machine)
        if found.state is not MachineState.RUNNING:
            raise Retry(f"{machine} does not run")
        if agent and not found.agent:
            raise Retry(f"the client in {machine} does not answer")
        return visit
