"""The line as a program: `python -I -S <this file> --socket … --address … --port …`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

# Started without site packages, so that it is small: it finds itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lifeboat.line.line import Line
from lifeboat.line.watch import Broken

if TYPE_CHECKING:
    from lifeboat.line.fingerprints import Fingerprints


def _sentence(kind: str, detail: str, zone: str) -> str:
    match kind:
        case "full":
            return f"the disk of zone {zone} is full"
        case "failed":
            return f"the replica in zone {zone} cannot write: {detail}"
        case "slow":
            return f"the disk of zone {zone} does not keep up: {detail}"
        case "source":
            return detail
        case _:
            return f"the link to zone {zone} is broken: {detail}"


def _held(files: list[list[str]]) -> dict[str, Fingerprints]:
    if not files:
        return {}
    # Most lines do without, and stay smaller.
    from lifeboat.line.fingerprints import Fingerprints  # noqa: PLC0415

    return {disk: Fingerprints(Path(file)) for disk, file in files}


def main() -> None:
    """Run a line until it breaks, and leave one sentence about why."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pidfile", required=True)
    parser.add_argument("--end", required=True, help="where the sentence is left")
    parser.add_argument("--socket", required=True, help="where QEMU connects")
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True, help="how many disks")
    parser.add_argument("--zone", required=True, help="the replica's, for the sentence")
    parser.add_argument("--held", nargs=2, action="append", default=[], metavar=("DISK", "FILE"), help="fingerprints")
    given = parser.parse_args()
    line = Line(given.address, given.port, given.connections, given.socket, _held(given.held))
    try:
        try:
            line.prepare()
            Path(given.pidfile).write_text(str(os.getpid()), encoding="ascii")
            line.serve()
        except OSError as error:
            raise Broken("closed", error.strerror or "the connection has ended") from None
    except Broken as end:
        # Closed first: a disk that hangs must not keep the guest waiting.
        line.close()
        found = {"kind": end.kind, "reason": _sentence(end.kind, str(end), given.zone)}
        new = Path(f"{given.end}.new")
        new.write_text(json.dumps(found), encoding="utf-8")
        new.replace(given.end)


if __name__ == "__main__":
    main()
