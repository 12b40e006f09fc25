"""The operator runs with a token of the chart's ServiceAccount, and needs all that this may do and nothing more.

The API server's audit log says what it asked for. The engine is simulated, since only that matters here; tests/e2e goes
the same road on real machines.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from kubernetes import client

from demo.controlplane import ControlPlane
from demo.helm import CHART, helm
from lifeboat import kube
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.names import FINALIZER
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair
from tests import rights
from tests.api.operators import Operator, Site
from tests.conftest import connect

pytestmark = pytest.mark.timeout(600)
ACCOUNT = "lifeboat"
SECURITY = CHART.parent.parent / "docs" / "security.md"


@dataclass
class Installed:
    """A cluster with a release in it, and the site that its operators serve."""

    plane: ControlPlane
    site: Site
    kubeconfig: Path

    def asked(self) -> list[rights.Request]:
        return rights.requests(self.plane.audit_log, ACCOUNT, self.site.namespace)

    def granted(self) -> set[rights.Right]:
        return rights.granted(self.plane, ACCOUNT, self.site.namespace)


@pytest.fixture(scope="module", params=["one namespace", "all namespaces"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    tmp_path = tmp_path_factory.mktemp("installed")
    with ControlPlane(tmp_path / "controlplane") as plane, connect(plane) as connection:
        site = Site(connection, plane.kubeconfig)
        options = ["--namespace", site.namespace, "--set", "scripts.secrets.enabled=true"]
        if request.param == "one namespace":
            options += ["--set", f"namespaces={{{site.namespace}}}"]
        helm("install", ACCOUNT, str(CHART), *options, kubeconfig=plane.kubeconfig)
        kubeconfig = tmp_path / "operator.kubeconfig"
        plane.write_account_kubeconfig(kubeconfig, ACCOUNT, site.namespace)
        namespaces = site.settings.namespaces if request.param == "one namespace" else ()
        site.settings = replace(site.settings, kubeconfig=kubeconfig, namespaces=namespaces)
        yield Installed(plane, site, kubeconfig)


def leads(site: Site, operator: Operator) -> bool:
    lease = site.coordination.read_namespaced_lease("lifeboat", site.namespace)
    assert lease.spec
    return lease.spec.holder_identity == operator._settings.identity


def walk(site: Site) -> None:
    """Protect, rehearse, fail over, lose the leader, commit, and delete everything."""
    metadata = client.V1ObjectMeta(name="script", labels={"lifeboat.dev/script": "true"})
    content = {"run": "echo recovered"}
    site.core.create_namespaced_config_map(site.namespace, client.V1ConfigMap(metadata=metadata, data=content))
    site.core.create_namespaced_secret(site.namespace, client.V1Secret(metadata=metadata, string_data=content))
    with site.operator() as first:
        site.pair()
        site.protect("web")
        site.until_phase(ProtectedServer, "web", "Replicating", 60)
        for kind in ("configMapKeyRef", "secretKeyRef"):
            name = kind.lower()
            script = {kind: {"name": "script", "key": "run"}}
            site.create(Drill, name, {"serverRef": {"name": "web"}, "instance": {"postScript": script}})
            site.until_phase(Drill, name, "Running", 60)
            site.delete(Drill, name)
            site.until(lambda name=name: not site.exists(Drill, name), 60)  # type: ignore[misc]
        site.create(Failover, "disaster", {"serverRef": {"name": "web"}})
        site.until_phase(Failover, "disaster", "AwaitingCommit", 60)
        with site.operator() as second:
            first.stop()
            site.until(lambda: leads(site, second), 60)
            site.edit(Failover, "disaster", {"commit": True})
            site.until_phase(Failover, "disaster", "Committed", 60)
            for kind_, name in ((Failover, "disaster"), (ProtectedServer, "web"), (SitePair, "pair")):
                site.delete(kind_, name)
                site.until(lambda kind=kind_, name=name: not site.exists(kind, name), 60)  # type: ignore[misc]


async def write_on_what_has_changed(installed: Installed) -> None:
    """Let the operator's client put its finalizer on objects that somebody else has changed since they were read."""
    site, plane = installed.site, installed.plane
    made = [site.pair(), site.protect("contested")]
    made.append(site.create(Drill, "contested", {"serverRef": {"name": "contested"}}))
    api = await kube.Kube.connect(installed.kubeconfig)
    try:
        for kind, seen in zip((SitePair, ProtectedServer, Drill), made, strict=True):
            name = seen["metadata"]["name"]
            plane.kubectl("label", kind.PLURAL, name, "changed=meanwhile", f"--namespace={site.namespace}")
            written = await api.keep_finalizer(kind, seen)
            assert written is not None
            assert written["metadata"]["finalizers"] == [FINALIZER]
            await api.drop_finalizer(kind, written)
            site.delete(kind, name)
    finally:
        await api.close()


def test_every_right_is_used_and_none_is_missing(installed: Installed) -> None:
    asyncio.run(write_on_what_has_changed(installed))
    walk(installed.site)
    asked, granted = installed.asked(), installed.granted()
    assert granted
    assert rights.refused(asked) == set()
    assert rights.unused(granted, asked) == []


def test_a_right_too_many_and_a_right_too_few_are_found() -> None:
    listing = rights.Request("shop", "lifeboat.dev", "drills", "list", "", allowed=True)
    denied = replace(listing, verb="watch", allowed=False)
    held = rights.Right("", "lifeboat.dev", "drills", "list", "")
    elsewhere = held._replace(where="other")
    assert rights.unused({held, elsewhere, held._replace(verb="delete")}, [listing]) == [
        held._replace(verb="delete"),
        elsewhere,
    ]
    assert rights.refused([listing, denied]) == {denied}


def test_the_page_about_security_lists_the_rights(installed: Installed) -> None:
    rows = re.findall(r"^\| `(\S*)` \| `(\S+)` \| `([a-z, ]+)` \|", SECURITY.read_text(encoding="utf-8"), re.MULTILINE)
    listed = {(group, resource, verb) for group, resource, verbs in rows for verb in verbs.split(", ")}
    assert listed == {(right.group or "core", right.resource, right.verb) for right in installed.granted()}
