"""What Helm makes of the chart: a real API server takes it, the operator understands it; wrong values are refused."""

from __future__ import annotations

import json
import re
import subprocess
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.controlplane import ControlPlane, ControlPlaneError
from demo.helm import CHART, HelmError, helm
from lifeboat import settings
from lifeboat.api import crd
from lifeboat.engines.qemu.zones import Zones
from tests.chart import prometheus_operator
from tests.chart.charts import NAMESPACE, SERVED, SETS, ZONES, Stored, Values, one, render

DEMO = CHART.parent.parent / "demo" / "zones"
RESTRICTED = "restricted"
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> ControlPlane:
    """An API server that knows the Prometheus Operator's kinds, and has the namespaces."""
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    for name in (NAMESPACE, *SERVED, RESTRICTED):
        metadata = {"name": name, "labels": restricted if name == RESTRICTED else {}}
        control_plane.kubectl(
            "apply", "-f", "-", stdin=json.dumps({"kind": "Namespace", "apiVersion": "v1", "metadata": metadata})
        )
    prometheus_operator.install(control_plane)
    return control_plane


@pytest.fixture(params=SETS)
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> list[Stored]:
    return render(SETS[request.param], tmp_path)


def settings_of(container: Stored) -> settings.Settings:
    parser = ArgumentParser(exit_on_error=False)
    settings.add_arguments(parser, {})
    return settings.from_arguments(parser.parse_args(container["args"][1:]))


def operator_of(objects: list[Stored]) -> Stored:
    [container] = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    found: Stored = container
    return found


# --- what is rendered


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_helm_finds_nothing_to_complain_about(values: Values, tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(dict(values)), encoding="utf-8")
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), f"--values={tmp_path / 'values.yaml'}")


def test_the_api_server_takes_every_object(objects: list[Stored], plane: ControlPlane) -> None:
    options = ["--dry-run=server", "--server-side", "--force-conflicts", "--field-manager=chart", "--validate=strict"]
    said = plane.kubectl("apply", *options, "-f", "-", stdin=yaml.safe_dump_all(objects))
    assert len(said.splitlines()) == len(objects)


def test_the_pod_may_run_where_pods_are_restricted(objects: list[Stored], plane: ControlPlane) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator", "namespace": RESTRICTED},
        "spec": one(objects, "Deployment")["spec"]["template"]["spec"] | {"priorityClassName": None},
    }
    created = ["create", "--dry-run=server", "-f", "-"]
    assert "created" in plane.kubectl(*created, stdin=json.dumps(pod))
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(ControlPlaneError, match="violates PodSecurity"):
        plane.kubectl(*created, stdin=json.dumps(pod))


def test_the_operator_understands_its_options(objects: list[Stored]) -> None:
    found = settings_of(operator_of(objects))
    assert found.http_port == 8080
    assert found.lease_namespace == NAMESPACE


def test_the_values_reach_the_operator(tmp_path: Path) -> None:
    found = settings_of(operator_of(render(SETS["everything"], tmp_path)))
    assert (found.poll, found.log_level, found.log_format, found.lease_name) == (0.5, "DEBUG", "text", "dr")
    assert found.http_host == "::"
    assert settings_of(operator_of(render(SETS["two namespaces"], tmp_path))).namespaces == SERVED
    assert settings_of(operator_of(render({}, tmp_path))).namespaces == ()


def test_the_lease_is_the_one_that_may_be_written(objects: list[Stored]) -> None:
    roles = [each for each in objects if each["kind"] == "Role" and each["metadata"]["name"].endswith("-lease")]
    names = [rule["resourceNames"] for role in roles for rule in role["rules"] if "resourceNames" in rule]
    assert names == ([[settings_of(operator_of(objects)).lease_name]] if roles else [])


def test_nothing_is_granted_beyond_the_namespaces(tmp_path: Path) -> None:
    objects = render(SETS["nothing beyond two namespaces"], tmp_path)
    assert {each["metadata"].get("namespace") for each in objects} == {NAMESPACE, *SERVED}
    bound = {each["metadata"]["namespace"] for each in objects if each["kind"] == "RoleBinding"}
    assert bound == {NAMESPACE, *SERVED}


def test_an_image_is_pinned_by_its_digest(tmp_path: Path) -> None:
    image = operator_of(render(SETS["everything"], tmp_path))["image"]
    assert image == f"registry.example:5000/dr/lifeboat:0.1.0@sha256:{'a1' * 32}"
    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"]
    assert operator_of(render({}, tmp_path))["image"] == f"lifeboat:{version}"


