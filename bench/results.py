"""What a measurement yields: figures beside a baseline of the same run, and what there is to draw of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

Of: TypeAlias = Literal["ratio", "difference", "value"]


@dataclass(frozen=True, slots=True)
class Target:
    """What is aimed at: a limit of the value, of its ratio to the baseline, or of what it is more than that."""

    limit: float
    of: Of = "ratio"
    at_least: bool = False

    def told(self, unit: str) -> str:
        """The target as people write it."""
        sign = "≥" if self.at_least else "≤"
        match self.of:
            case "ratio":
                return f"{sign} {self.limit:g} times"
            case "difference":
                return f"{sign} {self.limit:g} {unit} more"
            case "value":
                return f"{sign} {self.limit:g} {unit}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured. `against` says what its baseline is, `targets` what is aimed at."""

    what: str
    value: float
    unit: str
    baseline: float | None = None
    against: str = ""
    targets: tuple[Target, ...] = ()

    @property
    def ratio(self) -> float | None:
        """The value in units of its baseline, None where there is none."""
        return self.value / self.baseline if self.baseline else None

    def reached(self, target: Target) -> bool:
        """Whether the target is met."""
        match target.of:
            case "value":
                found = self.value
            case "difference":
                found = self.value - (self.baseline or 0.0)
            case "ratio":
                found = self.ratio if self.ratio is not None else float("inf")
        return found >= target.limit if target.at_least else found <= target.limit

    @property
    def missed(self) -> tuple[Target, ...]:
        """The targets that are not met."""
        return tuple(each for each in self.targets if not self.reached(each))


@dataclass(frozen=True, slots=True)
class Samples:
    """A chart of what each of several ways took, run by run."""

    name: str
    title: str
    unit: str
    samples: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Lines:
    """A chart of lines through points (x, y). `x` and `y` name the axes."""

    name: str
    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


Chart: TypeAlias = Samples | Lines


@dataclass(slots=True)
class Measured:
    """What one part of the bench found. `notes` are sentences that a reader of the table needs."""

    figures: list[Figure] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        return {
            "figures": [asdict(each) for each in self.figures],
            "charts": [{"kind": type(each).__name__, **asdict(each)} for each in self.charts],
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Measured:
        """The reverse of `as_dict`."""
        kinds: dict[str, type[Samples | Lines]] = {"Samples": Samples, "Lines": Lines}
        return cls(
            [
                Figure(**{**each, "targets": tuple(Target(**target) for target in each["targets"])})
                for each in found["figures"]
            ],
            [
                kinds[each["kind"]](**{name: value for name, value in each.items() if name != "kind"})
                for each in found["charts"]
            ],
            list(found["notes"]),
        )


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share (0 to 1) of the values is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
