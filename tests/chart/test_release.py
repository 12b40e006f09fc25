"""Install, upgrade and uninstall with the real Helm on a real API server: what people have applied outlives it all."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from demo.controlplane import ControlPlane
from demo.helm import CHART, helm
from lifeboat.api import crd
from lifeboat.api.protectedserver import ProtectedServer
from tests.chart.charts import NAMESPACE, RELEASE, SETS, Stored

MANIFESTS = CHART.parent.parent / "demo" / "manifests"
_numbers = itertools.count(1)
DEFINITIONS = [f"crd/{kind.PLURAL}.lifeboat.dev" for kind in crd.KINDS]
KEPT = {f"CustomResourceDefinition/{kind.PLURAL}.lifeboat.dev" for kind in crd.KINDS}
OWNER = "meta.helm.sh/release-namespace"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("controlplane"), namespace="demo") as made:
        yield made


@dataclass(frozen=True)
class Release:
    """A release in a namespace of its own, and what a person does to it."""

    plane: ControlPlane
    namespace: str

    def helm(self, verb: str, *arguments: str) -> str:
        return helm(verb, RELEASE, *arguments, f"--namespace={self.namespace}", kubeconfig=self.plane.kubeconfig)

    def install(self, *options: str, chart: Path = CHART) -> str:
        said = self.helm("install", str(chart), "--create-namespace", *options)
        self.plane.kubectl("wait", "--for=condition=Established", *DEFINITIONS, "--timeout=30s")
        return said

    def left(self) -> set[str]:
        """Everything that it owns, by kind and name."""
        kinds = "crd,clusterrole,clusterrolebinding,role,rolebinding,serviceaccount,service,deployment,pvc,configmap"
        options = ["--all-namespaces", "--selector=app.kubernetes.io/managed-by=Helm", "--output=json"]
        found = json.loads(self.plane.kubectl("get", kinds, *options))["items"]
        ours = [each for each in found if each["metadata"]["annotations"][OWNER] == self.namespace]
        return {f"{each['kind']}/{each['metadata']['name']}" for each in ours}


@pytest.fixture
def release(plane: ControlPlane) -> Iterator[Release]:
    """Where no release is, and after which none is left."""
    made = Release(plane, f"{NAMESPACE}-{next(_numbers)}")
    yield made
    made.helm("uninstall", "--ignore-not-found")
    plane.kubectl("delete", *DEFINITIONS, "--ignore-not-found", "--timeout=60s")


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The chart as an earlier version could have been: it knew less of a ProtectedServer, and granted more."""
    folder = tmp_path / "earlier"
    shutil.copytree(CHART, folder)
    about = folder / "Chart.yaml"
    about.write_text(about.read_text(encoding="utf-8").replace("ersion: 0.1.0", "ersion: 0.0.1"), encoding="utf-8")
    path = folder / "files" / "crds" / "lifeboat.dev_protectedservers.yaml"
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    [version] = definition["spec"]["versions"]
    del replication(version)["bandwidthLimit"]
    version["additionalPrinterColumns"].pop(0)
    path.write_text(yaml.safe_dump(definition), encoding="utf-8")
    rules = folder / "templates" / "rbac.yaml"
    granted = rules.read_text(encoding="utf-8").replace("resources: [configmaps]", "resources: [configmaps, pods]")
    rules.write_text(granted, encoding="utf-8")
    return folder


def apply(plane: ControlPlane) -> dict[str, Stored]:
    """Apply a manifest of each kind."""
    for path in sorted(MANIFESTS.glob("[1-4]-*.yaml")):
        plane.kubectl("apply", "-f", str(path))
    return applied(plane)


def applied(plane: ControlPlane) -> dict[str, Stored]:
    found = json.loads(plane.kubectl("get", "sp,ps,dr,fo", "--output=json"))["items"]
    return {each["metadata"]["uid"]: each["spec"] for each in found}


def replication(version: Stored) -> Stored:
    """The fields of a ProtectedServer's spec.replication."""
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    found: Stored = spec["properties"]["replication"]["properties"]
    return found


def served(plane: ControlPlane) -> Stored:
    """The version of ProtectedServer that is served."""
    [version] = json.loads(plane.kubectl("get", "crd", "protectedservers.lifeboat.dev", "--output=json"))["spec"][
        "versions"
    ]
    found: Stored = version
    return found


def test_an_upgrade_brings_newer_kinds_and_an_uninstall_leaves_them(release: Release, earlier: Path) -> None:
    plane = release.plane
    notes = release.install(chart=earlier)
    assert f"kubectl -n {release.namespace} rollout status deploy/{RELEASE}" in notes
    assert "bandwidthLimit" not in replication(served(plane))
    before = apply(plane)
    assert len(before) == 4

    release.helm("upgrade", str(CHART))
    [wanted] = crd.definition(ProtectedServer)["spec"]["versions"]
    assert replication(served(plane)).keys() == replication(wanted).keys()
    assert len(served(plane)["additionalPrinterColumns"]) == len(wanted["additionalPrinterColumns"])
    deployment = json.loads(plane.kubectl("get", "deploy", RELEASE, "-n", release.namespace, "--output=json"))
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "lifeboat:0.1.0"
    rules = json.loads(plane.kubectl("get", "clusterrole", RELEASE, "--output=json"))["rules"]
    assert "pods" not in {resource for rule in rules for resource in rule["resources"]}
    assert applied(plane) == before
    history = json.loads(release.helm("history", "--output=json"))
    assert [each["chart"] for each in history] == ["lifeboat-0.0.1", "lifeboat-0.1.0"]

    assert "kept" in release.helm("uninstall")
    assert release.left() == KEPT
    assert applied(plane) == before

    release.install()
    assert applied(plane) == before


def test_kinds_that_are_no_longer_the_releases_stay(release: Release) -> None:
    release.install()
    before = apply(release.plane)
    release.helm("upgrade", str(CHART), "--set", "crds.enabled=false")
    assert applied(release.plane) == before


def test_kinds_that_kubectl_has_applied_are_taken_over(release: Release) -> None:
    release.plane.kubectl("apply", "--server-side", "-f", str(CHART.parent.parent / "crds"))
    release.plane.kubectl("wait", "--for=condition=Established", *DEFINITIONS, "--timeout=30s")
    before = apply(release.plane)
    release.install("--take-ownership", "--force-conflicts")
    assert release.left() >= KEPT
    assert applied(release.plane) == before


def test_an_evaluation_leaves_its_volume(release: Release, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(SETS["evaluation"]), encoding="utf-8")
    assert "FOR EVALUATION ONLY" in release.install(f"--values={values}")
    release.helm("uninstall")
    assert release.left() == {*KEPT, "PersistentVolumeClaim/lifeboat-zones"}


def test_kinds_go_with_the_release_where_that_is_asked_for(release: Release) -> None:
    notes = release.install("--set", "crds.keep=false")
    assert "WARNING: uninstalling this release deletes all objects" in notes
    apply(release.plane)
    release.helm("uninstall", "--wait")
    assert release.left() == set()
