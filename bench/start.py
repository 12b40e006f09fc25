"""From a fresh clone to the first passed drill, part by part.

With `COLD=1` every cache is an empty one, which takes a quarter of an hour. Without, the caches are used as they are,
and what a build took is what it noted when this machine did it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.results import Figure, Measured
from demo import go, guest
from demo.cache import build_seconds, cache_root
from demo.controlplane.build import HERE as CONTROLPLANE
from demo.controlplane.build import PROGRAMS
from demo.helm.build import HERE as HELM
from demo.world import World

CHECKOUT: Final = Path(__file__).parent.parent
# What the clone's own Python does with its own world, in a network of its own where that can be.
DRILL: Final = """
import json, os, sys, time
from pathlib import Path
from demo.network import enter_own_network
from demo.story import SERVER
from demo.world import World, phase_is, ready
if os.geteuid() == 0:
    enter_own_network()
world, took, last = World(Path(sys.argv[1])), {}, time.monotonic()
def done(what):
    global last
    took[what], last = time.monotonic() - last, time.monotonic()
try:
    world.up(lambda _: None)
    done("world up")
    world.apply("1-sitepair.yaml")
    world.until("sp", "a-to-b", ready)
    world.apply("2-protectedserver.yaml")
    world.until("ps", SERVER, lambda ps: phase_is("Replicating")(ps) and bool(ps["status"].get("recoveryPointCount")))
    done("protect, to Replicating with a first point")
    world.apply("3-drill.yaml")
    world.until("dr", "rehearsal", lambda dr: bool(dr.get("status", {}).get("result")))
    assert world.get("dr", "rehearsal")["status"]["result"] == "Passed"
    done("drill, to Passed")
finally:
    world.down()
Path(sys.argv[2]).write_text(json.dumps(took))
"""


def measure(folder: Path) -> Measured:
    """Clone, set up, prepare, and drill; each step's seconds."""
    cold = os.environ.get("COLD") == "1"
    took: dict[str, float] = {}
    clone, found = folder / "clone", folder / "took.json"
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    caches = {"XDG_CACHE_HOME": "cache", "GOCACHE": "gocache", "GOMODCACHE": "gomodcache", "PIP_CACHE_DIR": "pip"}
    if cold:
        kept |= {name: str(folder / each) for name, each in caches.items()}
        kept["GOFLAGS"] = "-modcacherw"  # so that the folder can be removed
    with _timed(took, "git clone"):
        _run(["git", "clone", "--quiet", f"file://{CHECKOUT}", str(clone)], folder, kept)
    with _timed(took, "virtual environment"):
        _run(["make", ".venv/ready", f"PYTHON={sys.base_prefix}/bin/python3"], clone, kept)
    with _timed(took, "prepare" if cold else "prepare, from the caches"):
        _run([".venv/bin/python", "-m", "demo", "prepare"], clone, kept)
    try:
        _run([".venv/bin/python", "-c", DRILL, str(folder / "world"), str(found)], clone, kept)
    finally:
        World(folder / "world").down()  # a child that was killed has not done it
    took |= json.loads(found.read_text(encoding="utf-8"))
    builds, absent = _builds(folder / "cache" / "lifeboat" if cold else cache_root())
    figures = [Figure(what, round(seconds, 1), "s") for what, seconds in took.items()]
    figures.append(Figure("all of it", round(sum(took.values()), 1), "s"))
    figures += [Figure(f"build of {what}", seconds, "s") for what, seconds in builds.items()]
    notes = [
        "All caches were empty." if cold else "The caches were as they are; builds are as noted when they were made."
    ]
    if absent:
        notes.append(f"Never noted, and left out: the builds of {', '.join(absent)}.")
    return Measured(figures, [], notes)


def _builds(root: Path) -> tuple[dict[str, float], list[str]]:
    """What the builds took of which a cache has a note, and those of which it has none."""
    found: dict[str, float] = {}
    places = [f"controlplane-{go.fingerprint(CONTROLPLANE)}", f"helm-{go.fingerprint(HELM)}"]
    for flavour in guest.FLAVOURS:
        notes = sorted(root.glob(f"guest-{flavour}-*.seconds.json"), key=lambda path: path.stat().st_mtime)
        places += [path.name.removesuffix(".seconds.json") for path in notes[-1:]]
    for place in places:
        found |= build_seconds(root / place)
    wanted = [*PROGRAMS, "Helm", *(f"the {flavour} guest" for flavour in guest.FLAVOURS)]
    return found, [what for what in wanted if what not in found]


@contextmanager
def _timed(took: dict[str, float], what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    took[what] = time.monotonic() - began


def _run(command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, check=True)
