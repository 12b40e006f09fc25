"""The dashboard loads: its structure is Grafana's, and it asks only what Prometheus can answer."""

import re
from pathlib import Path
from typing import Any

import yaml

from tests.observability import dashboard
from tests.observability.prometheus import Programs
from tests.observability.test_rules import METRIC, reference_rows, told

PANELS = {"row", "stat", "table", "timeseries", "bargauge", "state-timeline"}
COLUMNS = 24  # of Grafana's grid


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dashboard.load()["panels"]
    return found


def test_the_structure_is_what_grafana_loads() -> None:
    board = dashboard.load()
    assert board["uid"] == "lifeboat"
    assert isinstance(board["schemaVersion"], int)
    assert {"title", "tags", "time", "templating", "annotations", "panels"} <= board.keys()
    assert "id" not in board, "the number of a dashboard is given by the Grafana that imports it"
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    for panel in panels():
        assert panel["type"] in PANELS, panel["title"]
        assert panel["title"]
        if panel["type"] == "row":
            continue
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert {"defaults", "overrides"} == panel["fieldConfig"].keys()
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(set(references)) == len(references), panel["title"]
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])


def test_no_panel_lies_on_another_one() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


def test_every_variable_that_is_used_is_there() -> None:
    board = dashboard.load()
    names = {each["name"] for each in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", str(board))) - {"__rate_interval", "__all"}
    assert used == names


def test_every_expression_is_right(prometheus: Programs, tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": asked} for n, (_, asked) in enumerate(dashboard.expressions())]
    path = tmp_path / "expressions.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    assert f"{len(rules)} rules found" in prometheus.check("check", "rules", path)


def test_every_expression_asks_for_metrics_that_exist() -> None:
    for title, expression in dashboard.expressions():
        used = set(METRIC.findall(expression))
        assert used, title
        assert used <= told(), title


def test_every_metric_of_the_operator_is_shown() -> None:
    asked = " ".join(expression for _, expression in dashboard.expressions())
    hidden = {name for name, _ in reference_rows() if name.startswith("lifeboat_") and name not in asked}
    assert hidden == {"lifeboat_server_created_timestamp_seconds"}, (
        "the alert for a server that never was drilled has it"
    )
