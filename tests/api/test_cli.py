"""The command line against the real API server: with an ordinary kubeconfig, and with everything that can be amiss."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client as kubernetes

from demo.controlplane import ControlPlane
from lifeboat.__main__ import main
from lifeboat.api import names
from lifeboat.api.common import Resource
from lifeboat.cli import client
from tests.conftest import connect, install_crds
from tests.unit import cli_world as day

OPERATOR = Path(__file__).parent.parent.parent / "operator"
NAMESPACE = "shop"
RECOVERY: dict[str, Any] = {
    "networks": [{"name": "rescue", "cidr": "10.2.0.0/24", "taken": [{"address": "10.2.0.1", "by": "db-1/failover"}]}],
    "elasticIPs": [{"address": "127.0.10.5", "usedBy": "db-1/failover"}],
    "cpu": 8,
    "memory": "16Gi",
    "ssd": True,
}
INVENTORY: dict[str, Any] = {"primary": {"servers": ["db-1", "web-1"], "serverCount": 2}, "recovery": RECOVERY}


@pytest.fixture(scope="module")
def objects(control_plane: ControlPlane) -> Iterator[kubernetes.CustomObjectsApi]:
    """The day's objects in a namespace of their own, as the operator would have left them."""
    with connect(control_plane) as connection:
        namespace = kubernetes.V1Namespace(metadata=kubernetes.V1ObjectMeta(name=NAMESPACE))
        kubernetes.CoreV1Api(connection).create_namespace(namespace)
        api = kubernetes.CustomObjectsApi(connection)
        for resource in (day.pair(inventory=INVENTORY), *day.DAY.servers, *day.DAY.drills, *day.DAY.failovers):
            store(api, resource)
        yield api


def store(api: kubernetes.CustomObjectsApi, resource: Resource) -> None:
    body = resource.as_dict()
    metadata = {"name": resource.metadata.name}
    where = (names.GROUP, names.VERSION, NAMESPACE, resource.PLURAL)
    api.create_namespaced_custom_object(*where, {**body, "metadata": metadata})
    apply_status(api, resource, body["status"])


def apply_status(api: kubernetes.CustomObjectsApi, resource: Resource, status: dict[str, Any]) -> None:
    api.patch_namespaced_custom_object_status(
        names.GROUP,
        names.VERSION,
        NAMESPACE,
        resource.PLURAL,
        resource.metadata.name,
        {
            "apiVersion": names.API_VERSION,
            "kind": resource.kind,
            "metadata": {"name": resource.metadata.name},
            "status": status,
        },
        field_manager=names.FIELD_MANAGER,
        force=True,
        _content_type="application/apply-patch+yaml",
    )


@pytest.fixture
def kubeconfig(control_plane: ControlPlane, objects: object, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: ARG001
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    return control_plane.kubeconfig


def edited(kubeconfig: Path, to: Path, **changes: Any) -> Path:
    """A kubeconfig with another server, user or namespace."""
    body = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    body["clusters"][0]["cluster"].update(changes.get("cluster", {}))
    body["users"][0]["user"].update(changes.get("user", {}))
    body["contexts"][0]["context"].update(changes.get("context", {}))
    to.write_text(yaml.safe_dump(body), encoding="utf-8")
    return to


@pytest.mark.usefixtures("kubeconfig")
def test_status_of_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "-n", NAMESPACE]) == client.FINE
    told = capsys.readouterr()
    assert told.err == ""
    assert "fire      db      your turn    AwaitingCommit  tip-2" in told.out
    assert "web-1  ok             Replicating  0 s" in told.out
    assert "##############..........  62 %" in told.out
    assert main(["status", "-A"]) == client.FINE
    assert "shop/web" in capsys.readouterr().out


@pytest.mark.usefixtures("kubeconfig")
def test_status_of_one_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "web", "-n", NAMESPACE]) == client.FINE
    assert "Recovery points (3)" in capsys.readouterr().out
    assert main(["status", "-A", "nas-3"]) == client.FINE
    assert capsys.readouterr().out.startswith("files  server nas-3  namespace shop")


