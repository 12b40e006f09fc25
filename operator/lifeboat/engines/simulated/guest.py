"""What runs inside simulated machines: replaceable functions, so that a test decides how a guest behaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from lifeboat.engines.contract import ExecResult
from lifeboat.engines.ledger import ScriptOutcome
from lifeboat.engines.verbs import Shape


@dataclass(frozen=True, slots=True)
class Visit:
    """The machine that a program runs in; `contents` is the last write on its disks."""

    server_id: str
    machine: str
    shape: Shape
    contents: int


Run: TypeAlias = Callable[[Visit, tuple[str, ...]], ExecResult]
RunScript: TypeAlias = Callable[[Visit, str], ScriptOutcome]


def run(visit: Visit, argv: tuple[str, ...]) -> ExecResult:
    """Answer as a small Linux would where it matters, and succeed otherwise."""
    match argv:
        case ("nproc",):
            return ExecResult(0, f"{visit.shape.cpu}\n")
        case ("grep", "MemTotal:", "/proc/meminfo"):
            return ExecResult(0, f"MemTotal: {visit.shape.memory_bytes >> 10} kB\n")
        case ("false",):
            return ExecResult(1, "")
        case _:
            return ExecResult(0, "")


def run_script(visit: Visit, content: str) -> ScriptOutcome:  # noqa: ARG001 - the default looks at nothing
    """Let every script succeed."""
    return ScriptOutcome(0)


@dataclass(slots=True)
class Guest:
    """How guests behave. They listen on `listening`; `ports` maps machine and port to where a test listens instead."""

    run: Run = run
    run_script: RunScript = run_script
    ports: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict)
    listening: frozenset[int] = frozenset({22, 80, 5432})
