"""The chart's evaluation, as the page about installing tells it: the image runs real machines in a pod with both zones.

There is nobody here who starts pods, so the test does with the Deployment what a node would: it runs its containers
from the image, restricted, with its volumes and the token of its ServiceAccount, in a network of their own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from demo import guest
from demo.controlplane import ControlPlane
from demo.helm import CHART, helm
from demo.network import enter_own_network
from demo.world import end
from tests.image.containers import command, page

pytestmark = pytest.mark.timeout(1800)
ROOT = CHART.parent.parent
NAMESPACE = "lifeboat"
TOKEN = "/run/secrets/kubernetes.io/serviceaccount"  # /var/run leads there, in the image and outside
PORT = 8080


@dataclass
class Pod:
    """The pod of a Deployment."""

    plane: ControlPlane
    folder: Path
    root: Path
    settings: dict[str, Any]
    spec: dict[str, Any] = field(default_factory=dict)
    volumes: dict[str, Path] = field(default_factory=dict)

    def prepare(self) -> None:
        """Make what it mounts, and set what it may set."""
        deployment = json.loads(self.plane.kubectl("get", "deploy", "lifeboat", "-n", NAMESPACE, "--output=json"))
        self.spec = deployment["spec"]["template"]["spec"]
        for volume in self.spec["volumes"]:
            path = self.volumes[volume["name"]] = self.folder / "volumes" / volume["name"]
            path.mkdir(parents=True)
            if "configMap" in volume:
                name = volume["configMap"]["name"]
                found = json.loads(self.plane.kubectl("get", "configmap", name, "-n", NAMESPACE, "--output=json"))
                for key, text in found["data"].items():
                    (path / key).write_text(text, encoding="utf-8")
            else:
                group = self.spec["securityContext"]["fsGroup"]
                os.chown(path, 0, group)
                path.chmod(0o2775)
        secrets = self.volumes[TOKEN] = self.folder / "volumes" / "token"
        secrets.mkdir()
        account = self.spec["serviceAccountName"]
        token = self.plane.kubectl("create", "token", account, "-n", NAMESPACE).strip()
        (secrets / "token").write_text(token, encoding="utf-8")
        (secrets / "namespace").write_text(NAMESPACE, encoding="utf-8")
        shutil.copy(self.plane.folder / "certificates" / "apiserver.crt", secrets / "ca.crt")
        for setting in self.spec["securityContext"]["sysctls"]:
            Path("/proc/sys", *setting["name"].split(".")).write_text(setting["value"], encoding="ascii")

    def enter(self, container: dict[str, Any], *arguments: str) -> list[str]:
        """The command that runs something in a container."""
        mounts = {each["mountPath"]: self.volumes[each["name"]] for each in container["volumeMounts"]}
        host, port = self.plane.server.removeprefix("https://").split(":")
        given = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        return command(self.root, self.settings, {**mounts, TOKEN: self.volumes[TOKEN]}, *arguments, environment=given)

    def start(self) -> subprocess.Popen[bytes]:
        """Run the first containers to their end, and start the operator."""
        for container in self.spec["initContainers"]:
            subprocess.run(self.enter(container, *container["command"], *container["args"]), check=True, timeout=60)
        [operator] = self.spec["containers"]
        with (self.folder / "operator.log").open("wb") as log:
            return subprocess.Popen(
                self.enter(operator, *self.settings["Entrypoint"], *operator["args"]), stdout=log, stderr=log
            )

    def types(self, block: str, where: Path) -> None:
        """Type commands of `kubectl exec`, each of which runs in the operator's container."""
        [operator] = self.spec["containers"]
        programs = self.folder / "bin"
        programs.mkdir()
        kubectl = programs / "kubectl"
        started = shlex.join(self.enter(operator))
        kubectl.write_text(f'#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec {started} "$@"\n', "utf-8")
        kubectl.chmod(0o755)
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        subprocess.run(["bash", "-euc", block], cwd=where, env=environment, check=True, timeout=300)


@pytest.fixture
def pod(root: Path, settings: dict[str, Any], tmp_path: Path) -> Iterator[Pod]:
    made = Pod(ControlPlane(tmp_path / "controlplane", namespace="demo"), tmp_path, root, settings)
    yield made
    for pid_file in (tmp_path / "volumes").rglob("*.pid"):
        end(pid_file)
    made.plane.stop()


def test_a_server_is_protected_in_the_evaluations_pod(pod: Pod) -> None:
    failed: list[BaseException] = []

    def story() -> None:
        try:
            enter_own_network()
            walk(pod)
        except BaseException as error:  # noqa: BLE001 - raised below
            failed.append(error)

    thread = threading.Thread(target=story)
    thread.start()
    thread.join()
    if failed:
        log = pod.folder / "operator.log"
        raise AssertionError(log.read_text(encoding="utf-8")[-3000:] if log.exists() else "not started") from failed[0]


def walk(pod: Pod) -> None:
    plane, disks = pod.plane, pod.folder / "disks"
    guest.copy_disks(guest.build("tiny"), disks)
    plane.start()
    options = [f"--namespace={NAMESPACE}", "--create-namespace", f"--values={CHART / 'examples' / 'evaluation.yaml'}"]
    helm("install", "lifeboat", str(CHART), *options, kubeconfig=plane.kubeconfig)
    pod.prepare()
    operator = pod.start()
    try:
        deadline = time.monotonic() + 120
        while page(PORT, "/readyz") != "ok\n":
            assert operator.poll() is None, "it has ended"
            assert time.monotonic() < deadline, "it does not become ready"
            time.sleep(0.1)
        page_text = (ROOT / "docs" / "how-to" / "install.md").read_text(encoding="utf-8")
        [block] = [each for each in re.findall(r"```sh\n(.*?)```", page_text, re.DOTALL) if " exec " in each]
        pod.types(block, disks)
        for name in ("1-sitepair.yaml", "2-protectedserver.yaml"):
            plane.kubectl("apply", "-f", str(ROOT / "demo" / "manifests" / name))
        plane.kubectl("wait", "--for=condition=Ready", "sp/a-to-b", "--timeout=60s")
        wait = ["--for=jsonpath={.status.phase}=Replicating", "ps/orders-db", "--timeout=300s"]
        plane.kubectl("wait", *wait, timeout=310)
    finally:
        operator.terminate()
        operator.wait(60)
