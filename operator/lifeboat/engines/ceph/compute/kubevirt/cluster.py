"""One namespace of the cluster where a site's servers run: the calls that are made there, and what failures mean.

Nothing else of this compute speaks to an API server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lifeboat import kube
from lifeboat.engines.contract import Refused, Retry, Underway, Unreachable

Body = Mapping[str, Any]

_CALL = 2.5
_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, and where it is found."""

    name: str
    group: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As a manifest says it."""
        return self.group.removeprefix("apis/").removeprefix("api/")


VIRTUAL_MACHINE = Kind("VirtualMachine", "apis/kubevirt.io/v1", "virtualmachines")
INSTANCE = Kind("VirtualMachineInstance", "apis/kubevirt.io/v1", "virtualmachineinstances")
CLAIM = Kind("PersistentVolumeClaim", "api/v1", "persistentvolumeclaims")
VOLUME = Kind("PersistentVolume", "api/v1", "persistentvolumes", namespaced=False)
POLICY = Kind("NetworkPolicy", "apis/networking.k8s.io/v1", "networkpolicies")
QUOTA = Kind("ResourceQuota", "api/v1", "resourcequotas")
KINDS = {kind.name: kind for kind in (VIRTUAL_MACHINE, INSTANCE, CLAIM, VOLUME, POLICY, QUOTA)}
_SUBRESOURCES = "apis/subresources.kubevirt.io/v1"


class Cluster:
    """A namespace of a cluster; `zone` is how people call the site."""

    def __init__(self, api: kube.Kube, zone: str, namespace: str) -> None:
        self._api = api
        self.zone = zone
        self.namespace = namespace

    async def all(self, kind: Kind, selector: str = "") -> list[Body]:
        """All objects of a kind in the namespace, those with these labels where some are given."""
        query = {"labelSelector": selector} if selector else None
        found = await self._call("GET", self._path(kind), query=query)
        if found is None:
            raise Refused(
                f"the cluster of zone {self.zone} has no {kind.plural}: install KubeVirt there, or leave "
                "compute.kubevirt out"
            )
        return list(found["items"] or ())

    async def get(self, kind: Kind, name: str) -> Body | None:
        """An object as it is now, None where there is none."""
        return await self._call("GET", self._path(kind, name))

    async def apply(self, body: Body, manager: str) -> None:
        """Let an object be as this says, by server-side apply, whoever said something else.

        Raises:
            Underway: one of that name is still going.
        """
        kind, name = KINDS[body["kind"]], body["metadata"]["name"]
        done = await self._call(
            "PATCH",
            self._path(kind, name),
            query={"fieldManager": manager, "force": "true"},
            body=body,
            content_type=kube.APPLY_PATCH,
        )
        if done is None:
            raise Refused(
                f"{kind.name} {name} cannot be made in the cluster of zone {self.zone}: create namespace "
                f"{self.namespace} there, and see that KubeVirt is installed"
            )
        if done["metadata"].get("deletionTimestamp"):
            raise Underway(f"{kind.name} {name} in the cluster of zone {self.zone} is still being removed")

    async def delete(self, kind: Kind, name: str, grace: int | None = None) -> None:
        """Delete an object, or see that it is gone or going."""
        body = {} if grace is None else {"gracePeriodSeconds": grace}
        await self._call("DELETE", self._path(kind, name), body=body)

    async def tell(self, kind: Kind, name: str, what: str, body: Body | None = None) -> bool:
        """Let KubeVirt do something to what runs; false where there is nothing to do it to."""
        path = f"/{_SUBRESOURCES}/namespaces/{self.namespace}/{kind.plural}/{name}/{what}"
        try:
            return await self._call("PUT", path, body=body or {}) is not None
        except _Conflict:
            return False

    async def until_gone(self, kind: Kind, name: str, seconds: float, message: str) -> None:
        """Wait a little for an object to be gone.

        Raises:
            Underway: it is not, with this message.
        """
        await self.until(lambda: self._is_gone(kind, name), seconds, message)

    async def until(self, seen: Callable[[], Awaitable[bool]], seconds: float, message: str) -> None:
        """Wait a little until something is seen; `Underway` with this message where it is not."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not await seen():
            if loop.time() > end:
                raise Underway(message)
            await asyncio.sleep(_PAUSE)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._api.close()

    async def _is_gone(self, kind: Kind, name: str) -> bool:
        return await self.get(kind, name) is None

    def _path(self, kind: Kind, name: str = "") -> str:
        inside = f"/namespaces/{self.namespace}" if kind.namespaced else ""
        return f"/{kind.group}{inside}/{kind.plural}{f'/{name}' if name else ''}"

    async def _call(self, method: str, path: str, **more: Any) -> Body | None:  # noqa: ANN401 - handed on
        """Make a call; None where what it is about is not there."""
        try:
            return await self._api.call(method, path, seconds=_CALL, **more)
        except kube.NotFound:
            return None
        except kube.Conflict as error:
            raise _Conflict(f"the cluster of zone {self.zone}: {error}") from error
        except kube.Unavailable as error:
            raise Unreachable(f"the API server of zone {self.zone} does not answer: {error}") from error
        except kube.KubeError as error:
            raise Refused(
                f"the cluster of zone {self.zone} refuses it: {error}; see that the account has the rights of "
                "docs/how-to/ceph.md, and that spec.engine.ceph says what the cluster has"
            ) from error


class _Conflict(Retry):
    """Raised when an object is not as it was, or is in no state for what was asked."""
