"""Where etcd, kube-apiserver and kubectl come from.

They are built from the modules that `go.mod` beside this file names, because that needs nothing but a Go module proxy,
and `go.sum` vouches for every byte. The result is kept outside the checkout, under a name made from both files, so that
a clean checkout finds it again and an upgrade builds anew.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

from demo import go
from demo.cache import BuildError, cache_root, locked, noted

HERE: Final = Path(__file__).parent
PROGRAMS: Final = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
}
DURATIONS: Final = {"etcd": "about 1 minute", "kubectl": "about 2 minutes", "kube-apiserver": "about 5 minutes"}


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
    target = cache_root() / f"controlplane-{go.fingerprint(HERE)}"
    if not missing(target):
        return target
    with locked(target.with_suffix(".lock"), "another process is building the control plane: waiting for it"):
        if missing(target):
            _build(target)
    return target


def missing(folder: Path) -> list[str]:
    """Return the names of the programs that are not in the folder."""
    return [name for name in sorted(PROGRAMS) if not os.access(folder / name, os.X_OK)]


def kubernetes_version(go_mod: str) -> str:
    """Return the version of k8s.io/kubernetes that a go.mod asks for, such as v1.37.2."""
    found = re.search(r"^\s*(?:require )?k8s\.io/kubernetes (v\d+\.\d+\.\d+\S*)", go_mod, re.MULTILINE)
    if found is None:
        raise BuildError("go.mod does not require k8s.io/kubernetes")
    return found[1]


def build_command(tool: Path, name: str, output: Path, version: str) -> list[str]:
    """Return the command that builds one program; without the linker flags Kubernetes calls itself v0.0.0."""
    ldflags = "-s -w"
    if name != "etcd":
        major, minor = version.removeprefix("v").split(".")[:2]
        at = "k8s.io/component-base/version"
        ldflags += f" -X {at}.gitVersion={version} -X {at}.gitMajor={major} -X {at}.gitMinor={minor}"
        ldflags += f" -X {at}.gitTreeState=clean"
    return go.build_command(tool, PROGRAMS[name], output, ldflags)


def _build(target: Path) -> None:
    tool = go.find_go()
    version = kubernetes_version((HERE / "go.mod").read_text())
    with tempfile.TemporaryDirectory(prefix=f"{target.name}-", dir=target.parent) as scratch:
        for name in PROGRAMS:
            what = f"building {name} from its Go module: {DURATIONS[name]} on two cores, once"
            command = build_command(tool, name, Path(scratch) / name, version)
            with noted(target, name):
                go.run_build(what, command, HERE)
        built = Path(scratch) / "bin"
        built.mkdir()
        for name in PROGRAMS:
            (Path(scratch) / name).rename(built / name)
        shutil.rmtree(target, ignore_errors=True)
        built.rename(target)
