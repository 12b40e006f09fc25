"""Small makers of CEL rules, so that each rule stands beside the field it is about and its message says what to write.

A rule is one entry of `x-kubernetes-validations`; the API server evaluates it at `kubectl apply`. Grammars of strings
are rules and not `pattern`s, because the message of a pattern is only the pattern again.
"""

from collections.abc import Mapping
from typing import Any

Rule = Mapping[str, str]


def rule(expression: str, message: str, *, field: str | None = None, reason: str | None = None) -> Rule:
    """Return one rule; `field` is the path (such as `.zone`) that the error names instead of the object itself."""
    made = {"rule": expression, "message": message}
    if field is not None:
        made["fieldPath"] = field
    if reason is not None:
        made["reason"] = reason
    return made


def rules(*entries: Rule) -> dict[str, Any]:
    """Return the JSON schema extra that carries these rules."""
    return {"x-kubernetes-validations": [dict(entry) for entry in entries]}


def exactly_one(*fields: str) -> str:
    """Return an expression that is true when one of the fields is present, and only one."""
    return "[" + ", ".join(f"has(self.{field})" for field in fields) + "].exists_one(given, given)"


def unchanged(*fields: str) -> str:
    """Return an expression that is true when none of the fields, present or absent, differs from before."""
    return " && ".join(  # not self.?field == oldSelf.?field, whose cost the API server cannot bound
        f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
        for field in fields
    )


def immutable(field: str, message: str) -> Rule:
    """Return the rule, for the parent of an optional field, that the field never changes."""
    return rule(unchanged(field), message, field=f".{field}", reason="FieldValueForbidden")
