"""A reader of dashboards, built from Grafana's own Go module: what it complains of, Grafana does not know."""

import subprocess
import tempfile
from pathlib import Path
from typing import Final

from demo import go
from demo.cache import built, cache_root

HERE: Final = Path(__file__).parent
BUILD_SECONDS: Final = 600


def reader() -> Path:
    """The program, built if need be."""
    return built(cache_root() / f"grafana-{go.fingerprint(HERE, 'main.go')}", "a reader of dashboards", _build)


def complaints(dashboard: Path) -> str:
    """What is wrong with a dashboard; empty where nothing is."""
    done = subprocess.run([reader(), dashboard], capture_output=True, text=True, check=False, timeout=60)
    assert bool(done.returncode) == bool(done.stderr)
    return done.stderr


def _build(target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{target.name}-", dir=target.parent) as scratch:
        made = Path(scratch) / "reader"
        what = "building a reader of dashboards from Grafana's Go module: about 1 minute on two cores, once"
        go.run_build(what, go.build_command(go.find_go(), ".", made), HERE)
        made.rename(target)
