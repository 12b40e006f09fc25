"""The dashboard is one by the schema that Grafana publishes: nothing in it is unknown to it, and nothing is missing."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from demo import go
from demo.cache import built, cache_root
from demo.helm import CHART

MODULE = Path(__file__).parent / "grafana"
DASHBOARD = CHART / "files" / "dashboard.json"
BUILD_SECONDS = 600

pytestmark = pytest.mark.timeout(BUILD_SECONDS)


def build(target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{target.name}-", dir=target.parent) as scratch:
        made = Path(scratch) / "reader"
        what = "building a reader of dashboards from Grafana's Go module: about 1 minute on two cores, once"
        go.run_build(what, go.build_command(go.find_go(), ".", made), MODULE)
        made.rename(target)


def complaints(dashboard: Path) -> str:
    program = built(cache_root() / f"grafana-{go.fingerprint(MODULE, 'main.go')}", "a reader of dashboards", build)
    done = subprocess.run([program, dashboard], capture_output=True, text=True, check=False, timeout=60)
    assert bool(done.returncode) == bool(done.stderr)
    return done.stderr


def test_it_is_one() -> None:
    assert complaints(DASHBOARD) == ""


def test_a_dashboard_that_is_not_is_told_from_one(tmp_path: Path) -> None:
    board: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    board["panels"][10]["gridPos"]["width"] = 12
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(board), encoding="utf-8")
    assert "unexpected field 'width'" in complaints(wrong)
