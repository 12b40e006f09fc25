"""The dashboard is one by the schema that Grafana publishes: nothing in it is unknown to it, and nothing is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from demo.helm import CHART
from tests.chart import grafana

DASHBOARD = CHART / "files" / "dashboard.json"
pytestmark = pytest.mark.timeout(grafana.BUILD_SECONDS)


def test_it_is_one() -> None:
    assert grafana.complaints(DASHBOARD) == ""


def test_a_dashboard_that_is_not_is_told_from_one(tmp_path: Path) -> None:
    board: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    board["panels"][10]["gridPos"]["width"] = 12
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(board), encoding="utf-8")
    assert "unexpected field 'width'" in grafana.complaints(wrong)
