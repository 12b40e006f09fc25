"""What KubeVirt and Kubernetes' own controllers do of it all, where they cannot run: a stand-in for them.

It sees virtual machines that should run and makes their instances, ends instances that should not, and takes the
finalizers off that hold claims and volumes. What an instance is in the end is a `Hypervisor`'s: nothing, or a real
machine on real images. KubeVirt's subresources are served by an aggregated API, so that whoever uses them goes through
the real API server, and through its access control.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from lifeboat import kube
from lifeboat.api.values import parse_quantity
from lifeboat.engines.contract import EngineError

Body = dict[str, Any]

CRDS = Path(__file__).with_name("crds.yaml")
DRIVER = "rbd.csi.ceph.com"
_VM_HELD = "kubevirt.io/virtualMachineControllerFinalize"
_VMI_HELD = "foregroundDeleteVirtualMachine"
_GROUP = "subresources.kubevirt.io"
_LOOK = 0.05


@dataclass(frozen=True, slots=True)
class Image:
    """What a claim leads to: an image of a pool of what ceph-csi calls that cluster."""

    cluster: str
    pool: str
    name: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A machine to run on these disks."""

    name: str
    cpu: int
    memory_bytes: int
    disks: tuple[Image, ...]


class Hypervisor(Protocol):
    """What runs machines."""

    async def start(self, wanted: Wanted) -> str:
        """Start a machine; the answer is its address."""
        ...

    async def end(self, name: str, *, orderly: bool) -> bool:
        """End a machine; whether it has ended."""
        ...

    async def runs(self, name: str) -> bool:
        """Whether a machine still runs."""
        ...

    async def pause(self, name: str) -> None:
        """Let a machine stand still."""
        ...

    async def go_on(self, name: str) -> None:
        """Let it go on."""
        ...


class Paper:
    """Machines that are only written down."""

    def __init__(self) -> None:
        self.running: dict[str, Wanted] = {}
        self.started: list[str] = []
        self.stands_still: set[str] = set()
        self.endless = False
        """Whether nothing ends any more, as on a node that does not answer."""
        self.slow = 0.0
        """How long an orderly end takes."""
        self.orderly: list[str] = []

    async def start(self, wanted: Wanted) -> str:
        self.running[wanted.name] = wanted
        self.started.append(wanted.name)
        return f"127.77.0.{len(self.started)}"

    async def end(self, name: str, *, orderly: bool) -> bool:
        if self.endless:
            return False
        if orderly:
            self.orderly.append(name)
        self.running.pop(name, None)
        self.stands_still.discard(name)
        return True

    async def runs(self, name: str) -> bool:
        return name in self.running

    async def pause(self, name: str) -> None:
        self.stands_still.add(name)

    async def go_on(self, name: str) -> None:
        self.stands_still.discard(name)


