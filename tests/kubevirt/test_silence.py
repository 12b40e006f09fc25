"""An API server that does not answer, and a cluster in which something is missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from aiohttp import web

from demo.controlplane import ControlPlane
from lifeboat import kube
from lifeboat.clock import now
from lifeboat.engines.ceph.compute.computes import Computes
from lifeboat.engines.ceph.compute.kubevirt.cluster import INSTANCE
from lifeboat.engines.contract import Pair, Refused, Unreachable
from tests.kubevirt import standin
from tests.kubevirt.conftest import ZONE, World, options
from tests.kubevirt.test_machines import ACCESS, order


class Secrets:
    """The Secrets of a namespace, which people change."""

    def __init__(self, **texts: str) -> None:
        self.texts = texts
        self.read_times = 0

    async def read(self, namespace: str, name: str) -> Mapping[str, str]:
        assert namespace == "demo"
        self.read_times += 1
        return {"kubeconfig": self.texts[name]}


def pair(**changes: object) -> Pair:
    chosen = options(**changes).model_dump(mode="json", by_alias=True, exclude_none=True)
    recovery = {"secretRef": {"name": "ceph-b"}, "compute": {"kubevirt": chosen}}
    return Pair("zone-a", ZONE, {"primary": {"secretRef": {"name": "ceph-a"}}, "recovery": recovery}, "demo")


def kubeconfig(server: str) -> str:
    return (
        "{current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], "
        f"clusters: [{{name: c, cluster: {{server: '{server}'}}}}], users: [{{name: u, user: {{token: t}}}}]}}"
    )


@pytest.fixture
async def deaf() -> AsyncIterator[str]:
    """The address of a server that takes connections and says nothing."""
    hung: list[asyncio.StreamWriter] = []

    def taken(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hung.append(writer)

    server = await asyncio.start_server(taken, "127.0.0.1", 0)
    yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for writer in hung:
        writer.close()
    server.close()


async def test_a_silent_api_server_is_unreachable_and_soon(deaf: str, tmp_path: Path) -> None:
    secrets = Secrets(silent=kubeconfig(deaf), gone=kubeconfig("https://127.0.0.1:1"))
    computes = Computes(tmp_path, secrets, now)
    try:
        for name in ("silent", "gone"):
            compute = await computes.at(pair(kubeconfigSecretRef={"name": name}, namespace="servers"), ZONE)
            began = time.monotonic()
            with pytest.raises(Unreachable, match=f"the API server of zone {ZONE} does not answer"):
                await compute.offer(ZONE)
            with pytest.raises(Unreachable):
                await compute.fence(ZONE, "web-1")
            assert time.monotonic() - began < 7
    finally:
        await computes.close()


async def test_a_server_that_sends_the_operator_elsewhere_is_not_followed(tmp_path: Path) -> None:
    context = standin.tls(tmp_path)
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        raise web.HTTPFound(f"https://127.0.0.1:{port}/elsewhere")

    runner = web.AppRunner(web.Application(), keepalive_timeout=0.0)
    runner.app.router.add_get("/{any:.*}", answer)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    port = runner.addresses[0][1]
    access = kube.Access(f"https://127.0.0.1:{port}", (tmp_path / "virt-api.crt").read_text(), token="t")
    api = kube.Kube.reach(access)
    try:
        with pytest.raises(kube.Unavailable, match="redirects"):
            await api.call("GET", "/api/v1/namespaces")
        assert asked == ["/api/v1/namespaces"]
    finally:
        await api.close()
        await runner.cleanup()


async def test_each_site_has_its_compute_and_a_changed_secret_is_followed(
    kubevirt_plane: ControlPlane, tmp_path: Path
) -> None:
    secrets = Secrets(it=kubeconfig("https://127.0.0.1:1"))
    seconds = 0.0
    computes = Computes(tmp_path, secrets, now, lambda: seconds)
    asked = pair(kubeconfigSecretRef={"name": "it"}, namespace="default")
    try:
        assert await computes.at(asked, "zone-a") is await computes.at(pair(), "zone-a"), "the host's is one"
        first = await computes.at(asked, ZONE)
        assert await computes.at(asked, ZONE) is first
        assert secrets.read_times == 1
        seconds = 60.0
        assert await computes.at(asked, ZONE) is first, "read again, and the same"
        secrets.texts["it"] = kubevirt_plane.kubectl("config", "view", "--raw", "--minify", "--flatten")
        seconds = 120.0
        second = await computes.at(asked, ZONE)
        assert second is not first
        assert (await second.offer(ZONE)).namespaces == ("demo",)
    finally:
        await computes.close()


async def test_without_a_kubeconfig_the_operators_own_namespace_of_the_pair_is_all_there_is(tmp_path: Path) -> None:
    computes = Computes(tmp_path, Secrets(), now)
    with pytest.raises(Refused, match=r"namespace kube-system is not the SitePair's own: leave .*namespace out"):
        await computes.at(pair(namespace="kube-system"), ZONE)
    with pytest.raises(Refused, match="the operator is no pod of a cluster"):
        await computes.at(pair(), ZONE)
    await computes.close()


async def test_what_a_cluster_lacks_is_said(world: World) -> None:
    cluster = world.compute._cluster
    cluster.namespace = "nowhere"
    with pytest.raises(Refused, match="create namespace nowhere there"):
        await world.compute.launch(ZONE, order(), ACCESS)
    assert await cluster.get(INSTANCE, "x") is None
