"""The alert rules, judged by promtool: they are right, complete, and use only what the operator tells."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lifeboat import reference
from tests.observability.prometheus import ROOT, RULES, Programs, rules

CASES = sorted(Path(__file__).parent.glob("*_test.yaml"))
METRIC = re.compile(r"\b(?:lifeboat|process)_[a-z_]+")


def expectations(alert: str) -> list[tuple[float, bool]]:
    """When it is expected to fire in the cases, and when not."""
    cases = (case for path in CASES for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"])
    asked = (each for case in cases for each in case["alert_rule_test"] if each["alertname"] == alert)
    return [(seconds(str(each["eval_time"])), bool(each.get("exp_alerts"))) for each in asked]


def seconds(text: str) -> float:
    unit = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    return sum(int(number) * unit[name] for number, name in re.findall(r"(\d+)([dhms])", text))


def reference_rows() -> list[tuple[str, str]]:
    """Name and type of each metric of the reference."""
    return re.findall(r"^\| `(\w+)` \| (\w+) \|", reference.files()["metrics.md"], re.MULTILINE)


def told() -> set[str]:
    """The names that Prometheus knows: of a histogram there are three."""
    names = set()
    for name, sort in reference_rows():
        names |= {f"{name}{end}" for end in ("_bucket", "_sum", "_count")} if sort == "histogram" else {name}
    return names


def test_the_rules_are_right(prometheus: Programs) -> None:
    assert "SUCCESS" in prometheus.check("check", "rules", "--lint-fatal", RULES)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_the_cases_hold(prometheus: Programs, path: Path) -> None:
    prometheus.check("test", "rules", path)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_alert_is_shown_not_to_fire_to_fire_and_to_clear(rule: dict[str, Any]) -> None:
    fires = [fires for _, fires in sorted(expectations(rule["alert"]))]
    assert True in fires
    assert fires[-1] is False


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_alert_says_what_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    annotations = rule["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook"}
    assert all(text.endswith(".") for text in (annotations["summary"], annotations["description"]))
    assert annotations["runbook"] == f"docs/how-to/watch.md#{rule['alert'].lower()}"


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_alert_uses_metrics_that_exist(rule: dict[str, Any]) -> None:
    used = set(METRIC.findall(rule["expr"]))
    assert used
    assert used <= told()


def test_the_page_tells_each_alert_as_the_rules_have_it() -> None:
    page = (ROOT / "docs" / "how-to" / "watch.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| \[`(\w+)`\]\(#\w+\) \| (\w+) \|", page, re.MULTILINE))
    assert rows == {rule["alert"]: rule["labels"]["severity"] for rule in rules()}
    for rule in rules():
        assert re.search(rf"^#+ {rule['alert']}$", page, re.MULTILINE)
