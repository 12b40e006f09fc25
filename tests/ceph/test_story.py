"""The story of the one-machine world, told on two real clusters: protect, drill, lose a zone, fail over, go home."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.ceph.world import CephWorld
from demo.story import tell_story


@pytest.mark.timeout(1800)
def test_the_whole_story_loses_no_row(tmp_path: Path) -> None:
    """It ends with an error where a row that was acknowledged is lost, or anything is not as it is told."""
    tell_story(CephWorld(tmp_path / "story"))
