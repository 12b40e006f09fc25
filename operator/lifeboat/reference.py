"""The reference pages are made from the code they are about: `python -m lifeboat.reference [--check] [DIR]`.

A field is described in its model, a reason in the comment above it, a phase's ways out in the table that tests hold
every change against, a metric where it is declared. These pages repeat them for readers, so they cannot say otherwise.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from prometheus_client.metrics import MetricWrapperBase

from lifeboat.api import crd, names
from lifeboat.api.common import Resource
from lifeboat.api.drill import DrillPhase
from lifeboat.api.failover import FailoverPhase
from lifeboat.api.protectedserver import ProtectedServerPhase
from lifeboat.lifecycle import reasons, shapes
from lifeboat.lifecycle.decide import acceptance
from lifeboat.lifecycle.operations import Operation
from lifeboat.lifecycle.phases import TRANSITIONS
from lifeboat.metrics import Metrics

MADE: Final = "<!-- Made by `python -m lifeboat.reference`; do not edit. -->\n"

Schema = Mapping[str, Any]


def files() -> dict[str, str]:
    """Return every page's name and text."""
    return {"api.md": _api(), "metrics.md": _metrics(), "phases.md": _phases(), "reasons.md": _reasons()}


# --- The four kinds -----------------------------------------------------------------------------------------------


def _api() -> str:
    parts = [
        f"# The API `{names.API_VERSION}`",
        (
            "Four namespaced kinds, each with a status subresource. `spec` is yours, the operator never writes it; "
            "`status` is the operator's. `kubectl explain ps.spec --recursive` says the same in a terminal, "
            f"and `kubectl get {names.CATEGORY}` lists all four kinds."
        ),
        (
            "In the tables a field with `[]` is a list. *Required* means within its parent: an optional block may be "
            "absent as a whole. Durations are written as in Go (`90s`, `1h30m`), quantities as in Kubernetes (`4Gi`), "
            "times as in RFC 3339."
        ),
        _list(f"[{kind.__name__}](#{kind.__name__.lower()}): {_about(kind)}" for kind in crd.KINDS),
        "Annotations and labels that Lifeboat reads:",
        _table(
            ("Name", "On", "Meaning"),
            [
                (
                    f"`{names.RESTARTED_AT}`",
                    "ProtectedServer",
                    "An RFC 3339 time: restart the server if it booted before it.",
                ),
                (
                    f"`{names.DISCARD}`",
                    "ProtectedServer",
                    (
                        "The `serverId`: with `deletionPolicy: Delete`, delete the replica although the source is not "
                        "known to be alive."
                    ),
                ),
                (
                    f'`{names.SCRIPT_LABEL}: "{names.SCRIPT_LABEL_VALUE}"`',
                    "Secret",
                    "A label: the operator may read a script from this Secret.",
                ),
            ],
        ),
        f"Finalizer: `{names.FINALIZER}`. Field manager of every status: `{names.FIELD_MANAGER}`.",
        *(_kind(kind) for kind in crd.KINDS),
    ]
    return _page(parts)


def _about(kind: type[Resource]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0].lower()


def _kind(kind: type[Resource]) -> str:
    version = crd.definition(kind)["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    parts = [
        f"## {kind.__name__}",
        f"{schema['description']} Short name: `{kind.SHORT_NAME}`.",
        f"Columns of `kubectl get {kind.SHORT_NAME}`: {', '.join(column.name for column in kind.COLUMNS)}.",
        f"### {kind.__name__} spec",
        _table(("Field", "Type", "Default", "Meaning"), list(_fields(schema["properties"]["spec"], ""))),
        "What `kubectl apply` refuses, and what it says:",
        _list(_refusals(schema["properties"]["spec"])),
        f"### {kind.__name__} status",
        _table(
            ("Field", "Type", "Meaning"),
            [(field, sort, meaning) for field, sort, _, meaning in _fields(schema["properties"]["status"], "")],
        ),
    ]
    return "\n\n".join(parts)


