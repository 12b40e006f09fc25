"""What more than one folder of tests uses: the real API server, with the committed CRDs in it, and workers."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from demo.controlplane import ControlPlane
from demo.network import enter_own_network
from tests import workers

CRDS = Path(__file__).parent.parent / "crds"
FIRST_BUILD_SECONDS = 1800

pytest_plugins = ["tests.clusters", "tests.faults.figures"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Run on Ceph only where that is asked for: it wants packages that nothing else needs."""
    parser.addoption("--ceph", action="store_true", help="run the engines' conformance suite on two real Ceph clusters")


def pytest_configure(config: pytest.Config) -> None:
    """Give each of several workers a network."""
    if hasattr(config, "workerinput"):
        enter_own_network()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> workers.WholeWorlds:
    """Let several workers share the tests."""
    config.option.loadscopereorder = False
    return workers.WholeWorlds(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests, and give some time to build the API server, which the first does on a fresh machine."""
    workers.longest_first(items)
    for item in items:
        if "control_plane" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(FIRST_BUILD_SECONDS))


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A running API server that serves the four kinds."""
    with ControlPlane(tmp_path_factory.mktemp("controlplane")) as plane:
        with connect(plane) as connection:
            install_crds(connection)
        yield plane


def connect(plane: ControlPlane) -> client.ApiClient:
    """Return a client for the admin, to be closed by `with`."""
    made: client.ApiClient = config.new_client_from_config(str(plane.kubeconfig))  # type: ignore[no-untyped-call]
    return made


def install_crds(connection: client.ApiClient, *, seconds: float = 30) -> None:
    """Create the CRDs and wait until all are established."""
    api = client.ApiextensionsV1Api(connection)
    waiting = set()
    for path in sorted(CRDS.glob("*.yaml")):
        definition = yaml.safe_load(path.read_text(encoding="utf-8"))
        api.create_custom_resource_definition(definition)
        waiting.add(definition["metadata"]["name"])
    deadline = time.monotonic() + seconds
    while waiting:
        assert time.monotonic() < deadline, f"not established: {waiting}"
        for stored in api.list_custom_resource_definition().items:
            if stored.metadata and conditions_of(stored).get("Established") == "True":
                waiting.discard(stored.metadata.name)
        time.sleep(0.05)


def conditions_of(definition: client.V1CustomResourceDefinition) -> dict[str, str]:
    """Return the status of each condition of a CRD."""
    found = definition.status.conditions if definition.status else None
    return {condition.type: condition.status for condition in found or ()}
