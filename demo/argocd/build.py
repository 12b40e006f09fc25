"""Where Argo CD comes from: built once from the module that `go.mod` beside this file names, as the API server is."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from demo import packages
from demo.cache import BuildError, cache_root, locked, run_with_progress
from demo.controlplane.build import find_go, fingerprint

HERE: Final = Path(__file__).parent
MODULE: Final = "github.com/argoproj/argo-cd/v3"
PROGRAM: Final = "argocd"
NAMES: Final = ("argocd-application-controller", "argocd-repo-server")  # it acts by the name that it is called by
CRDS: Final = ("application-crd.yaml", "applicationset-crd.yaml", "appproject-crd.yaml")


def programs() -> Path:
    """Return the folder with Argo CD's programs and its CRDs, building them if need be.

    Raises:
        BuildError: Go is missing or too old, or the build failed.
    """
    target = cache_root() / f"argocd-{fingerprint(HERE)}"
    if not target.is_dir():
        with locked(target.with_suffix(".lock"), "another process is building Argo CD: waiting for it"):
            if not target.is_dir():
                _build(target)
    return target


def _build(target: Path) -> None:
    go = find_go()
    with tempfile.TemporaryDirectory(prefix=f"{target.name}-", dir=target.parent) as scratch:
        built = Path(scratch) / "built"
        built.mkdir()
        options = ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w"]
        command = [str(go), "build", *options, "-o", str(built / PROGRAM), f"{MODULE}/cmd"]
        what = "building Argo CD from its Go module: about 6 minutes on two cores, once"
        run_with_progress(what, command, cwd=HERE, env={**os.environ, "CGO_ENABLED": "0"})
        for name in NAMES:
            (built / name).symlink_to(PROGRAM)
        where = [str(go), "list", "-m", "-f", "{{.Dir}}", MODULE]
        module = subprocess.run(where, cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()
        for name in CRDS:
            shutil.copyfile(Path(module) / "manifests" / "crds" / name, built / name)
        built.rename(target)


if __name__ == "__main__":
    packages.ensure(packages.ARGOCD)
    try:
        programs()
    except BuildError as error:
        sys.exit(f"error: {error}")
