"""Machines that stand still, as their monitor tells of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from lifeboat.host import power
from lifeboat.host.qmp import Monitors


class Monitor:
    """A monitor that says one status, and notes what it is told."""

    def __init__(self, status: str) -> None:
        self.told: list[str] = []
        self._status = status

    @asynccontextmanager
    async def session(self, _: Path) -> AsyncIterator[Monitor]:
        yield self

    async def run(self, command: str) -> Any:
        if command == "query-status":
            return {"status": self._status}
        self.told.append(command)
        return {}


@pytest.mark.parametrize(("status", "told"), [("io-error", ["cont"]), ("running", []), ("paused", [])])
async def test_only_a_machine_whose_disk_was_full_is_told_to_go_on(
    status: str, told: list[str], tmp_path: Path
) -> None:
    monitor = Monitor(status)
    await power.go_on(cast("Monitors", monitor), tmp_path)
    assert monitor.told == told
