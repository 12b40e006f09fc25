"""Which compute each site of a pair has: the operator's host, or a cluster with KubeVirt, as the pair's options say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lifeboat import kube
from lifeboat.engines.ceph import options
from lifeboat.engines.ceph.compute import Compute
from lifeboat.engines.ceph.compute.host.compute import HostCompute
from lifeboat.engines.ceph.compute.kubevirt import kubeconfig
from lifeboat.engines.ceph.compute.kubevirt.cluster import Cluster
from lifeboat.engines.ceph.compute.kubevirt.compute import KubeVirtCompute
from lifeboat.engines.ceph.options import KubeVirt
from lifeboat.engines.contract import Pair, Refused, Secrets

# A Secret that people change is read again after so many seconds.
_FRESH = 30.0
_Key = tuple[str, str, KubeVirt]


@dataclass(frozen=True, slots=True)
class _Known:
    """A compute, and the access that it was made with: None as a pod of its cluster."""

    read_at: float
    access: kube.Access | None
    compute: KubeVirtCompute


class Computes:
    """The computes of all sites. The host's is one, with the zones in `folder`."""

    def __init__(
        self,
        folder: Path,
        secrets: Secrets,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = HostCompute(folder, clock)
        self._secrets = secrets
        self._clock = clock
        self._monotonic = monotonic
        self._reading = asyncio.Lock()
        self._known: dict[_Key, _Known] = {}

    async def at(self, pair: Pair, zone: str) -> Compute:
        """What runs the servers of a zone of the pair.

        Raises:
            Refused: the pair's options or the Secret cannot be used.
            Retry: the Secret cannot be read now.
        """
        chosen = options.read(pair.options).site(pair, zone).compute.kubevirt
        if chosen is None:
            return self._host
        key = pair.namespace, zone, chosen
        async with self._reading:
            now = self._monotonic()
            known = self._known.get(key)
            if known is not None and now - known.read_at < _FRESH:
                return known.compute
            access = await self._access(pair, chosen)
            if known is not None and known.access == access:
                compute = known.compute
            else:
                compute = self._made(pair, zone, chosen, access)
                if known is not None:
                    await known.compute.close()
            self._known[key] = _Known(now, access, compute)
            return compute

    async def close(self) -> None:
        """Let go of all connections; what runs goes on."""
        await self._host.close()
        for known in self._known.values():
            await known.compute.close()
        self._known.clear()

    async def _access(self, pair: Pair, chosen: KubeVirt) -> kube.Access | None:
        if chosen.kubeconfig_secret_ref is None:
            return None
        name = chosen.kubeconfig_secret_ref.name
        return kubeconfig.read(await self._secrets.read(pair.namespace, name), name)

    def _made(self, pair: Pair, zone: str, chosen: KubeVirt, access: kube.Access | None) -> KubeVirtCompute:
        namespace = chosen.namespace or pair.namespace
        if access is None and namespace != pair.namespace:
            # With the operator's own rights whoever writes a SitePair would reach into every namespace.
            raise Refused(
                f"namespace {namespace} is not the SitePair's own: leave compute.kubevirt.namespace out, or name in "
                "kubeconfigSecretRef a kubeconfig that may use it"
            )
        try:
            api = kube.Kube.as_pod() if access is None else kube.Kube.reach(access)
        except kube.Unusable as error:
            raise Refused(f"compute.kubevirt.kubeconfigSecretRef of zone {zone}: {error}") from error
        return KubeVirtCompute(Cluster(api, zone, namespace), chosen, pair.namespace, self._clock, self._monotonic)
