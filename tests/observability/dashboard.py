"""The Grafana dashboard as values: its panels, and what each asks of Prometheus."""

import json
from typing import Any

from tests.observability.prometheus import DASHBOARD

VARIABLES = {"$namespace": ".*", "$server": ".*", "$__rate_interval": "20s"}


def load() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def expressions() -> list[tuple[str, str]]:
    """Each expression with its panel's title; the variables stand for everything."""
    found = []
    for panel in load()["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            found.append((panel["title"], expression))
    return found
