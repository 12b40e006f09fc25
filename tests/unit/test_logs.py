"""Log lines: one JSON object each, with the object and the operation as fields; or text for people."""

import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from lifeboat import logs
from lifeboat.__main__ import main

LOGGER = logging.getLogger("lifeboat.test")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Leave logging as it was found."""
    root, ours = logging.getLogger(), logging.getLogger("lifeboat")
    before = (root.handlers[:], root.level, ours.level)
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level, ours.level = before[0], before[1], before[2]


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_has_its_object_and_operation_as_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "INFO")
    about = logs.about(LOGGER, "ProtectedServer", "demo", "orders-db")
    about.info("it was\n%s", "done", fields={"operation": "Launch", "for": "fire"})
    LOGGER.warning("nothing in particular")
    LOGGER.debug("not asked for")
    first, second = lines(capsys)
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "info",
        "logger": "lifeboat.test",
        "message": "it was\ndone",
        "object": {"kind": "ProtectedServer", "namespace": "demo", "name": "orders-db"},
        "operation": "Launch",
        "for": "fire",
    }
    assert second.keys() == {"time", "level", "logger", "message"}


def test_a_traceback_and_a_warning_are_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "INFO")
    try:
        int("broken")
    except ValueError:
        LOGGER.exception("it broke")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("this will change", DeprecationWarning, stacklevel=1)
    broke, warned = lines(capsys)
    assert "ValueError: invalid literal" in broke["traceback"]
    assert "this will change" in warned["message"]


def test_text_names_the_object_and_the_operation(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "INFO")
    logs.about(LOGGER, "Drill", "demo", "one").info("launched", fields={"operation": "Launch"})
    assert capsys.readouterr().err.endswith("INFO    launched object=Drill/demo/one operation=Launch\n")


def test_an_operator_that_cannot_start_says_so_in_its_last_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    nowhere = str(tmp_path / "no-such-kubeconfig")
    assert main(["operator", "--log-format", "json", "--http", "127.0.0.1:0", "--kubeconfig", nowhere]) == 1
    line = lines(capsys)[-1]
    assert line["level"] == "critical"
    assert "kube-config" in line["message"]
