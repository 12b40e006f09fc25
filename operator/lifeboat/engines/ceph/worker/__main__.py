"""The program that talks to one Ceph cluster for the engine: requests come in as lines of JSON, answers go out.

It is a process of its own for three reasons. Ceph's Python bindings are packages of the distribution, for the
distribution's Python only, while the operator runs on whatever Python it likes. A call into a cluster that hangs cannot
be cancelled, but a process can be ended. And an assertion that fails in Ceph's libraries ends this process, not the
operator.

It decides nothing and remembers nothing that it could not read again. The key of its user comes with the first line, so
it is on no command line and in no file. When the operator goes, its input ends, and so does it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lifeboat.engines.ceph.worker import calls
from lifeboat.engines.ceph.worker.cluster import Cluster

_AT_ONCE = 8


class Worker:
    """Answers requests, several at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_AT_ONCE)
        self._cluster: Cluster | None = None
        self._out = threading.Lock()

    def run(self) -> None:
        """Take requests until the input ends."""
        for line in sys.stdin:
            request = json.loads(line)
            if request["do"] == "connect":
                self._answer(request)
            else:
                self._pool.submit(self._answer, request)

    def _answer(self, request: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"id": request["id"]}
        try:
            answer["done"] = self._do(request["do"], request["with"])
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever asked is told
            answer["error"] = {"errno": _number(error), "message": f"{type(error).__name__}: {error}"}
        text = json.dumps(answer)
        with self._out:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def _do(self, name: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        if name == "connect":
            self._cluster = Cluster(**arguments)
            return self._cluster.fsid()
        if self._cluster is None:
            raise RuntimeError("not connected")
        return calls.CALLS[name](self._cluster, **arguments)


def _number(error: Exception) -> int:
    found = getattr(error, "errno", None)
    return abs(found) if isinstance(found, int) else 0


if __name__ == "__main__":
    Worker().run()
    # Threads that wait for a cluster which does not answer must not keep this process.
    os._exit(0)