def test_every_object_has_the_labels_and_no_other_object_finds_the_pods(tmp_path: Path) -> None:
    objects = render(SETS["everything"], tmp_path)
    template = one(objects, "Deployment")["spec"]["template"]
    for each in (*objects, template):
        assert each["metadata"]["labels"]["example.org/cost-centre"] == "recovery"
    selectors = [
        one(objects, "Service")["spec"]["selector"],
        one(objects, "Deployment")["spec"]["selector"]["matchLabels"],
        one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    found = {"app.kubernetes.io/name": "lifeboat", "app.kubernetes.io/instance": "lifeboat"}
    assert selectors == [found] * 4
    assert found.items() <= template["metadata"]["labels"].items()
    assert one(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"] == found
    [scraped] = one(objects, "ServiceMonitor")["spec"]["endpoints"]
    assert scraped["honorLabels"] is True


# --- what is taken from elsewhere


def test_the_definitions_are_those_of_the_models(tmp_path: Path) -> None:
    rendered = [each for each in render({}, tmp_path) if each["kind"] == "CustomResourceDefinition"]
    for each in rendered:
        assert each["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        del each["metadata"]["labels"]
    by_name = {each["metadata"]["name"]: each for each in rendered}
    assert by_name == {found["metadata"]["name"]: found for found in map(crd.definition, crd.KINDS)}


def test_they_go_with_the_release_where_that_is_asked_for(tmp_path: Path) -> None:
    rendered = render({"crds": {"keep": False}}, tmp_path)
    assert not [each for each in rendered if "helm.sh/resource-policy" in each["metadata"].get("annotations", {})]


def test_rules_and_dashboard_are_the_files(tmp_path: Path) -> None:
    objects = render(SETS["everything"], tmp_path)
    rules = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))
    assert one(objects, "PrometheusRule")["spec"] == rules
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
    assert json.loads(one(objects, "ConfigMap", "-dashboard")["data"]["lifeboat.json"]) == dashboard


def test_the_engine_finds_the_zones_of_an_evaluation(tmp_path: Path) -> None:
    objects = render(SETS["evaluation"], tmp_path)
    inventories, zones = tmp_path / "inventories", tmp_path / "zones"
    inventories.mkdir()
    zones.mkdir()
    for name, text in one(objects, "ConfigMap", "-zones")["data"].items():
        (inventories / name).write_text(text, encoding="utf-8")
    [laid] = one(objects, "Deployment")["spec"]["template"]["spec"]["initContainers"]
    places = {"/etc/lifeboat/zones": str(inventories), "/var/lib/lifeboat/zones": str(zones)}
    command = [*laid["command"], *(places.get(each, each) for each in laid["args"])]
    for _ in range(2):  # a pod that starts again finds what the one before has laid
        subprocess.run(command, check=True, timeout=30)
    for name, wanted in ZONES.items():
        zone = Zones(zones).zone(name)
        assert [each.name for each in zone.inventory.networks] == [each["name"] for each in wanted["networks"]]
        assert zone.tier(use_ssd=False).is_dir()
    mounts = {each["mountPath"] for each in operator_of(objects)["volumeMounts"]}
    assert set(places) <= mounts
    assert settings_of(operator_of(objects)).zones == Path("/var/lib/lifeboat/zones")


def test_disks_and_ledgers_outlive_an_evaluation(tmp_path: Path) -> None:
    claim = one(render(SETS["evaluation"], tmp_path), "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


# --- values


REFUSED = {
    "replicas=3": "replicas.*maximum",
    "replica=2": "'replica' not allowed",
    "crds.keeep=true": "'keeep' not allowed",
    "namespaces={Shop}": "namespaces/0",
    "namespaces={shop,shop}": "equal",
    "image.digest=sha256:abc": "image/digest",
    "logLevel=debug": "logLevel.*'DEBUG'",
    "networkPolicy.apiServerPorts={https}": "apiServerPorts/0",
    "evaluation.zones.zone-a.storage.standard=x": "missing property 'networks'",
    "evaluation.enabled=true,replicas=2": "set replicas to 1",
    "podLabels.app\\.kubernetes\\.io/name=x": "use nameOverride",
    "commonLabels.app\\.kubernetes\\.io/instance=x": "use nameOverride",
    "serviceAccount.create=false": "needs serviceAccount.name",
    "scripts.secrets.names={script}": "without scripts.secrets.enabled",
    "serviceMonitor.enabled=true,service.enabled=false": "needs service.enabled",
    "serviceMonitor.enabled=true,networkPolicy.enabled=true": "say where Prometheus runs",
}


@pytest.mark.parametrize("given", REFUSED)
def test_wrong_values_are_refused_with_a_word_on_what_is_wrong(given: str) -> None:
    with pytest.raises(HelmError) as refusal:
        helm("template", str(CHART), "--set", given)
    assert re.search(REFUSED[given], str(refusal.value)), refusal.value


def test_zones_without_an_evaluation_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HelmError, match=r"no effect without evaluation\.enabled"):
        render({"evaluation": {"zones": ZONES}}, tmp_path)


def test_an_older_kubernetes_is_refused() -> None:
    with pytest.raises(HelmError, match=re.escape("requires kubeVersion: >=1.31.0-0")):
        helm("template", str(CHART), "--kube-version=1.30.4")


def fields(schema: Stored, path: str = "") -> Iterator[str]:
    """The paths of all values that the schema knows, down to those that it leaves open."""
    for name, part in schema.get("properties", {}).items():
        if "properties" in part:
            yield from fields(part, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def lines(node: yaml.MappingNode, path: str = "") -> Iterator[tuple[str, int]]:
    """The paths of all values that are given, and the lines on which they are."""
    for key, value in node.value:
        yield f"{path}{key.value}", key.start_mark.line
        if isinstance(value, yaml.MappingNode):
            yield from lines(value, f"{path}{key.value}.")


def test_every_value_is_in_the_schema_and_has_a_comment() -> None:
    """That none is there which the schema does not know, Helm sees itself."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    root = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    there = dict(lines(root))
    known = set(fields(SCHEMA)) - {"global"}
    assert known - there.keys() == set()
    before = text.splitlines()
    assert [path for path in known if not before[there[path] - 1].lstrip().startswith("# ")] == []


def test_the_zones_of_the_example_are_those_of_the_one_machine_world() -> None:
    inventories = {path.parent.name: yaml.safe_load(path.read_text("utf-8")) for path in DEMO.glob("*/inventory.yaml")}
    assert {name: {"zone": name, **zone} for name, zone in ZONES.items()} == inventories
