"""Where Argo CD comes from: built once from the module that `go.mod` beside this file names, as the API server is."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from demo import go, packages
from demo.cache import BuildError, built, cache_root

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
    return built(cache_root() / f"argocd-{go.fingerprint(HERE)}", "Argo CD", _build)


def _build(target: Path) -> None:
    tool = go.find_go()
    with tempfile.TemporaryDirectory(prefix=f"{target.name}-", dir=target.parent) as scratch:
        made = Path(scratch) / "built"
        made.mkdir()
        what = "building Argo CD from its Go module: about 6 minutes on two cores, once"
        go.run_build(what, go.build_command(tool, f"{MODULE}/cmd", made / PROGRAM), HERE)
        for name in NAMES:
            (made / name).symlink_to(PROGRAM)
        where = [str(tool), "list", "-m", "-f", "{{.Dir}}", MODULE]
        module = subprocess.run(where, cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()
        for name in CRDS:
            shutil.copyfile(Path(module) / "manifests" / "crds" / name, made / name)
        made.rename(target)


if __name__ == "__main__":
    packages.ensure(packages.ARGOCD)
    try:
        programs()
    except BuildError as error:
        sys.exit(f"error: {error}")
