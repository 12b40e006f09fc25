"""Which engines can be chosen by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifeboat.engines import registry
from lifeboat.engines.contract import Refused


def test_each_name_makes_the_engine_of_that_name(tmp_path: Path) -> None:
    assert [registry.create(name, zones=tmp_path, secrets=None).name for name in registry.NAMES] == list(registry.NAMES)


@pytest.mark.parametrize("name", ["simulated", "hdr", ""])
def test_another_name_is_refused_and_told_what_there_is(name: str) -> None:
    with pytest.raises(Refused, match="qemu"):
        registry.create(name)