def test_the_namespace_of_the_context_is_the_default(
    kubeconfig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = edited(kubeconfig, tmp_path / "config", context={"namespace": NAMESPACE})
    assert main(["status", "--kubeconfig", str(own)]) == client.FINE
    assert "namespace shop" in capsys.readouterr().out


@pytest.mark.usefixtures("kubeconfig")
def test_inventory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inventory", "north", "-n", NAMESPACE]) == client.FINE
    told = capsys.readouterr().out
    assert "rescue   10.2.0.0/24  recovery  1      10.2.0.2, 10.2.0.3, 10.2.0.4" in told
    assert "web-1   protected as web" in told


@pytest.mark.usefixtures("kubeconfig")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status", "wbe"], "there is no ProtectedServer wbe in namespace shop. There are: db, files, web"),
        (["status", "fire"], "fire is a Failover, of server db"),
        (["inventory", "south"], "there is no SitePair south in namespace shop. There are: north"),
    ],
)
def test_a_name_that_is_not_there(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "-n", NAMESPACE]) == client.REFUSED
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"lifeboat {arguments[0]}: ")
    assert words in told.err
    assert told.err.count("\n") == 1


def test_an_operator_that_is_not_there_is_told_from_its_lease(
    objects: kubernetes.CustomObjectsApi,
    kubeconfig: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "LEASE_NAME", "watchkeeper")  # the usual one may be held by another test's operator
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "watchkeeper"},
        "spec": {"renewTime": "2025-01-01T00:00:00.000000Z"},
    }
    objects.create_namespaced_custom_object("coordination.k8s.io", "v1", NAMESPACE, "leases", lease)
    assert main(["status", "-n", NAMESPACE, "--kubeconfig", str(kubeconfig)]) == client.FINE
    assert "No operator has been there for" in capsys.readouterr().out


def test_without_the_crds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ControlPlane(tmp_path / "bare") as bare:
        for arguments in (["status"], ["inventory", "north"]):
            assert main([*arguments, "--kubeconfig", str(bare.kubeconfig)]) == client.REFUSED
            told = capsys.readouterr().err
            assert "Lifeboat's CRDs are not installed here" in told
            assert "kubectl apply -f crds/" in told


@pytest.mark.parametrize("arguments", [["status"], ["status", "-w"], ["status", "web"], ["inventory", "north"]])
def test_an_api_server_that_does_not_answer(
    arguments: list[str], kubeconfig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = edited(kubeconfig, tmp_path / "config", cluster={"server": "https://127.0.0.1:1"})
    assert main([*arguments, "--kubeconfig", str(own)]) == client.SILENT
    told = capsys.readouterr().err
    assert "the API server does not answer" in told
    assert "Traceback" not in told


def test_a_user_that_is_not_known(kubeconfig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = edited(kubeconfig, tmp_path / "config", user={"token": "nobody"})
    assert main(["status", "--kubeconfig", str(own)]) == client.REFUSED
    assert "the API server refuses" in capsys.readouterr().err


@pytest.mark.parametrize("text", [None, "", "[]", "{", "apiVersion: v1\nkind: Config\n"])
def test_a_kubeconfig_that_cannot_be_used(text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert main(["status", "--kubeconfig", str(path)]) == client.REFUSED
    assert f"kubeconfig {path} cannot be used" in capsys.readouterr().err


def test_a_context_that_is_not_there(kubeconfig: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--context", "elsewhere", "--kubeconfig", str(kubeconfig)]) == client.REFUSED
    assert "elsewhere" in capsys.readouterr().err


def test_watching_tells_what_changes_and_ends_quietly(
    kubeconfig: Path, objects: kubernetes.CustomObjectsApi, tmp_path: Path
) -> None:
    with watching(kubeconfig, NAMESPACE, tmp_path / "log") as log:
        await_text(log, "62 %")
        status = day.FILES.as_dict()["status"]
        apply_status(objects, day.FILES, {**status, "progress": {**status["progress"], "percent": 63}})
        await_text(log, "63 %")


def test_watching_goes_on_through_an_outage(tmp_path: Path) -> None:
    with ControlPlane(tmp_path / "plane") as plane:
        with connect(plane) as connection:
            install_crds(connection)
        while main(["status", "--kubeconfig", str(plane.kubeconfig)]) == client.SILENT:
            time.sleep(0.1)  # the API server prepares its storage for kinds that are new
        with watching(plane.kubeconfig, "default", tmp_path / "log") as log:
            await_text(log, "Nothing is here yet")
            plane.stop()
            await_text(log, "the API server does not answer")
            plane.start()
            await_text(log, "Nothing is here yet", times=2)


@contextmanager
def watching(kubeconfig: Path, namespace: str, log: Path) -> Iterator[Path]:
    """A `lifeboat status --watch` that writes to the log, and ends well when it is interrupted."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lifeboat", "status", "-n", namespace, "--watch"],
            env={**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(OPERATOR)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield log
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == client.FINE
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text(encoding="utf-8")


def await_text(path: Path, text: str, times: int = 1, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while path.read_text(encoding="utf-8").count(text) < times:
        assert time.monotonic() < deadline, path.read_text(encoding="utf-8")
        time.sleep(0.05)
