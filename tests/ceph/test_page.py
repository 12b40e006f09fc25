"""What docs/how-to/ceph.md tells to prepare, typed as it stands there, on clusters that are prepared already."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from demo.ceph import Clusters
from tests import pages

PAGE = Path(__file__).parents[2] / "docs/how-to/ceph.md"
# The clusters are peers and mirror already, and nobody is to be kept out.
NOT_TYPED = ("rbd mirror pool peer bootstrap import", "rbd-mirror -f", "ceph osd blocklist", "make ")


def test_what_the_page_prepares_is_taken(clusters: Clusters, tmp_path: Path) -> None:
    clusters.primary.run("rbd", "create", "--size", "8M", "rbd/web-1-system")
    environment = {**os.environ, "CEPH_CONF": str(clusters.primary.conf)}
    typed = [each for each in pages.commands(PAGE) if not each.startswith(NOT_TYPED)]
    assert len(typed) > 5
    for command in typed:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert (tmp_path / "token").stat().st_size > 0
