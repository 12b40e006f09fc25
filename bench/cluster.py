"""A real API server for measurements: objects by the thousand, and when each of them was seen to change."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from demo.controlplane import ControlPlane
from lifeboat.api.common import Resource
from lifeboat.api.names import API_VERSION, GROUP, VERSION
from lifeboat.kube import MERGE_PATCH, Kube, KubeError
from lifeboat.world import KINDS

CRDS: Final = Path(__file__).parent.parent / "crds"
NAMESPACE: Final = "default"
PARALLEL: Final = 16
_REQUEST: Final = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<count>\S+)$", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE"})

Body = dict[str, Any]


Listener = Callable[[str, Body, float], None]


class Watch:
    """What a watch told of one kind: the newest of each object by its name, and when each was added (monotonic)."""

    def __init__(self, bodies: Mapping[str, Body]) -> None:
        self.bodies = dict(bodies)
        self.added: dict[str, float] = {}
        self._listeners: set[Listener] = set()

    def hear(self, event: Mapping[str, Any], moment: float) -> None:
        """Take in an event."""
        body = event["object"]
        name = body["metadata"]["name"]
        if event["type"] == "ADDED":
            self.added[name] = moment
        self.bodies[name] = body
        for listener in tuple(self._listeners):
            listener(name, body, moment)

    async def until(self, names: Iterable[str], holds: Callable[[Body], bool], seconds: float) -> float:
        """Wait until it has held for each of these; the monotonic time at which the last of them was seen.

        Raises:
            TimeoutError: it did not in that time.
        """
        waiting = {name for name in names if name not in self.bodies or not holds(self.bodies[name])}
        if not waiting:
            return time.monotonic()
        done: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def heard(name: str, body: Body, moment: float) -> None:
            if name in waiting and holds(body):
                waiting.discard(name)
                if not waiting and not done.done():
                    done.set_result(moment)

        self._listeners.add(heard)
        try:
            async with asyncio.timeout(seconds):
                return await done
        finally:
            self._listeners.discard(heard)


class Cluster:
    """One API server with the four kinds in it."""

    def __init__(self, plane: ControlPlane, api: Kube, session: aiohttp.ClientSession) -> None:
        self.plane = plane
        self.api = api
        self._session = session

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, folder: Path) -> AsyncIterator[Self]:
        """Start one in a folder, and end it."""
        with ControlPlane(folder) as plane:
            plane.kubectl("apply", "-f", str(CRDS))
            plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRDS))
            api = await Kube.connect(plane.kubeconfig)
            credentials = await api.credentials()
            trust = ssl.create_default_context(cafile=credentials.ca_file)
            session = aiohttp.ClientSession(
                credentials.server,
                headers={"Authorization": credentials.token or ""},
                connector=aiohttp.TCPConnector(ssl=trust),
                timeout=aiohttp.ClientTimeout(total=None),
            )
            try:
                made = cls(plane, api, session)
                await made._served()
                yield made
            finally:
                await session.close()
                await api.close()

    async def _served(self) -> None:
        """Wait until the kinds can be listed: for a moment after they are established that is refused."""
        async with asyncio.timeout(30):
            for kind in KINDS.values():
                while True:
                    try:
                        await self.api.list_metadata(kind, NAMESPACE, limit=1)
                        break
                    except KubeError:
                        await asyncio.sleep(0.1)

    async def create(self, kind: type[Resource], specs: Mapping[str, Body]) -> None:
        """Create objects of a kind: their specs by name."""

        async def one(name: str) -> None:
            body = {"apiVersion": API_VERSION, "kind": kind.__name__, "metadata": {"name": name}, "spec": specs[name]}
            await self.api.call("POST", _path(kind), body=body)

        await _each(one, specs)

    async def patch(self, kind: type[Resource], names: Iterable[str], spec: Body) -> None:
        """Merge this into the specs of these objects."""

        async def one(name: str) -> None:
            await self.api.call("PATCH", f"{_path(kind)}/{name}", body={"spec": spec}, content_type=MERGE_PATCH)

        await _each(one, names)

    @contextlib.asynccontextmanager
    async def watching(self, kind: type[Resource]) -> AsyncIterator[Watch]:
        """Watch a kind while the block runs, from what is there now."""
        listed = await self.api.call("GET", _path(kind), seconds=60)
        seen = Watch({each["metadata"]["name"]: each for each in listed["items"]})
        version = listed["metadata"]["resourceVersion"]
        task = asyncio.create_task(self._follow(kind, seen, version))
        try:
            yield seen
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def writes(self) -> Counter[str]:
        """How many writes the API server has carried out, by resource."""
        async with self._session.get("/metrics") as answer:
            text = await answer.text()
        found: Counter[str] = Counter()
        for line in _REQUEST.finditer(text):
            labels = dict(_LABEL.findall(line["labels"]))
            if labels["verb"] in _WRITES and labels["code"].startswith("2"):
                name = "/".join(filter(None, (labels["resource"], labels["subresource"])))
                found[name] += int(float(line["count"]))
        return found

    async def _follow(self, kind: type[Resource], seen: Watch, version: str) -> None:
        """Hear of a kind until cancelled: whoever reads too slowly for the API server is cut off, and begins anew."""
        while True:
            await self._hear(kind, seen, version)
            listed = await self.api.call("GET", _path(kind), seconds=60)
            version, moment = listed["metadata"]["resourceVersion"], time.monotonic()
            for body in listed["items"]:
                known = body["metadata"]["name"] in seen.bodies
                seen.hear({"type": "MODIFIED" if known else "ADDED", "object": body}, moment)

    async def _hear(self, kind: type[Resource], seen: Watch, version: str) -> None:
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "false"}
        async with self._session.get(_path(kind), params=query) as answer:
            answer.raise_for_status()
            half = b""
            async for chunk in answer.content.iter_any():
                *lines, half = (half + chunk).split(b"\n")
                moment = time.monotonic()
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        return
                    seen.hear(event, moment)


def _path(kind: type[Resource]) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{NAMESPACE}/{kind.PLURAL}"


async def _each(act: Callable[[str], Any], names: Iterable[str]) -> None:
    """Do it for each name, some at a time."""
    left = iter(list(names))

    async def hand() -> None:
        for name in left:
            await act(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(PARALLEL):
            group.create_task(hand())
