"""The other baseline: an operator on kopf that does nothing but write statuses, as the one on controller-runtime does.

`python -m bench.baselines.bare --status FILE --writes N`, with $KUBECONFIG.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

import kopf

from lifeboat.api.names import GROUP, VERSION
from lifeboat.api.protectedserver import ProtectedServer


def main() -> None:
    """Write statuses until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--status", type=Path, required=True, help="the file with the status, as JSON")
    parser.add_argument("--writes", type=int, default=1, help="how many statuses are written for each new object")
    given = parser.parse_args()
    content = given.status.read_text(encoding="utf-8")
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**given: Any) -> kopf.ConnectionInfo | None:  # noqa: ANN401 - kopf's own protocol
        return kopf.login_with_kubeconfig(**given)

    @kopf.on.event(GROUP, VERSION, ProtectedServer.PLURAL, registry=registry)
    async def seen(body: kopf.Body, patch: kopf.Patch, **_: object) -> None:
        generation, stored = body["metadata"]["generation"], body.get("status") or {}
        written = stored.get("lagSeconds", 0)
        if written >= given.writes and stored.get("observedGeneration") == generation:
            return
        status: dict[str, Any] = json.loads(content)
        status |= {"observedGeneration": generation, "lagSeconds": written + 1}
        for condition in status["conditions"]:
            condition["observedGeneration"] = generation
            condition["lastTransitionTime"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        patch.status.update(status)

    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    asyncio.run(kopf.operator(registry=registry, settings=settings, standalone=True, clusterwide=True))


if __name__ == "__main__":
    main()