class KubeVirt:
    """The stand-in for one namespace; `async with` runs it."""

    def __init__(self, api: kube.Kube, namespace: str, hypervisor: Hypervisor, folder: Path) -> None:
        self.api = api
        self.namespace = namespace
        self.hypervisor = hypervisor
        self._folder = folder
        self._pausing: set[str] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[KubeVirt]:
        """Run until left."""
        async with self._serving():
            work = asyncio.create_task(self._work())
            try:
                yield self
            finally:
                work.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await work

    async def vms(self) -> list[Body]:
        return await self.all("virtualmachines")

    async def all(self, plural: str) -> list[Body]:
        return list((await self.api.call("GET", self.path(plural)))["items"])

    async def get(self, plural: str, name: str) -> Body | None:
        try:
            return await self.api.call("GET", f"{self.path(plural)}/{name}")
        except kube.NotFound:
            return None

    async def merge(self, plural: str, name: str, body: Body, *, status: bool = False) -> None:
        with contextlib.suppress(kube.NotFound):
            path = f"{self.path(plural)}/{name}{'/status' if status else ''}"
            await self.api.call("PATCH", path, body=body, content_type=kube.MERGE_PATCH)

    def path(self, plural: str) -> str:
        if plural == "persistentvolumes":
            return "/api/v1/persistentvolumes"
        inside = f"namespaces/{self.namespace}/{plural}"
        return f"/api/v1/{inside}" if plural == "persistentvolumeclaims" else f"/apis/kubevirt.io/v1/{inside}"

    # --- what controllers do

    async def _work(self) -> None:
        while True:
            try:
                await self._round()
            except kube.KubeError as error:
                if not isinstance(error, kube.Conflict | kube.NotFound | kube.Unavailable):
                    raise
            await asyncio.sleep(_LOOK)

    async def _round(self) -> None:
        instances = {each["metadata"]["name"]: each for each in await self.all("virtualmachineinstances")}
        for vm in await self.all("virtualmachines"):
            await self._see_vm(vm, instances.get(vm["metadata"]["name"]))
        for instance in instances.values():
            await self._see_instance(instance)
        await self._see_storage([each for each in instances.values() if not _ended(each)])

    async def _see_vm(self, vm: Body, instance: Body | None) -> None:
        metadata = vm["metadata"]
        name, going = metadata["name"], "deletionTimestamp" in metadata
        wanted = not going and strategy(vm) != "Halted"
        if going and instance is None:
            await self.merge("virtualmachines", name, {"metadata": {"finalizers": None}})
            return
        if not going and not metadata.get("finalizers"):
            await self.merge("virtualmachines", name, {"metadata": {"finalizers": [_VM_HELD]}})
        asked = (vm.get("status") or {}).get("stateChangeRequests")
        if instance is None:
            if wanted:
                await self._make_instance(vm)
            if asked:
                await self.merge("virtualmachines", name, {"status": {"stateChangeRequests": None}}, status=True)
        elif not wanted or asked or (instance.get("status") or {}).get("phase") == "Failed":
            await self._delete("virtualmachineinstances", instance)
        told = (
            "Stopped"
            if instance is None and not wanted
            else (instance or {}).get("status", {}).get("phase", "Starting")
        )
        if (vm.get("status") or {}).get("printableStatus") != told:
            await self.merge("virtualmachines", name, {"status": {"printableStatus": told}}, status=True)

    async def _make_instance(self, vm: Body) -> None:
        template = vm["spec"]["template"]
        body = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {
                "name": vm["metadata"]["name"],
                "labels": (template.get("metadata") or {}).get("labels") or {},
                "finalizers": [_VMI_HELD],
            },
            "spec": template["spec"],
        }
        await self.api.call("POST", self.path("virtualmachineinstances"), body=body)

    async def _see_instance(self, instance: Body) -> None:
        metadata, status = instance["metadata"], instance.get("status") or {}
        name = metadata["name"]
        if "deletionTimestamp" in metadata:
            orderly = instance["spec"].get("terminationGracePeriodSeconds", 30) > 0
            if await self.hypervisor.end(name, orderly=orderly):
                await self.merge("virtualmachineinstances", name, {"metadata": {"finalizers": None}})
        elif not status.get("phase"):
            wanted = await self._wanted(instance)
            if wanted is not None:
                try:
                    address = await self.hypervisor.start(wanted)
                except EngineError:
                    return  # its disks are not there yet, or any more: the next round sees
                await self.tell(name, "Running", interfaces=[{"name": "network", "ipAddress": address}])
        elif status["phase"] == "Running" and not await self.hypervisor.runs(name):
            await self.tell(name, "Succeeded")

    async def tell(self, name: str, phase: str, **more: object) -> None:
        moment = {"phase": phase, "phaseTransitionTimestamp": datetime.now(UTC).isoformat()}
        status = {"phase": phase, "phaseTransitionTimestamps": [moment], **more}
        await self.merge("virtualmachineinstances", name, {"status": status})

    async def _wanted(self, instance: Body) -> Wanted | None:
        """What the instance is to be, once its claims lead to volumes as ceph-csi and Kubernetes want them."""
        disks = []
        for volume in instance["spec"].get("volumes") or ():
            claim = await self.get("persistentvolumeclaims", volume["persistentVolumeClaim"]["claimName"])
            if claim is None:
                return None
            found = await self.get("persistentvolumes", claim["spec"]["volumeName"])
            if found is None:
                return None
            spec, its = found["spec"], found["spec"]["claimRef"]
            assert (its["namespace"], its["name"]) == (self.namespace, claim["metadata"]["name"])
            assert spec["volumeMode"] == claim["spec"]["volumeMode"] == "Block"
            assert spec["persistentVolumeReclaimPolicy"] == "Retain"
            assert spec["csi"]["driver"] == DRIVER
            attributes = spec["csi"]["volumeAttributes"]
            assert attributes["staticVolume"] == "true"
            disks.append(Image(attributes["clusterID"], attributes["pool"], spec["csi"]["volumeHandle"]))
        domain = instance["spec"]["domain"]
        cpu = domain["cpu"]
        return Wanted(
            instance["metadata"]["name"],
            cpu.get("sockets", 1) * cpu.get("cores", 1) * cpu.get("threads", 1),
            parse_quantity(domain["memory"]["guest"]),
            tuple(disks),
        )

    async def _see_storage(self, instances: list[Body]) -> None:
        used = {
            volume["persistentVolumeClaim"]["claimName"]
            for instance in instances
            for volume in instance["spec"].get("volumes") or ()
        }
        claims = {each["metadata"]["name"]: each for each in await self.all("persistentvolumeclaims")}
        for name, claim in claims.items():
            if "deletionTimestamp" in claim["metadata"] and name not in used:
                await self.merge("persistentvolumeclaims", name, {"metadata": {"finalizers": None}})
        for volume in await self.all("persistentvolumes"):
            its = volume["spec"].get("claimRef") or {}
            if "deletionTimestamp" in volume["metadata"] and its.get("name") not in claims:
                await self.merge("persistentvolumes", volume["metadata"]["name"], {"metadata": {"finalizers": None}})

    async def _delete(self, plural: str, body: Body) -> None:
        if "deletionTimestamp" not in body["metadata"]:
            with contextlib.suppress(kube.NotFound):
                await self.api.call("DELETE", f"{self.path(plural)}/{body['metadata']['name']}", body={})

    # --- KubeVirt's own API

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        """Serve the subresources, and let the API server know where."""
        application = web.Application()
        application.router.add_get(f"/apis/{_GROUP}/v1", _resources)
        # The API server would use a connection again that is about to be closed, and tell of an error then.
        application.on_response_prepare.append(_last)
        path = f"/apis/{_GROUP}/v1/namespaces/{{namespace}}/{{plural}}/{{name}}/{{what}}"
        application.router.add_put(path, self._told)
        # A connection that is kept for later would be cut in the middle of its good-bye when the stand-in ends.
        runner = web.AppRunner(application, keepalive_timeout=0.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls(self._folder))
            await site.start()
            (address,) = runner.addresses
            await self._register(address[1])
            yield
        finally:
            await runner.cleanup()

    async def _register(self, port: int) -> None:
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "virt-api", "namespace": "default"},
            "spec": {"type": "ExternalName", "externalName": "127.0.0.1"},
        }
        registration = {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"v1.{_GROUP}"},
            "spec": {
                "group": _GROUP,
                "version": "v1",
                "groupPriorityMinimum": 1000,
                "versionPriority": 15,
                "insecureSkipTLSVerify": True,
                "service": {"namespace": "default", "name": "virt-api", "port": port},
            },
        }
        for path, body in (
            ("/api/v1/namespaces/default/services/virt-api", service),
            (f"/apis/apiregistration.k8s.io/v1/apiservices/v1.{_GROUP}", registration),
        ):
            query = {"fieldManager": "stand-in", "force": "true"}
            await self.api.call("PATCH", path, query=query, body=body, content_type=kube.APPLY_PATCH)
        async with asyncio.timeout(60):
            while True:
                try:
                    await self.api.call("GET", f"/apis/{_GROUP}/v1")
                except kube.KubeError:
                    await asyncio.sleep(0.1)
                else:
                    return

    async def _told(self, request: web.Request) -> web.Response:
        name, plural, what = (request.match_info[each] for each in ("name", "plural", "what"))
        body = json.loads(await request.text() or "{}")
        vm, instance = await self.get("virtualmachines", name), await self.get("virtualmachineinstances", name)
        runs = instance is not None and not _ended(instance)
        match plural, what:
            case "virtualmachineinstances", "pause" if runs and not _paused(instance):
                await self.hypervisor.pause(name)
                condition = {"type": "Paused", "status": "True", "reason": "PausedByUser"}
                await self.merge("virtualmachineinstances", name, {"status": {"conditions": [condition]}})
                return web.Response()
            case "virtualmachineinstances", "unpause" if runs and _paused(instance):
                await self.hypervisor.go_on(name)
                await self.merge("virtualmachineinstances", name, {"status": {"conditions": []}})
                return web.Response()
            case "virtualmachines", "stop" if vm is not None and runs and "gracePeriod" in body:
                grace = {"spec": {"terminationGracePeriodSeconds": body["gracePeriod"]}}
                await self.merge("virtualmachineinstances", name, grace)
                return web.Response(status=202)
            case "virtualmachines", "restart" if vm is not None and runs and strategy(vm) != "Halted":
                asked = [{"action": "Stop", "uid": (instance or {})["metadata"]["uid"]}, {"action": "Start"}]
                await self.merge("virtualmachines", name, {"status": {"stateChangeRequests": asked}}, status=True)
                return web.Response(status=202)
            case "virtualmachines", "start" if vm is not None and not runs and instance is not None:
                await self._delete("virtualmachineinstances", instance)
                return web.Response(status=202)
            case _:
                status = {
                    "apiVersion": "v1",
                    "kind": "Status",
                    "status": "Failure",
                    "code": 409,
                    "reason": "Conflict",
                    "message": f"{plural} {name} is in no state for {what}",
                }
                return web.json_response(status, status=409)


