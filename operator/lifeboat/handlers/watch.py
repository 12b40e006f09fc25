"""What kopf is for here: it watches the four kinds, and tells the world what came, changed and went.

The indices keep nothing: kopf runs them for every object of its first listing before it lets any event handler run, so
the world is complete when the first of those is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import kopf

from lifeboat.api.names import GROUP, VERSION
from lifeboat.kube import Kube
from lifeboat.world import KINDS, Key, World

REQUEST_SECONDS: Final = 30.0
UNUSED_FINALIZER: Final = f"{GROUP}/kopf"


def registry(world: World, api: Kube) -> kopf.OperatorRegistry:
    """The handlers that fill this world, speaking to the API server with the credentials of our own client."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    async def login(**_arguments: Any) -> kopf.ConnectionInfo:  # noqa: ANN401 - kopf's own protocol
        ours = await api.credentials()
        scheme, _, token = (ours.token or "").rpartition(" ")
        return kopf.ConnectionInfo(
            server=ours.server,
            ca_path=ours.ca_file,
            insecure=not ours.verify,
            scheme=scheme or None,
            token=token or None,
            certificate_path=ours.certificate_file,
            private_key_path=ours.key_file,
        )

    for kind in KINDS.values():

        @kopf.index(GROUP, VERSION, kind.PLURAL, registry=made, id=f"index-{kind.PLURAL}")
        async def listed(body: kopf.Body, **_: object) -> None:
            world.put(dict(body))

        @kopf.on.event(GROUP, VERSION, kind.PLURAL, registry=made, id=f"event-{kind.PLURAL}")
        async def changed(event: kopf.RawEvent, **_: object) -> None:
            world.complete = True
            found: Mapping[str, Any] = event["object"]
            if event["type"] == "DELETED":
                metadata = found["metadata"]
                world.remove(Key(found["kind"], metadata["namespace"], metadata["name"]), metadata["uid"])

    return made


async def run(world: World, api: Kube, namespaces: tuple[str, ...], *, stop: asyncio.Event, up: asyncio.Event) -> None:
    """Watch until told to stop; `up` is set once kopf has started, which is when it has taken the signals for itself.

    Kopf cancels, at its end, every task of the loop that began after it did.
    """
    handlers = registry(world, api)

    @kopf.on.startup(registry=handlers)
    async def started(**_: Any) -> None:  # noqa: ANN401 - kopf's own protocol
        up.set()

    await kopf.operator(
        registry=handlers,
        settings=settings(),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=stop,
    )


def settings() -> kopf.OperatorSettings:
    """Let kopf watch and nothing else: it writes nothing, no finalizer, no annotation, no event, no peering."""
    made = kopf.OperatorSettings()
    # Not our own finalizer: kopf takes off what it finds of its own on objects whose handlers need none.
    made.persistence.finalizer = UNUSED_FINALIZER
    made.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP, v1=False)
    made.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP, v1=False)
    made.posting.enabled = False
    made.peering.standalone = True
    made.scanning.disabled = True
    made.networking.request_timeout = REQUEST_SECONDS
    made.networking.connect_timeout = 5.0
    # After an outage of the API server its watch is there again within a second; kopf begins anew when these end.
    made.networking.error_backoffs = (1.0, 1.0, 1.0)
    made.watching.server_timeout = 600
    made.watching.client_timeout = 660
    return made
