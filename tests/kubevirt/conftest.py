"""A real API server with KubeVirt's kinds, a namespace for each case, and a stand-in for what would run there."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from demo.controlplane import ControlPlane
from lifeboat import kube
from lifeboat.engines.ceph.compute.kubevirt.cluster import Cluster
from lifeboat.engines.ceph.compute.kubevirt.compute import KubeVirtCompute
from lifeboat.engines.ceph.options import KubeVirt as Options
from tests.kubevirt import standin
from tests.kubevirt.standin import KubeVirt, Paper

ZONE = "zone-b"


@pytest.fixture(scope="session")
async def kubevirt_plane(control_plane: ControlPlane) -> ControlPlane:
    """The API server, with KubeVirt's kinds."""
    await serve_kubevirt(control_plane)
    return control_plane


async def serve_kubevirt(plane: ControlPlane) -> None:
    """Create KubeVirt's kinds and wait until they are served."""
    api = await kube.Kube.connect(plane.kubeconfig)
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    definitions = yaml.safe_load(standin.CRDS.read_text(encoding="utf-8"))["items"]
    try:
        for body in definitions:
            query = {"fieldManager": "tests", "force": "true"}
            name = body["metadata"]["name"]
            await api.call("PATCH", f"{path}/{name}", query=query, body=body, content_type=kube.APPLY_PATCH)
        end = time.monotonic() + 30
        for body in definitions:
            while not _established(await api.call("GET", f"{path}/{body['metadata']['name']}")):
                assert time.monotonic() < end, "KubeVirt's kinds are not served"
            while not await _listed(api, body["spec"]["names"]["plural"]):
                assert time.monotonic() < end, "KubeVirt's kinds cannot be listed"
    finally:
        await api.close()


async def _listed(api: kube.Kube, plural: str) -> bool:
    """Whether the storage of a kind answers, which is some time after the kind is served."""
    try:
        await api.call("GET", f"/apis/kubevirt.io/v1/{plural}")
    except kube.KubeError:
        return False
    return True


def _established(body: kube.Body) -> bool:
    conditions = (body.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


def options(**changes: object) -> Options:
    """What a SitePair says of a cluster."""
    given = {
        "clusterID": "ceph-b",
        "csiSecretRef": {"name": "csi-rbd-node", "namespace": "ceph-csi"},
        "networks": [
            {"name": "recovery", "pod": {}},
            {"name": "vlan", "multus": "production/vlan-20"},
            {"name": "both", "multus": "vlan-30", "isolated": "nowhere", "cidr": "10.30.0.0/24"},
        ],
        **changes,
    }
    return Options.model_validate(given)


class Clock:
    """A clock that tests put forward."""

    def __init__(self) -> None:
        self.skew = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.skew


@dataclass
class World:
    """A namespace in which servers run on paper, and the compute that is tried."""

    plane: ControlPlane
    api: kube.Kube
    kubevirt: KubeVirt
    paper: Paper
    compute: KubeVirtCompute
    clock: Clock

    @property
    def namespace(self) -> str:
        return self.kubevirt.namespace


@pytest.fixture
async def world(kubevirt_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[World]:
    api = await kube.Kube.connect(kubevirt_plane.kubeconfig)
    ours = await kube.Kube.connect(kubevirt_plane.kubeconfig)
    namespace = f"servers-{uuid.uuid4().hex[:8]}"
    try:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        await api.call("POST", "/api/v1/namespaces", body=body)
        paper, clock = Paper(), Clock()
        async with KubeVirt(api, namespace, paper, tmp_path).running() as kubevirt:
            compute = KubeVirtCompute(Cluster(ours, ZONE, namespace), options(), "demo", clock.now)
            yield World(kubevirt_plane, api, kubevirt, paper, compute, clock)
    finally:
        await ours.close()
        await api.close()
