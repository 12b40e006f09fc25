"""Whole operators beside a test: each in a thread with a loop of its own, against the real API server.

The engine is simulated and the namespace is the test's own, so that nothing of one test is seen by another.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from kubernetes import client

from lifeboat.api import names
from lifeboat.api.common import Resource
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair
from lifeboat.engines.contract import Engine
from lifeboat.engines.facts import Disk, Hardware
from lifeboat.engines.simulated.engine import SimulatedEngine
from lifeboat.engines.simulated.world import World
from lifeboat.service import Service
from lifeboat.settings import Settings

KINDS: tuple[type[Resource], ...] = (SitePair, ProtectedServer, Drill, Failover)
Stored = dict[str, Any]
_numbers = itertools.count(1)


def now() -> datetime:
    return datetime.now(UTC)


class Site:
    """A namespace, the world that its operators work on, and what kubectl would do in it."""

    def __init__(
        self,
        connection: client.ApiClient,
        kubeconfig: Path,
        *,
        boot_seconds: float = 0.5,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self.namespace = f"site-{next(_numbers)}"
        self.objects = client.CustomObjectsApi(connection)
        self.core = client.CoreV1Api(connection)
        self.coordination = client.CoordinationV1Api(connection)
        self.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=self.namespace)))
        self._clock = clock
        self.world = World(clock(), boot_seconds=boot_seconds)
        for zone in ("zone-a", "zone-b"):
            self.world.add_network(zone, "net", "10.0.0.0/24")
            self.world.allow_namespaces(zone, self.namespace)
        self.engine = SimulatedEngine(self.world, clock)
        self.settings = Settings(
            namespaces=(self.namespace,),
            http_host="127.0.0.1",
            http_port=0,
            poll=0.5,
            poll_moving=0.05,
            lease_namespace=self.namespace,
            kubeconfig=kubeconfig,
        )

    def add_server(self, server_id: str) -> None:
        self.world.add_server(server_id, Hardware(2, 2**30, (Disk("vda", 2**30, 50 * 2**20),)))

    def operator(self, engine: Callable[[str], Engine] | None = None) -> "Operator":
        settings = replace(self.settings, identity=f"operator-{next(_numbers)}")
        return Operator(settings, engine or (lambda _: self.engine), self._clock)

    def create(self, kind: type[Resource], name: str, spec: Mapping[str, Any]) -> Stored:
        body = {
            "apiVersion": names.API_VERSION,
            "kind": kind.__name__,
            "metadata": {"name": name},
            "spec": spec,
        }
        return self._call(self.objects.create_namespaced_custom_object, kind, body=body)

    def pair(self) -> Stored:
        side = {"network": "net", "replicationNetwork": "net", "recoveryNetwork": "net"}
        spec = {"primary": {"zone": "zone-a", **side}, "recovery": {"zone": "zone-b", **side}}
        return self.create(SitePair, "pair", spec)

    def protect(self, server_id: str, **more: object) -> Stored:
        self.add_server(server_id)
        spec = {
            "sitePairRef": {"name": "pair"},
            "serverId": server_id,
            "replication": {"enabled": True},
            **more,
        }
        return self.create(ProtectedServer, server_id, spec)

    def get(self, kind: type[Resource], name: str) -> Stored:
        return self._call(self.objects.get_namespaced_custom_object, kind, name=name)

    def edit(self, kind: type[Resource], name: str, spec: Mapping[str, Any]) -> Stored:
        return self._call(
            self.objects.patch_namespaced_custom_object,
            kind,
            name=name,
            body={"spec": spec},
            _content_type="application/merge-patch+json",
        )

    def delete(self, kind: type[Resource], name: str) -> None:
        self._call(self.objects.delete_namespaced_custom_object, kind, name=name)

    def exists(self, kind: type[Resource], name: str) -> bool:
        return any(each["metadata"]["name"] == name for each in self.all(kind))

    def all(self, kind: type[Resource]) -> list[Stored]:
        return cast("list[Stored]", self._call(self.objects.list_namespaced_custom_object, kind)["items"])

    def versions(self) -> dict[tuple[str, str], str]:
        """The resource version of every object: what a write of ours would change."""
        found = {
            (kind.__name__, each["metadata"]["name"]): each["metadata"]["resourceVersion"]
            for kind in KINDS
            for each in self.all(kind)
        }
        return found | {("events", ""): str(len(self.events()))}

    def events(self) -> list[client.CoreV1Event]:
        return list(self.core.list_namespaced_event(self.namespace).items)

    def phase(self, kind: type[Resource], name: str) -> str | None:
        return cast("str | None", self.get(kind, name).get("status", {}).get("phase"))

    def condition(self, kind: type[Resource], name: str, type_: str) -> tuple[str, str]:
        found = self.get(kind, name).get("status", {}).get("conditions", ())
        return next(((c["status"], c["reason"]) for c in found if c["type"] == type_), ("", ""))

    def until(self, holds: Callable[[], bool], seconds: float = 15) -> float:
        """Wait until it holds; how many seconds that took."""
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < seconds, f"after {seconds} s: {self._picture()}"
            time.sleep(0.02)
        return time.monotonic() - began

    def until_phase(self, kind: type[Resource], name: str, phase: str, seconds: float = 15) -> float:
        return self.until(lambda: self.phase(kind, name) == phase, seconds)

    def until_quiet(self, seconds: float = 15) -> dict[tuple[str, str], str]:
        """Wait until nothing has been written for more than two polls."""
        deadline, before = time.monotonic() + seconds, self.versions()
        while time.monotonic() < deadline:
            time.sleep(1.2)
            after = self.versions()
            if after == before:
                return after
            before = after
        raise AssertionError("it is never quiet")

    def _picture(self) -> list[object]:
        return [
            (kind.__name__, each["metadata"]["name"], each.get("status")) for kind in KINDS for each in self.all(kind)
        ]

    def _call(self, verb: Callable[..., object], kind: type[Resource], **arguments: object) -> Stored:
        found = verb(
            group=names.GROUP, version=names.VERSION, namespace=self.namespace, plural=kind.PLURAL, **arguments
        )
        return cast("Stored", found)


class Operator:
    """One operator in a thread; leaving the context stops it as SIGTERM would."""

    def __init__(
        self, settings: Settings, engine: Callable[[str], Engine], clock: Callable[[], datetime] = now
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._clock = clock
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._up = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.service: Service | None = None
        self.failed: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(20), "the operator does not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self.failed is not None and error is None:
            raise self.failed

    @property
    def port(self) -> int:
        assert self.service is not None
        return self.service.port

    def stop(self) -> None:
        if self._loop is not None and self._thread.is_alive():
            assert self.service is not None
            self._loop.call_soon_threadsafe(self.service.stop)
            self._thread.join(30)
            assert not self._thread.is_alive(), "the operator does not stop"

    def freeze(self, seconds: float) -> None:
        """Let the whole process stand still, as under SIGSTOP."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(time.sleep, seconds)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - told where the test ends
            self.failed = error
        finally:
            self._up.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.service = Service(self._settings, lambda name, _: self._engine(name), now=self._clock)
        running = asyncio.create_task(self.service.run())
        started = asyncio.create_task(self.service.started.wait())
        await asyncio.wait((running, started), return_when=asyncio.FIRST_COMPLETED)
        self._up.set()
        started.cancel()
        await running
        await asyncio.sleep(0.3)  # TLS connections say goodbye in the background
