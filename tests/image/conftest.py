"""The image, built once, and its files."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.cache import run
from demo.packages import ensure
from image import build


@pytest.fixture(scope="session")
def tag() -> str:
    ensure(build.REQUIREMENTS)
    return build.build(os.environ.get("BASE") or None)


@pytest.fixture(scope="session")
def settings(tag: str) -> dict[str, Any]:
    """What the image says about how it is run."""
    found: dict[str, Any] = json.loads(run(build.buildah("inspect", "--type", "image", tag)))["OCIv1"]["config"]
    return found


@pytest.fixture(scope="module")
def root(tag: str) -> Iterator[Path]:
    """The image's files, mounted."""
    container = run(build.buildah("from", "--pull-never", tag)).strip()
    try:
        yield Path(run(build.buildah("mount", container)).strip())
    finally:
        run(build.buildah("rm", container))
