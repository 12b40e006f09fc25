"""A small door to the real API server: what the tests send is what `kubectl apply` would send."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import pytest
from kubernetes import client

from demo.controlplane import ControlPlane
from lifeboat.api import names
from lifeboat.api.common import Resource
from tests.conftest import connect

NAMESPACE = "default"

Spec = Mapping[str, Any]
Stored = dict[str, Any]


class Refused(AssertionError):
    """The API server refused; `status` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Cluster:
    """Creates and changes objects of the four kinds under strict field validation, kubectl's default."""

    def __init__(self, connection: client.ApiClient) -> None:
        self.definitions = client.ApiextensionsV1Api(connection)
        self._objects = client.CustomObjectsApi(connection)
        self._numbers = itertools.count(1)

    def create(self, kind: type[Resource], spec: Spec, *, strict: bool = True) -> Stored:
        body = {
            "apiVersion": names.API_VERSION,
            "kind": kind.__name__,
            "metadata": {"name": f"object-{next(self._numbers)}"},
            "spec": spec,
        }
        return self._call(
            self._objects.create_namespaced_custom_object,
            kind.PLURAL,
            body=body,
            field_validation="Strict" if strict else "Ignore",
        )

    def replace(self, kind: type[Resource], stored: Stored, spec: Spec) -> Stored:
        return self._call(
            self._objects.replace_namespaced_custom_object,
            kind.PLURAL,
            name=stored["metadata"]["name"],
            body={**stored, "spec": spec},
            field_validation="Strict",
        )

    def apply_status(self, kind: type[Resource], stored: Stored, status: Mapping[str, Any]) -> Stored:
        """Write status as the operator does: by server-side apply, under its field manager."""
        body = {
            "apiVersion": names.API_VERSION,
            "kind": kind.__name__,
            "metadata": {"name": stored["metadata"]["name"]},
            "status": status,
        }
        return self._call(
            self._objects.patch_namespaced_custom_object_status,
            kind.PLURAL,
            name=stored["metadata"]["name"],
            body=body,
            field_manager=names.FIELD_MANAGER,
            field_validation="Strict",
            force=True,
            _content_type="application/apply-patch+yaml",
        )

    def _call(self, verb: Callable[..., object], plural: str, **arguments: object) -> Stored:
        try:
            return cast(
                "Stored",
                verb(group=names.GROUP, version=names.VERSION, namespace=NAMESPACE, plural=plural, **arguments),
            )
        except client.ApiException as error:
            raise Refused(error.status or 0, json.loads(error.body or "{}")["message"]) from error


@pytest.fixture(scope="session")
def cluster(control_plane: ControlPlane) -> Iterator[Cluster]:
    with connect(control_plane) as connection:
        yield Cluster(connection)
