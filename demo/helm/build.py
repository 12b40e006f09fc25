"""Where Helm comes from: built once from the module that `go.mod` beside this file names, as the API server is.

It has a module of its own, so that a newer Helm does not mean another API server. Its versions of Kubernetes' modules
are the API server's, so that most of what it is made of is compiled already.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from demo import go
from demo.cache import BuildError, built, cache_root

HERE: Final = Path(__file__).parent
CHART: Final = HERE.parent.parent / "charts" / "lifeboat"
MODULE: Final = "helm.sh/helm/v4"
RUN_SECONDS: Final = 120.0


class HelmError(RuntimeError):
    """Helm did not do what was asked; the message is what it said."""


def program() -> Path:
    """Return the program, building it if need be.

    Raises:
        BuildError: Go is missing or too old, or the build failed.
    """
    return built(cache_root() / f"helm-{go.fingerprint(HERE)}", "Helm", _build)


def helm(*arguments: str, kubeconfig: Path | None = None) -> str:
    """Run Helm and return what it printed; of this machine's settings, plugins and caches it knows nothing.

    Raises:
        HelmError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="lifeboat-helm-") as home:
        folders = {f"HELM_{name}_HOME": f"{home}/{name.lower()}" for name in ("CACHE", "CONFIG", "DATA")}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))}
        where = ["--kubeconfig", str(kubeconfig)] if kubeconfig is not None else []
        done = subprocess.run(
            [program(), *arguments, *where],
            env={**kept, **folders},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
    if done.returncode != 0:
        raise HelmError(f"helm {' '.join(arguments)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def version(go_mod: str) -> str:
    """Return the version of Helm that a go.mod asks for, such as v4.3.1."""
    found = re.search(rf"^\s*(?:require )?{re.escape(MODULE)} (v\d+\.\d+\.\d+\S*)", go_mod, re.MULTILINE)
    if found is None:
        raise BuildError(f"go.mod does not require {MODULE}")
    return found[1]


def _build(target: Path) -> None:
    linked = f"-s -w -X {MODULE}/internal/version.version={version((HERE / 'go.mod').read_text())}"
    with tempfile.TemporaryDirectory(prefix=f"{target.name}-", dir=target.parent) as scratch:
        made = Path(scratch) / "helm"
        what = "building Helm from its Go module: about 4 minutes on two cores, once"
        go.run_build(what, go.build_command(go.find_go(), f"{MODULE}/cmd/helm", made, linked), HERE)
        made.rename(target)