def _fields(schema: Schema, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Path, type, default and meaning of each field below, parents first."""
    required = schema.get("required", ())
    before: dict[str, Any] = {}
    for name, part in schema.get("properties", {}).items():
        item = part.get("items", {})
        path = f"{prefix}{name}{'[]' if item else ''}"
        default = "required" if name in required else (f"`{_plain(part['default'])}`" if "default" in part else "")
        inner = (item or part).get("properties")
        twin = next((each for each, fields in before.items() if inner and fields == inner), None)
        told = f" Its fields are those of `{prefix}{twin}`." if twin else ""
        yield f"`{path}`", _sort(part), default, _cell(part.get("description", "")) + told
        before[name] = inner
        if not twin and name != "conditions":  # a metav1.Condition, which readers know
            yield from _fields(item or part, f"{path}.")


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sort(part: Schema) -> str:
    """The type of a field and its bounds, in a few words."""
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    if part.get("x-kubernetes-int-or-string"):
        return "quantity"
    if part.get("type") == "array":
        inner = _sort(part["items"])
        most = f", {part['maxItems']} at most" if "maxItems" in part else ""
        return f"list of {inner if inner != 'object' else 'objects'}{most}"
    kind = {"date-time": "time"}.get(part.get("format", ""), part.get("type", ""))
    low, high = part.get("minimum"), part.get("maximum")
    if low is not None and high is not None:
        return f"{kind}, {low} to {high}"
    return f"{kind}, {low} or more" if low is not None else str(kind)


def _refusals(spec: Schema) -> Iterator[str]:
    """Each message of a rule, with all the places where it is said."""
    places: dict[str, list[str]] = {}
    for place, message in _rules(spec, "spec"):
        places.setdefault(message, []).append(f"`{place}`")
    for message, found in places.items():
        yield f"{', '.join(found)}: {_cell(message)}"


def _rules(schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    """Where the API server refuses what, by the messages of the rules."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path + rule.get("fieldPath", ""), rule["message"]
    for name, part in schema.get("properties", {}).items():
        yield from _rules(part, f"{path}.{name}")
    if "items" in schema:
        yield from _rules(schema["items"], f"{path}[]")


# --- Phases -------------------------------------------------------------------------------------------------------


def _phases() -> str:
    parts = [
        "# Phases",
        "[Concepts](../concepts.md) says what they mean, with a picture. Here is which may follow which.",
        "## ProtectedServer",
        (
            "The phase is computed from the ledger and from what the engine sees, at every look. A phase that lasts an "
            "instant only may be passed without being written."
        ),
        _table(
            ("Phase", "May be followed by"),
            [
                (
                    f"`{phase}`",
                    _values(each for each in ProtectedServerPhase if each in following - {phase}) or "nothing yet",
                )
                for phase, following in TRANSITIONS.items()
            ],
        ),
        "## Drill",
        f"In order: {_values(DrillPhase)}. `CleanedUp` and `Failed` are ends.",
        "## Failover",
        (
            f"{_values(FailoverPhase)}. `RolledBack`, `Committed`, `Completed` and `Failed` are ends; `Completed` is a "
            "failback's, and `Failed` is reached before `StoppingReplication` only."
        ),
        "## What may be asked",
        (
            f"`status.allowedOperations` of a ProtectedServer holds those of these that would be accepted now: "
            f"{_values(sorted(Operation))}."
        ),
    ]
    return _page(parts)


def _values(values: Iterable[StrEnum]) -> str:
    return ", ".join(f"`{value}`" for value in values)


# --- Reasons ------------------------------------------------------------------------------------------------------

_HEADING: Final = re.compile(r"# --- (.+?) -+")
_REASON: Final = re.compile(r'[A-Z_]+: Final = "(\w+)"')


def _reasons() -> str:
    parts = [
        "# Reasons",
        (
            "A reason stands in a condition, in an Event, or in a refusal; each has one meaning, and alerts may match "
            "on it. The message beside it says what to do. The sections say what is usual; the conditions "
            "`Reconciling` and `Stalled` say whether it goes on by itself or needs a person."
        ),
    ]
    for heading, found in listed_reasons(inspect.getsource(reasons)).items():
        parts += [f"## {heading}", _table(("Reason", "Meaning"), [(f"`{name}`", _cell(said)) for name, said in found])]
    parts += [
        "## What is checked before a failover begins",
        (
            "In this order, before anything is stopped. The first thing that does not hold is the reason that is told. "
            "`FailoverReady` and `status.allowedOperations` come from the same list."
        ),
        _numbered(_said(check) for check in acceptance.PRECONDITIONS),
        "## What is checked about the server to start",
        "For a drill, for a failover and for an edit of one, in this order.",
        _numbered(_said(check) for check in shapes.SHAPE_CHECKS),
    ]
    return _page(parts)


def listed_reasons(source: str) -> dict[str, list[tuple[str, str]]]:
    """Each section's reasons with what the comment above them says.

    Raises:
        ValueError: a reason has no comment, or stands above the first section.
    """
    sections: dict[str, list[tuple[str, str]]] = {}
    heading, said = "", ""
    for line in source.splitlines():
        if match := _HEADING.fullmatch(line):
            heading, said = match[1], ""
            sections[heading] = []
        elif match := _REASON.fullmatch(line):
            if not heading or not said:
                raise ValueError(f"reason {match[1]} has no section or no comment")
            sections[heading].append((match[1], said))
            said = ""
        else:
            said = f"{said} {line.removeprefix('# ')}".strip() if line.startswith("# ") else ""
    return sections


def _said(check: Callable[..., object]) -> str:
    return _cell((inspect.getdoc(check) or "").splitlines()[0])


# --- Metrics ------------------------------------------------------------------------------------------------------

_UNITS: Final = {"timestamp_seconds": "Unix time", "seconds": "seconds", "bytes": "bytes"}


def _metrics() -> str:
    rows = [
        (f"`{name}`", sort, unit, ", ".join(f"`{label}`" for label in labels), _cell(f"{meaning.rstrip('.')}."))
        for name, sort, unit, labels, meaning in sorted(_series(Metrics()))
    ]
    parts = [
        "# Metrics",
        (
            "At `/metrics` in Prometheus' text format. `namespace` and `name` are those of the object that the series "
            "is about, so scrape with `honor_labels: true`, or Prometheus puts the namespace of the operator's pod "
            "there and calls the object's `exported_namespace`. `lifeboat_server_`, `lifeboat_replication_` and "
            "`lifeboat_recovery_point` are about a ProtectedServer, `lifeboat_site_` about a SitePair, the others as "
            "they are called; `server` names the ProtectedServer of a Drill or Failover. A series goes when its object "
            "goes, and what is unknown has no series. A timestamp is a Unix time: `time() -` it is how long ago it was."
        ),
        _table(("Metric", "Type", "Unit", "Labels", "Meaning"), rows),
    ]
    return _page(parts)


def _series(metrics: Metrics) -> Iterator[tuple[str, str, str, tuple[str, ...], str]]:
    """Name, type, unit, labels and meaning of each metric."""
    labels = {
        name: tuple(each._labelnames)  # noqa: SLF001 - it has no other way of telling its labels while it has no series
        for each, known in metrics.registry._collector_to_names.items()  # noqa: SLF001 - likewise
        for name in known
        if isinstance(each, MetricWrapperBase)
    }
    for gauge in metrics.gauges:
        yield gauge.name, "gauge", _unit(gauge.name), gauge.labels, gauge.meaning
    for family in metrics.registry.collect():
        shown = f"{family.name}_total" if family.type == "counter" else family.name
        yield shown, family.type, _unit(family.name), labels.get(family.name, ()), family.documentation


def _unit(name: str) -> str:
    return next((unit for suffix, unit in _UNITS.items() if name.endswith(f"_{suffix}")), "")


# --- Markdown -----------------------------------------------------------------------------------------------------


def _page(parts: Iterable[str]) -> str:
    return MADE + "\n" + "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    """Text that shows as it is written, also in a table."""
    return text.replace("<", "&lt;").replace("|", r"\|").replace("*", r"\*")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _list(entries: Iterable[str]) -> str:
    return "\n".join(f"- {entry}" for entry in entries)


def _numbered(entries: Iterable[str]) -> str:
    return "\n".join(f"{number}. {entry}" for number, entry in enumerate(entries, 1))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or say which differ; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lifeboat.reference", description="Make the reference pages.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page differs")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs/reference"), metavar="DIR")
    chosen = parser.parse_args(arguments)
    folder: Path = chosen.folder
    made = files()
    differing = [
        name
        for name, text in made.items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]
    if chosen.check:
        for name in differing:
            sys.stderr.write(f"{folder / name} differs from the code: run python -m lifeboat.reference\n")
        return 1 if differing else 0
    folder.mkdir(parents=True, exist_ok=True)
    for name in differing:
        (folder / name).write_text(made[name], encoding="utf-8")
        sys.stdout.write(f"wrote {folder / name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
