"""The image is built and started once, as a restricted pod would be: nobody's number, no rights, nothing to write on.

It takes minutes, so it is a run of its own: `make test-image`.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from demo.cache import run
from demo.controlplane import ControlPlane
from image import build
from tests.conftest import connect
from tests.image.containers import STATE, command, page
from tests.observability.prometheus import free_port

pytestmark = pytest.mark.timeout(1800)


def test_it_says_what_it_is_and_runs_as_nobody(settings: dict[str, Any]) -> None:
    user, _, group = settings["User"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    labels = settings["Labels"]
    assert labels["org.opencontainers.image.version"] == build.version()
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert settings["Entrypoint"] == ["lifeboat"]
    assert settings["Cmd"] == ["operator"]


def test_it_has_what_the_engines_need_and_nothing_that_builds(
    root: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    for program in ("qemu-system-x86_64", "qemu-img", "qemu-storage-daemon"):
        said = run(command(root, settings, {STATE: tmp_path}, program, "--version"))
        assert "version" in said
    assert "lifeboat" in run(command(root, settings, {STATE: tmp_path}, "lifeboat", "--help"))
    bindings = ("/usr/bin/python3", "-I", "-B", "-c", "import rados, rbd; print(rbd.RBD().version())")
    assert "(" in run(command(root, settings, {STATE: tmp_path}, *bindings))
    assert list(root.glob("usr/lib/*/qemu/block-rbd.so"))
    path = next(each for each in settings["Env"] if each.startswith("PATH=")).removeprefix("PATH=")
    folders = os.pathsep.join(str(root) + folder for folder in path.split(os.pathsep))
    assert [name for name in ("gcc", "cc", "make", "pip", "pip3", "git") if shutil.which(name, path=folders)] == []
    assert list((root / "var" / "lib" / "apt" / "lists").iterdir()) == []
    assert not (root / "root" / ".cache").exists()


def test_it_runs_against_a_real_api_server(
    root: Path, settings: dict[str, Any], control_plane: ControlPlane, tmp_path: Path
) -> None:
    namespace, port = "image", free_port()
    with connect(control_plane) as connection:
        metadata = client.V1ObjectMeta(name=namespace)
        client.CoreV1Api(connection).create_namespace(client.V1Namespace(metadata=metadata))
    tmp_path.chmod(0o755)
    (tmp_path / "zones").mkdir()
    config = yaml.safe_load(control_plane.kubeconfig.read_text(encoding="utf-8"))
    authority = Path(config["clusters"][0]["cluster"]["certificate-authority"])
    shutil.copy(authority, tmp_path / "ca.crt")
    config["clusters"][0]["cluster"]["certificate-authority"] = f"{STATE}/ca.crt"
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config), encoding="utf-8")
    for each in ("ca.crt", "kubeconfig"):
        (tmp_path / each).chmod(0o644)
    arguments = [*settings["Entrypoint"], *settings["Cmd"], "--http", f"127.0.0.1:{port}", "--log-format", "json"]
    arguments += ["--kubeconfig", f"{STATE}/kubeconfig", "--namespace", namespace, "--lease-namespace", namespace]
    process = subprocess.Popen(
        command(root, settings, {STATE: tmp_path}, *arguments), stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while page(port, "/readyz") != "ok\n" or "lifeboat_leader 1.0" not in page(port, "/metrics"):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline, "it does not become ready, or does not lead"
            time.sleep(0.1)
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text("utf-8").splitlines()
        )
        assert "0" not in status["Uid"].split()
        assert "0" not in status["Gid"].split()
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        process.terminate()
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait(30)
    assert process.returncode == 0, said
    assert "acting" in {json.loads(line)["message"] for line in said.splitlines()}
