"""What kopf is for here: it watches the four kinds, and tells the world what came, changed and went.

Event handlers are all that is used of it. Its indices would say when everything that was there is in, but every object
of the first listing then wakes all others: five thousand of them take minutes. So the world is compared with a list.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import kopf

from lifeboat.api.names import GROUP, VERSION
from lifeboat.kube import Credentials, Kube
from lifeboat.world import KINDS, Key, World

REQUEST_SECONDS: Final = 30.0
AGAIN_SECONDS: Final = 1.0
GOODBYE_SECONDS: Final = 0.25
"""How long kopf's TLS connections take to close once it has ended; their loop has to live that long."""
UNUSED_FINALIZER: Final = f"{GROUP}/kopf"

_log = logging.getLogger(__name__)


class _NothingKept(kopf.DiffBaseStorage):
    """What kopf compares objects with, to find what changed: nobody asks it, and it costs a copy of each object."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:  # noqa: ANN401, ARG002 - kopf's own protocol
        """Nothing."""
        return kopf.BodyEssence({})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:  # noqa: ARG002 - kopf's own protocol
        """Nothing was stored."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Store nothing."""


News: TypeAlias = Callable[[World], None]


def registry(tell: Callable[[News], None], credentials: Callable[[], Awaitable[Credentials]]) -> kopf.OperatorRegistry:
    """The handlers that tell the world, speaking to the API server with the credentials of our own client."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    async def login(**_arguments: Any) -> kopf.ConnectionInfo:  # noqa: ANN401 - kopf's own protocol
        ours = await credentials()
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

        @kopf.on.event(GROUP, VERSION, kind.PLURAL, registry=made, id=f"event-{kind.PLURAL}")
        async def heard(event: kopf.RawEvent, **_: object) -> None:
            found: Mapping[str, Any] = event["object"]
            if event["type"] == "DELETED":
                tell(lambda world: _gone(world, found))
            else:
                tell(lambda world: world.put(found))

    return made


def _gone(world: World, body: Mapping[str, Any]) -> None:
    metadata = body["metadata"]
    world.remove(Key(body["kind"], metadata["namespace"], metadata["name"]), metadata["uid"])


def settings() -> kopf.OperatorSettings:
    """Let kopf watch and nothing else: it writes nothing, no finalizer, no annotation, no event, no peering."""
    made = kopf.OperatorSettings()
    # Not our own finalizer: kopf takes off what it finds of its own on objects whose handlers need none.
    made.persistence.finalizer = UNUSED_FINALIZER
    made.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP, v1=False)
    made.persistence.diffbase_storage = _NothingKept()
    made.posting.enabled = False
    made.peering.standalone = True
    made.scanning.disabled = True
    made.networking.request_timeout = REQUEST_SECONDS
    made.networking.connect_timeout = 5.0
    # Without end: what cannot be listed yet (503, 429, 403 while an API server begins) is asked for again, so that the
    # watch is there within a second of its answer. Where kopf gives up while a listing is missing, it may hang.
    made.networking.error_backoffs = itertools.repeat(1.0)
    made.watching.server_timeout = 600
    made.watching.client_timeout = 660
    return made


class Watch:
    """Kopf in a thread and a loop of its own.

    There it may end as it likes: what the API server says in its bad moments (an error in the middle of a watch) ends
    kopf, and is no reason to end the work on the servers. It begins anew, and lists everything again.
    """

    def __init__(self, world: World, api: Kube, namespaces: tuple[str, ...], *, up: asyncio.Event) -> None:
        self._ours = asyncio.get_running_loop()
        self._world = world
        self._api = api
        self._namespaces = namespaces
        self._up = up
        self._ending = threading.Event()
        self._theirs: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._news: deque[News] = deque()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin; `up` is set once kopf has started."""
        self._thread.start()

    async def stop(self, seconds: float = 10.0) -> None:
        """End, and wait for that so long."""
        self._ending.set()
        if (theirs := self._theirs) is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended by itself
                theirs[0].call_soon_threadsafe(theirs[1].set)
        await asyncio.to_thread(self._thread.join, seconds)

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                asyncio.run(self._watch())
            except Exception as error:  # noqa: BLE001 - whatever ended it, it is begun anew
                _log.warning("the watch broke and begins anew: %s", error)
            self._ending.wait(AGAIN_SECONDS)

    async def _watch(self) -> None:
        stop = asyncio.Event()
        self._theirs = (asyncio.get_running_loop(), stop)
        if self._ending.is_set():
            return
        handlers = registry(self._tell, self._credentials)

        @kopf.on.startup(registry=handlers)
        async def started(**_: Any) -> None:  # noqa: ANN401 - kopf's own protocol
            self._tell(lambda _: self._up.set())

        await kopf.operator(
            registry=handlers,
            settings=settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=stop,
        )
        await asyncio.sleep(GOODBYE_SECONDS)

    def _tell(self, news: News) -> None:
        """Let the world hear something, in its own loop and in order; that loop is woken once for all that waits."""
        self._news.append(news)
        if len(self._news) > 1:
            return
        with contextlib.suppress(RuntimeError):  # that loop has ended: nobody needs to know any more
            self._ours.call_soon_threadsafe(self._hear)

    def _hear(self) -> None:
        for _ in range(len(self._news)):
            news = self._news.popleft()
            try:
                news(self._world)
            except Exception:  # noqa: BLE001 - one object's fault must not keep the news of all others
                _log.exception("something that the watch told could not be taken in")
        if self._news:
            self._ours.call_soon(self._hear)

    async def _credentials(self) -> Credentials:
        asked = asyncio.run_coroutine_threadsafe(self._api.credentials(), self._ours)
        return await asyncio.wrap_future(asked)
