"""Argo CD's own program says of the recorded statuses what `health_test.yaml` beside each script expects."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from demo.argocd import build, settings

pytestmark = pytest.mark.timeout(600)


def cases() -> Iterator[tuple[Path, str, str]]:
    """Each recorded object with the health and the message that Argo CD is to read from it."""
    for tests in sorted(settings.CUSTOMIZATIONS.glob("*/health_test.yaml")):
        for case in yaml.safe_load(tests.read_text(encoding="utf-8"))["tests"]:
            yield tests.parent / case["inputPath"], case["healthStatus"]["status"], case["healthStatus"]["message"]


def test_argo_cd_reads_every_recorded_status_as_expected(tmp_path: Path) -> None:
    ask = [str(build.programs() / build.PROGRAM), "admin", "settings", "resource-overrides", "health"]

    def told(path: Path) -> str:
        command = [*ask, str(path), "--argocd-cm-path", str(settings.SNIPPET)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "HOME": tmp})
        return done.stdout

    tmp, expected = str(tmp_path), list(cases())
    assert {path for path, _, _ in expected} == set(settings.CUSTOMIZATIONS.glob("*/testdata/*.yaml"))
    with ThreadPoolExecutor(os.cpu_count()) as several:
        answers = list(several.map(told, (path for path, _, _ in expected)))
    for (path, status, message), answer in zip(expected, answers, strict=True):
        assert answer == f"STATUS: {status}\nMESSAGE: {message}\n", path
