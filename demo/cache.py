"""What the builders share: a cache outside the checkout, a lock, and progress while something takes long."""

import fcntl
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PROGRESS_SECONDS: Final = 15


class BuildError(RuntimeError):
    """Something the demo needs can be neither found nor built; the message says what to do."""


def cache_root() -> Path:
    """Return the folder for what is expensive to build and belongs to no checkout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lifeboat"


@contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold an exclusive lock on a file, printing `waiting` once if another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(waiting, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def noted(target: Path, what: str) -> Iterator[None]:
    """Note beside a place of the cache how long it took to build something of it, in seconds, once it is built."""
    began = time.monotonic()
    yield
    note = target.with_name(f"{target.name}.seconds.json")
    took = {**build_seconds(target), what: round(time.monotonic() - began, 1)}
    partial = note.with_suffix(".partial")
    partial.write_text(json.dumps(took), encoding="utf-8")
    partial.replace(note)


def build_seconds(target: Path) -> dict[str, float]:
    """What `noted` has noted beside a place of the cache, by what was built; empty where it never did."""
    try:
        found = json.loads(target.with_name(f"{target.name}.seconds.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {str(what): float(seconds) for what, seconds in found.items()}


def built(target: Path, what: str, build: Callable[[Path], None]) -> Path:
    """Return a place of the cache once it is there: one process builds it, any other waits."""
    if not target.exists():
        with locked(target.with_suffix(".lock"), f"another process is building {what}: waiting for it"):
            if not target.exists():
                with noted(target, what):
                    build(target)
    return target


def run_with_progress(
    what: str, command: Sequence[str], *, cwd: Path | None = None, env: dict[str, str] | None = None
) -> None:
    """Run a long command, saying at its start what it does and every 15 seconds that it still does.

    Raises:
        BuildError: It failed; the message ends with what it printed last.
    """
    print(f"{what} ...", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=output, stderr=subprocess.STDOUT)
        try:
            while True:
                try:
                    code = process.wait(PROGRESS_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    print(f"  still at it after {time.monotonic() - started:.0f} s", flush=True)
        except BaseException:
            process.kill()
            process.wait()
            raise
        output.seek(0)
        if code != 0:
            tail = "".join(output.readlines()[-20:])
            raise BuildError(f"{' '.join(command)} ended with code {code}:\n{tail}")
    print(f"  done in {time.monotonic() - started:.0f} s", flush=True)


def run(command: Sequence[str | Path], *, env: dict[str, str] | None = None) -> str:
    """Run a short command and return what it printed.

    Raises:
        BuildError: It failed; the message ends with what it said about it.
    """
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip()
        raise BuildError(f"{' '.join(map(str, command))} ended with code {done.returncode}: {said}")
    return done.stdout
