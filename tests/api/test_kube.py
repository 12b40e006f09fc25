"""How the operator's own client reads what there is."""

import pytest

from demo.controlplane import ControlPlane
from lifeboat import kube
from lifeboat.api.sitepair import SitePair
from tests.api.conftest import NAMESPACE, Cluster, Spec

PAIR: Spec = {"primary": {"zone": "eu-1a"}, "recovery": {"zone": "eu-1b"}}


async def test_a_list_of_many_pages_has_each_object_once(
    control_plane: ControlPlane, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {cluster.create(SitePair, PAIR)["metadata"]["name"] for _ in range(5)}
    monkeypatch.setattr(kube, "PAGE", 2)
    api = await kube.Kube.connect(control_plane.kubeconfig)
    try:
        for namespace in (NAMESPACE, None):
            names = [each["name"] for each in await api.list_metadata(SitePair, namespace)]
            assert made <= set(names)
            assert len(names) == len(set(names))
        assert len(await api.list_metadata(SitePair, NAMESPACE, limit=1)) == 1
    finally:
        await api.close()
