"""What a drill costs the source's writers: rows a second while a drill's server boots, against a control.

The control is an unrelated guest of the same size, booted by hand from a copy of the same image: that much any boot on
the same machine costs. Run as `python -m bench.drill_effect`; it takes about five minutes and cleans up after itself.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from demo import guest, rows
from demo.guest.trial import Trial
from demo.story import SERVER, writing
from demo.world import World, phase_is, ready

ROUNDS = 5
WINDOW_SECONDS = 20.0


def rate(log: Path, seconds: float = WINDOW_SECONDS) -> float:
    """Acknowledged rows a second over a window that begins now."""
    before, began = len(rows.acknowledged(log)), time.monotonic()
    time.sleep(seconds)
    return (len(rows.acknowledged(log)) - before) / (time.monotonic() - began)


@contextmanager
def unrelated_guest(folder: Path) -> Iterator[None]:
    """A guest of the same size that has nothing to do with anything, booting while the block runs."""
    disks = guest.copy_disks(guest.build("postgres"), folder)
    with Trial(disks, accelerator="tcg", memory_mib=512, cpus=1, ports=(80,)):
        yield
    shutil.rmtree(folder)


@contextmanager
def drill(world: World, number: int) -> Iterator[None]:
    """A drill whose server boots while the block runs, cleared after it."""
    name = f"bench-{number}"
    spec = {"serverRef": {"name": SERVER}, "instance": {"cpu": 1, "memory": "512Mi"}}
    body = {"apiVersion": "lifeboat.dev/v1alpha1", "kind": "Drill", "metadata": {"name": name}, "spec": spec}
    world.apply(json.dumps(body))
    world.until("dr", name, phase_is("Verifying", "Running"), seconds=60)
    yield
    world.patch("dr", name, {"running": False})
    world.until("dr", name, phase_is("CleanedUp"), seconds=60)


def measure(folder: Path) -> dict[str, list[float]]:
    """Rows a second in each round, alone, beside the control and beside a drill."""
    world = World(folder / "world")
    found: dict[str, list[float]] = {"alone": [], "control": [], "drill": []}
    try:
        world.up()
        world.apply("1-sitepair.yaml")
        world.until("sp", "a-to-b", ready)
        world.apply("2-protectedserver.yaml")
        world.until("ps", SERVER, phase_is("Replicating"))
        world.until("ps", SERVER, lambda ps: bool(ps["status"].get("recoveryPointCount")))
        log = folder / "rows.log"
        with writing(log):
            _until(lambda: bool(rows.acknowledged(log)))
            for number in range(ROUNDS):
                found["alone"].append(rate(log))
                with unrelated_guest(folder / "control"):
                    found["control"].append(rate(log))
                with drill(world, number):
                    found["drill"].append(rate(log))
                print({name: round(values[-1], 1) for name, values in found.items()}, flush=True)
    finally:
        world.down()
    return found


def _until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError("no row was written")
        time.sleep(0.1)


def main() -> None:
    """Measure, and print medians and the ratio."""
    folder = Path(tempfile.mkdtemp(prefix="lifeboat-bench-"))
    try:
        found = measure(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    medians = {name: statistics.median(values) for name, values in found.items()}
    for name, median in medians.items():
        print(f"{name:<8} {median:7.1f} rows/s (median of {ROUNDS})")
    print(f"drill / control: {medians['drill'] / medians['control']:.2f}")


if __name__ == "__main__":
    main()
