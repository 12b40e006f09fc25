"""The engine's small files: what an operator that was killed had begun to write does not stay."""

from __future__ import annotations

import os
import time
from pathlib import Path

from lifeboat.host import files


def test_what_a_killed_operator_had_begun_is_swept_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    old, young = tmp_path / ".new-old", tmp_path / ".new-young"
    for path in (old, young):
        path.write_bytes(b"half")
    long_ago = time.time() - 120
    os.utime(old, (long_ago, long_ago))
    files.write_atomically(tmp_path / "record.json", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new-young", "record.json"]
