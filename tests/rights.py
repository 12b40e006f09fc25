"""What a ServiceAccount may do by the rules of its roles, and what it did by the API server's audit log."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from demo.controlplane import ControlPlane

Stored = Mapping[str, Any]


class Right(NamedTuple):
    """One verb on one resource, such as `failovers/status`; `name` empty is any object. `where` is empty for all."""

    where: str
    group: str
    resource: str
    verb: str
    name: str


@dataclass(frozen=True)
class Request:
    """What was asked of the API server, and whether it was allowed."""

    namespace: str
    group: str
    resource: str
    verb: str
    name: str
    allowed: bool

    def uses(self, right: Right) -> bool:
        """Whether the request is one that the right is for."""
        return (
            (self.group, self.resource, self.verb) == (right.group, right.resource, right.verb)
            and right.where in {"", self.namespace}
            and right.name in {"", self.name}
        )


def granted(plane: ControlPlane, account: str, namespace: str) -> set[Right]:
    """Every right that bindings give to a ServiceAccount."""
    kinds = "clusterroles,clusterrolebindings,roles,rolebindings"
    found = json.loads(plane.kubectl("get", kinds, "--all-namespaces", "--output=json"))["items"]
    roles = {(each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each for each in found}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    rights: set[Right] = set()
    for binding in found:
        if subject not in binding.get("subjects", ()):
            continue
        where = binding["metadata"].get("namespace", "")
        reference = binding["roleRef"]
        role = roles[reference["kind"], where if reference["kind"] == "Role" else "", reference["name"]]
        rights.update(_rights(where, role["rules"]))
    return rights


def _rights(where: str, rules: Iterable[Stored]) -> Iterator[Right]:
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    for name in rule.get("resourceNames") or [""]:
                        yield Right(where, group, resource, verb, name)


def requests(audit_log: Path, account: str, namespace: str) -> list[Request]:
    """What a ServiceAccount has asked of the API server about objects; discovery is everybody's."""
    user, found = f"system:serviceaccount:{namespace}:{account}", []
    for line in audit_log.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["user"]["username"] != user or "objectRef" not in event:
            continue
        about = event["objectRef"]
        subresource = f"/{about['subresource']}" if "subresource" in about else ""
        allowed = event["annotations"]["authorization.k8s.io/decision"] == "allow"
        found.append(
            Request(
                namespace=about.get("namespace", ""),
                group=about.get("apiGroup", ""),
                resource=f"{about['resource']}{subresource}",
                verb=event["verb"],
                name=about.get("name", ""),
                allowed=allowed,
            )
        )
    return found


def unused(rights: Collection[Right], asked: Collection[Request]) -> list[Right]:
    """The rights without which every request would have been allowed as well."""
    return sorted(right for right in rights if not any(request.uses(right) for request in asked))


def refused(asked: Iterable[Request], rights: Collection[Right] = ()) -> set[Request]:
    """The requests that were not allowed, but for those that one of these rights is for.

    An API server that begins refuses what is granted as well, until it has read the roles.
    """
    return {each for each in asked if not each.allowed and not any(each.uses(right) for right in rights)}
