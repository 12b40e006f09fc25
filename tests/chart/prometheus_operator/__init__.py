"""The kinds that the Prometheus Operator publishes, from its Go module: the chart is held against the real ones."""

import json
import subprocess
from pathlib import Path
from typing import Final

from demo import go
from demo.controlplane import ControlPlane

HERE: Final = Path(__file__).parent
MODULE: Final = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
KINDS: Final = ("servicemonitors", "prometheusrules")
DOWNLOAD_SECONDS: Final = 300


def definitions() -> Path:
    """The folder with the kinds, downloaded if need be."""
    command = [str(go.find_go()), "mod", "download", "-json", MODULE]
    said = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True, timeout=DOWNLOAD_SECONDS)
    return Path(json.loads(said.stdout)["Dir"]) / "example" / "prometheus-operator-crd"


def install(plane: ControlPlane) -> None:
    """Let an API server serve the kinds that the chart may make objects of."""
    folder = definitions()
    for kind in KINDS:
        plane.kubectl("apply", "--server-side", "-f", str(folder / f"monitoring.coreos.com_{kind}.yaml"))
    names = [f"crd/{kind}.monitoring.coreos.com" for kind in KINDS]
    plane.kubectl("wait", "--for=condition=Established", *names, "--timeout=30s")
