"""Argo CD's controller and repo server with a Redis, as processes beside an API server."""

from __future__ import annotations

import copy
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from demo import packages
from demo.argocd import build
from demo.controlplane import ControlPlane, ControlPlaneError

NAMESPACE: Final = "argocd"
CLUSTER: Final = "the-cluster"
STOP_SECONDS: Final = 15.0
# By default Argo CD deletes in the foreground, which the garbage collector of a controller manager brings to its end.
# There is none beside this API server.
IN_BACKGROUND: Final = "PrunePropagationPolicy=background"


class ArgoCD:
    """A real Argo CD that syncs from a local git repository. `folder` keeps its logs and the repository.

    It is as its own installation leaves it and knows nothing of Lifeboat.
    """

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self._plane = plane
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Install CRDs and settings, and start the three processes."""
        packages.ensure(packages.ARGOCD)
        programs = build.programs()
        for name in build.CRDS:
            self._plane.kubectl("apply", "--server-side", "-f", str(programs / name))
        self._await_served()
        self._plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(self._objects()))
        self._init_repository()
        redis, repo, metrics, controller = (_free_port() for _ in range(4))
        self._launch(["redis-server", "--bind", "127.0.0.1", "--port", str(redis), "--save", "", "--appendonly", "no"])
        self._launch(
            [
                str(programs / "argocd-repo-server"),
                "--disable-tls",
                "--address=127.0.0.1",
                f"--port={repo}",
                f"--redis=127.0.0.1:{redis}",
                "--metrics-address=127.0.0.1",
                f"--metrics-port={metrics}",
            ]
        )
        self._launch(
            [
                str(programs / "argocd-application-controller"),
                "--repo-server-plaintext",
                f"--repo-server=127.0.0.1:{repo}",
                f"--redis=127.0.0.1:{redis}",
                f"--metrics-port={controller}",
                f"--kubeconfig={self._plane.kubeconfig}",
                f"--namespace={NAMESPACE}",
                "--app-resync=10",
            ]
        )

    def stop(self) -> None:
        """End the processes, the last one first."""
        for child in reversed(self._children):
            child.terminate()
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._children.clear()

    def push(self, message: str) -> None:
        """Commit what is in the repository's folder."""
        self._git("add", "-A")
        self._git("commit", "-q", "-m", message)

    def revert(self) -> None:
        """Revert the last commit."""
        self._git("revert", "--no-edit", "HEAD")

    @property
    def head(self) -> str:
        """The revision that is to be synced."""
        return self._git("rev-parse", "HEAD")

    def apply(self, application: Mapping[str, Any]) -> None:
        """Apply an Application, pointed to the local repository and to this API server."""
        body = copy.deepcopy(dict(application))
        body["spec"]["source"]["repoURL"] = f"file://{self.repository}"
        body["spec"]["destination"] = {"name": CLUSTER, "namespace": body["spec"]["destination"]["namespace"]}
        body["spec"].setdefault("syncPolicy", {})["syncOptions"] = [IN_BACKGROUND]
        self._plane.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def delete(self, name: str) -> None:
        """Delete an Application with all that belongs to it."""
        cascade = '{"metadata": {"finalizers": ["resources-finalizer.argocd.argoproj.io/background"]}}'
        self._plane.kubectl("-n", NAMESPACE, "patch", "application", name, "--type=merge", "-p", cascade)
        self._plane.kubectl("-n", NAMESPACE, "delete", "application", name, "--timeout=50s")

    def refresh(self, name: str) -> None:
        """Let Argo CD look at the repository now."""
        mark = "argocd.argoproj.io/refresh=hard"
        self._plane.kubectl("-n", NAMESPACE, "annotate", "--overwrite", "application", name, mark)

    def sync(self, name: str, *, prune: bool = False) -> dict[str, Any]:
        """Sync to the newest revision, as the button does; the status once that has succeeded."""
        sync = {"prune": prune, "syncOptions": [IN_BACKGROUND]}
        patch = json.dumps({"operation": {"initiatedBy": {"username": "test"}, "sync": sync}})
        self._plane.kubectl("-n", NAMESPACE, "patch", "application", name, "--type=merge", "-p", patch)
        status = self._until(name, lambda found: "operation" not in found, 90.0)
        if status["operationState"]["phase"] != "Succeeded":
            raise AssertionError(f"{name} was not synced:\n{json.dumps(status['operationState'], indent=1)}")
        return status

    def status(self, name: str) -> dict[str, Any]:
        """What Argo CD says of an Application."""
        found: dict[str, Any] = self._get(name).get("status", {})
        return found

    def until(self, name: str, wanted: Callable[[dict[str, Any]], bool], *, seconds: float = 90.0) -> dict[str, Any]:
        """The status of an Application once it is as wanted."""
        return self._until(name, lambda found: wanted(found.get("status", {})), seconds)

    def _until(self, name: str, wanted: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while not wanted(found := self._get(name)):
            if time.monotonic() > deadline:
                raise AssertionError(f"{name} is not as wanted after {seconds:.0f} s:\n{json.dumps(found, indent=1)}")
            time.sleep(0.2)
        status: dict[str, Any] = found.get("status", {})
        return status

    def _get(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self._plane.kubectl("-n", NAMESPACE, "get", "application", name, "-o", "json")
        )
        return found

    def _objects(self) -> list[dict[str, Any]]:
        labels = {"app.kubernetes.io/part-of": "argocd"}

        def made(
            kind: str, name: str, api: str = "v1", extra: dict[str, str] | None = None, **body: object
        ) -> dict[str, Any]:
            metadata = {"name": name, "namespace": NAMESPACE, "labels": labels | (extra or {})}
            return {"apiVersion": api, "kind": kind, "metadata": metadata, **body}

        config = yaml.safe_load(self._plane.kubeconfig.read_text(encoding="utf-8"))
        access = {
            "bearerToken": config["users"][0]["user"]["token"],
            "tlsClientConfig": {"insecure": True},
        }
        cluster = {"name": CLUSTER, "server": self._plane.server, "config": json.dumps(access)}
        everything = [{"group": "*", "kind": "*"}]
        project = {
            "sourceRepos": ["*"],
            "destinations": [{"server": "*", "namespace": "*"}],
            "clusterResourceWhitelist": everything,
        }
        return [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            made("ConfigMap", "argocd-cm", data={}),
            made("ConfigMap", "argocd-rbac-cm", data={}),
            made("ConfigMap", "argocd-cmd-params-cm", data={}),
            made("Secret", "argocd-secret", stringData={"server.secretkey": "for-this-test-only"}),
            made("Secret", CLUSTER, extra={"argocd.argoproj.io/secret-type": "cluster"}, stringData=cluster),
            made("AppProject", "default", "argoproj.io/v1alpha1", spec=project),
        ]

    def _await_served(self, seconds: float = 60.0) -> None:
        # `kubectl wait` gives up on an object whose conditions are not there yet, as those of a new one.
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._plane.kubectl("get", "applications,appprojects,applicationsets")
            except ControlPlaneError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def _init_repository(self) -> None:
        self.repository.mkdir(parents=True)
        self._git("init", "-q", "-b", "main")

    def _git(self, *arguments: str) -> str:
        who = ["-c", "user.name=platform", "-c", "user.email=platform@example.com"]
        command = ["git", *who, *arguments]
        return subprocess.run(command, cwd=self.repository, check=True, capture_output=True, text=True).stdout.strip()

    def _launch(self, command: Sequence[str]) -> None:
        data = self.folder / "data"
        for name in ("tls", "ssh", "tmp"):
            (data / name).mkdir(parents=True, exist_ok=True)
        (data / "ssh" / "ssh_known_hosts").touch()
        environment = {
            **os.environ,
            "ARGOCD_GPG_ENABLED": "false",
            "ARGOCD_TLS_DATA_PATH": str(data / "tls"),
            "ARGOCD_SSH_DATA_PATH": str(data / "ssh"),
            "TMPDIR": str(data / "tmp"),
            "HOME": str(data),
            "PATH": f"{build.programs()}:{os.environ.get('PATH', os.defpath)}",
        }
        with (self.folder / f"{Path(command[0]).name}.log").open("ab") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=data, env=environment
            )
        self._children.append(child)

    def lay(self, path: str, *manifests: dict[str, Any]) -> None:
        """Put manifests into a folder of the repository, in place of what is there."""
        folder = self.repository / path
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for number, manifest in enumerate(manifests):
            (folder / f"{number}.yaml").write_text(yaml.safe_dump(manifest), encoding="utf-8")
        if not manifests:
            (folder / ".gitkeep").touch()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
