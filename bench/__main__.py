"""Measures what Lifeboat is for, part by part, each against a baseline of the same run.

`python -m bench` runs all parts but the longest; `python -m bench recovery scale` runs some, and keeps what was
measured of the others. Nothing here passes or fails: the figures go into one JSON file, into tables and into charts.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from bench.results import Measured
from demo import packages
from demo.network import enter_own_network

INTO: Final = Path("docs/measurements")
RESULTS: Final = "results.json"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the bench: what it is about, how many seconds it may take, and whether it is in the whole run.

    In its module `prepare`, if there is one, gets what has to be fetched or built; `measure` works in a folder of its
    own and, unless it asks for the network, in a network of its own.
    """

    about: str
    seconds: float
    network: bool = False
    whole: bool = True


PARTS: Final = {
    "recovery": Part("Recovery: from the manifest to the application's answer", 1020),
    "copying": Part("The first copy", 300),
    "writes": Part("What the guest notices", 420),
    "resync": Part("After an interruption", 240),
    "scale": Part("A thousand servers", 600),
    "large": Part("Five thousand servers", 3600, whole=False),
    "start": Part("From a fresh clone to the first passed drill", 1800, network=True),
}
WHOLE: Final = tuple(name for name, part in PARTS.items() if part.whole)


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--into", type=Path, default=INTO, help="the folder of the page, the charts and results.json")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # the process of one part: where its JSON goes
    given = parser.parse_args()
    if unknown := [name for name in given.parts if name not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    if given.one is not None:
        [name] = given.parts
        _measure(name, given.one)
        return
    packages.ensure(packages.BENCH)
    failed = [name for name in given.parts or WHOLE if not _run(name, given.into)]
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


def _run(name: str, into: Path) -> bool:
    """Run one part in a process of its own, which ends when its time is over, and publish what it found."""
    from bench import page  # noqa: PLC0415 - the processes of the parts need nothing that draws

    part = PARTS[name]
    getattr(importlib.import_module(f"bench.{name}"), "prepare", lambda: None)()
    print(f"\n== {part.about} (at most {part.seconds / 60:.0f} min)", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lifeboat-bench-") as folder:
        found = Path(folder) / "found.json"
        command = [sys.executable, "-m", "bench", name, "--one", str(found)]
        child = subprocess.Popen(command, start_new_session=True)
        try:
            child.wait(part.seconds)
        except subprocess.TimeoutExpired:
            print(f"  it has not ended after {part.seconds:.0f} s and is ended", flush=True)
        finally:
            _end(child)
        if child.returncode != 0 or not found.exists():
            return False
        took = time.monotonic() - began
        results = json.loads((into / RESULTS).read_text(encoding="utf-8")) if (into / RESULTS).exists() else {}
        results["machine"] = machine()
        results.setdefault("parts", {})[name] = {"seconds": round(took, 1), **json.loads(found.read_bytes())}
    results["parts"] = {each: results["parts"][each] for each in PARTS if each in results["parts"]}
    (into / RESULTS).write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    parts = {
        each: (PARTS[each].about, Measured.from_dict(results["parts"][each]), results["parts"][each]["seconds"])
        for each in results["parts"]
    }
    page.write(into, results["machine"], parts)
    print(page.tables(results["machine"], {name: parts[name]}), flush=True)
    return True


def _measure(name: str, found: Path) -> None:
    """Measure one part in this process, in a network of its own where that can be."""
    if os.geteuid() == 0 and not PARTS[name].network:
        enter_own_network()
    measure: Callable[[Path], Measured] = importlib.import_module(f"bench.{name}").measure
    folder = found.parent / name
    folder.mkdir()
    try:
        found.write_text(json.dumps(measure(folder).as_dict()), encoding="utf-8")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a part, first by asking, so that it takes down what it has made."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(60)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def machine() -> dict[str, Any]:
    """What this was measured on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=False).stdout
    memory = psutil.virtual_memory().total / 2**30
    return {
        "name": f"{os.cpu_count()} cores of {cpu}, {memory:.0f} GiB, Linux {platform.release().partition('-')[0]}",
        "software": f"Python {platform.python_version()}, QEMU {qemu.split()[3] if qemu else 'none'}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


if __name__ == "__main__":
    main()