def strategy(vm: Mapping[str, Any]) -> str:
    spec = vm["spec"]
    if spec.get("running") is not None:
        return "Always" if spec["running"] else "Halted"
    return str(spec.get("runStrategy", "Halted"))


def _ended(instance: Body) -> bool:
    return (instance.get("status") or {}).get("phase") in {"Succeeded", "Failed"}


def _paused(instance: Body | None) -> bool:
    conditions = ((instance or {}).get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Paused" for each in conditions)


async def _resources(_: web.Request) -> web.Response:
    found = [
        {"name": f"{plural}/{what}", "singularName": "", "namespaced": True, "kind": kind, "verbs": ["update"]}
        for plural, kind, verbs in (
            ("virtualmachines", "VirtualMachine", ("start", "stop", "restart")),
            ("virtualmachineinstances", "VirtualMachineInstance", ("pause", "unpause")),
        )
        for what in verbs
    ]
    return web.json_response(
        {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{_GROUP}/v1", "resources": found}
    )


async def _last(_: web.Request, response: web.StreamResponse) -> None:
    """Let an answer be the last one of its connection."""
    response.force_close()


def tls(folder: Path) -> ssl.SSLContext:
    """A certificate of its own, for loopback."""
    folder.mkdir(parents=True, exist_ok=True)
    key, certificate = folder / "virt-api.key", folder / "virt-api.crt"
    if not certificate.exists():
        argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=virt-api", "-days", "30"]
        argv += ["-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([*argv, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context
