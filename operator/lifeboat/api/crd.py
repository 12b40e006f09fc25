"""The CRDs are made from the models, so that a field is defined once: `python -m lifeboat.api.crd [--check] [DIR …]`.

pydantic's JSON schema is not a structural schema. What differs is translated here: references are put inline, the null
branch of an optional field goes (optional means absent), `const` becomes `enum`, titles go, and defaults stay only
where they are plain values of spec outside of lists, because a default inside a list item is drift to a GitOps tool.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic.json_schema import GenerateJsonSchema

from lifeboat.api import names
from lifeboat.api.common import Resource
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair
from lifeboat.api.values import format_duration

KINDS: Final[tuple[type[Resource], ...]] = (SitePair, ProtectedServer, Drill, Failover)

FOLDERS: Final = (Path("crds"), Path("charts/lifeboat/files/crds"))
"""For kubectl, and for the chart, which can read nothing outside of itself."""

HEADER: Final = "# Generated from the models by `python -m lifeboat.api.crd`; do not edit.\n"

Schema = dict[str, Any]

_DROPPED: Final = frozenset({"title", "$defs"})
_KEPT: Final = (
    "type",
    "format",
    "description",
    "default",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
    "anyOf",
    "x-kubernetes-int-or-string",
    "minItems",
    "maxItems",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "required",
    "properties",
    "items",
    "x-kubernetes-validations",
)
"""What a structural schema takes, in the order in which the file shows it."""

_FORMATS: Final = {"integer": "int64", "number": "double"}
_RULES: Final = "x-kubernetes-validations"


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> Schema:
    """Return both, where `over` wins, except that the rules of both hold."""
    merged = {**under, **over}
    if _RULES in under and _RULES in over:
        merged[_RULES] = [*under[_RULES], *over[_RULES]]
    return merged


def _inlined(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """Return the schema without reference and without null branch."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return _inlined(_merged(definitions[name], rest), definitions)
    branches = [branch for branch in schema.get("anyOf", ()) if branch.get("type") != "null"]
    if len(branches) == 1:
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        return _inlined(_merged(branches[0], rest), definitions)
    return dict(schema)


def structural(schema: Mapping[str, Any], definitions: Mapping[str, Any], *, defaults: bool) -> Schema:
    """Return a structural schema that takes the same values as the JSON schema of a model.

    Args:
        schema: The JSON schema, as pydantic makes it.
        definitions: What its references point to.
        defaults: Whether plain defaults are kept; they never are inside of a list.

    Raises:
        NotImplementedError: the schema has a keyword that is not translated.
    """
    source = _inlined(schema, definitions)
    if unknown := source.keys() - _DROPPED - {*_KEPT, "const"}:
        raise NotImplementedError(f"not translated: {', '.join(sorted(unknown))}")
    if "anyOf" in source and not source.get("x-kubernetes-int-or-string"):
        raise NotImplementedError(f"a union is no structural schema: {source['anyOf']}")
    made = {key: value for key, value in source.items() if key in _KEPT}
    if "const" in source:
        made["enum"] = [source["const"]]
    if not (defaults and isinstance(made.get("default"), str | int | float)):
        made.pop("default", None)
    if "properties" in made:
        made["properties"] = {
            name: structural(part, definitions, defaults=defaults) for name, part in made["properties"].items()
        }
    if "items" in made:
        made["items"] = structural(made["items"], definitions, defaults=False)
    for keyword, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if keyword in made:
            made[plain], made[keyword] = made[keyword], True
    if (kind := made.get("type")) in _FORMATS:
        made["format"] = _FORMATS[kind]
    return {key: made[key] for key in _KEPT if key in made}


class _Generator(GenerateJsonSchema):
    """Writes a default that is a duration as a user would."""

    def encode_default(self, dft: Any) -> Any:  # noqa: ANN401 - pydantic's signature
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def _root(kind: type[Resource]) -> Schema:
    schema = kind.model_json_schema(schema_generator=_Generator)
    definitions = schema.get("$defs", {})
    parts = schema["properties"]
    return {
        "description": schema["description"],
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "The version of this schema."},
            "kind": {"type": "string", "description": "The kind of this object."},
            "metadata": {"type": "object"},
            "spec": structural(parts["spec"], definitions, defaults=True),
            "status": structural(parts["status"], definitions, defaults=False),
        },
    }


def definition(kind: type[Resource]) -> Schema:
    """Return the CustomResourceDefinition of one kind."""
    singular = kind.__name__.lower()
    made = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "names": {
                "kind": kind.__name__,
                "listKind": f"{kind.__name__}List",
                "plural": kind.PLURAL,
                "singular": singular,
                "shortNames": [kind.SHORT_NAME],
                "categories": [names.CATEGORY],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": column.name, "type": column.type, "jsonPath": column.path} for column in kind.COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": _root(kind)},
                }
            ],
        },
    }
    plain: Schema = json.loads(json.dumps(made))  # no part is shared, so the YAML has no anchors
    return plain


def render(kind: type[Resource]) -> str:
    """Return the file of one kind's CRD."""
    text: str = yaml.safe_dump(definition(kind), sort_keys=False, width=120, allow_unicode=True)
    return HEADER + text


def files() -> dict[str, str]:
    """Return every file's name and text."""
    return {f"{names.GROUP}_{kind.PLURAL}.yaml": render(kind) for kind in KINDS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the CRDs, or say which files differ; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lifeboat.api.crd", description="Make the CRDs from the models.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file differs")
    usual = " and ".join(str(folder) for folder in FOLDERS)
    parser.add_argument("folders", nargs="*", type=Path, default=FOLDERS, metavar="DIR", help=f"default: {usual}")
    chosen = parser.parse_args(arguments)
    differing = {
        folder / name: text
        for folder in chosen.folders
        for name, text in files().items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    }
    if chosen.check:
        for path in differing:
            sys.stderr.write(f"{path} differs from the models: run python -m lifeboat.api.crd\n")
        return 1 if differing else 0
    for path, text in differing.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
