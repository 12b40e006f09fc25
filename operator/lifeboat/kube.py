"""What the operator says to the API server besides watching: thin typed functions over one `kubernetes.aio` client.

Every call has a deadline, names its content type, and maps failures once into the small exceptions below, so that
nothing else knows the client. Bodies are plain JSON objects: the models of the API are pydantic's at the edge of the
world, and the client's own models would only cost time.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config

from lifeboat.api.common import Resource
from lifeboat.api.names import (
    ENGINE_LABEL,
    ENGINE_LABEL_VALUE,
    FIELD_MANAGER,
    FINALIZER,
    GROUP,
    SCRIPT_LABEL,
    SCRIPT_LABEL_VALUE,
    VERSION,
)

Body = dict[str, Any]
Kind = type[Resource]

PAGE: Final = 250
DEADLINE_SECONDS: Final = 10.0
CONNECTIONS: Final = 32
MERGE_PATCH: Final = "application/merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"
JSON: Final = "application/json"
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_CONFLICT_TRIES: Final = 5


class KubeError(Exception):
    """Raised when the API server did not do what was asked."""


class NotFound(KubeError):
    """Raised when the object does not exist."""


class Conflict(KubeError):
    """Raised when the object changed since it was read, or exists already."""


class Rejected(KubeError):
    """Raised when the request is not allowed or not valid: asking again changes nothing."""


class Unavailable(KubeError):
    """Raised when the API server does not answer, or asks to wait."""


class Unusable(KubeError):
    """Raised when what is there may not, or cannot, be used for what it is asked for. The message says why."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to reach the API server; `token` comes with its scheme, such as `Bearer`."""

    server: str
    token: str | None = field(repr=False)
    verify: bool
    ca_file: str | None
    certificate_file: str | None
    key_file: str | None


@dataclass(frozen=True, slots=True)
class Access:
    """Where an API server is and as whom to speak to it; certificates and key are PEM texts."""

    server: str
    authority: str | None
    server_name: str | None = None
    token: str | None = field(default=None, repr=False)
    certificate: str | None = None
    key: str | None = field(default=None, repr=False)


class Kube:
    """One connection pool to the API server."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._turns = asyncio.Semaphore(CONNECTIONS)

    @classmethod
    async def connect(cls, kubeconfig: Path | None) -> Self:
        """Connect as the kubeconfig says; without one, as a pod of the cluster."""
        made = client.Configuration()
        if kubeconfig is not None:
            await config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=str(kubeconfig), client_configuration=made
            )
        else:
            config.load_incluster_config(client_configuration=made)  # type: ignore[no-untyped-call]
        return cls(_client(made))

    @classmethod
    def as_pod(cls) -> Self:
        """Connect as a pod of the cluster.

        Raises:
            Unusable: the process is none.
        """
        made = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=made)  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            raise Unusable("the operator is no pod of a cluster") from error
        return cls(_client(made))

    @classmethod
    def reach(cls, access: Access) -> Self:
        """Connect to an API server of which only this is known, and which nobody here vouches for.

        Raises:
            Unusable: its certificates cannot be read.
        """
        made = client.Configuration()
        made.host = access.server
        made.ca_cert_data = access.authority
        made.tls_server_name = access.server_name
        made.trace_configs = [_stays_there()]
        if access.token is not None:
            made.api_key = {"BearerToken": f"Bearer {access.token}"}
        try:
            # The library takes a certificate from files only; it has read them once the client is made.
            with tempfile.TemporaryDirectory() as folder:
                if access.certificate is not None and access.key is not None:
                    for name, text in (("certificate", access.certificate), ("key", access.key)):
                        (Path(folder) / name).write_text(text, encoding="ascii")
                    made.cert_file, made.key_file = f"{folder}/certificate", f"{folder}/key"
                return cls(_client(made))
        except (ssl.SSLError, ValueError) as error:
            raise Unusable("the certificates of the API server, or of its user, cannot be read") from error

    async def credentials(self) -> Credentials:
        """With what this client speaks to the API server, for whoever else has to."""
        made = self._api.configuration
        return Credentials(
            server=made.host,
            token=await made.get_api_key_with_prefix("BearerToken", alias="authorization"),
            verify=bool(made.verify_ssl),
            ca_file=made.ssl_ca_cert,
            certificate_file=made.cert_file,
            key_file=made.key_file,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()  # type: ignore[no-untyped-call]

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
        accept: str = JSON,
        seconds: float = DEADLINE_SECONDS,
    ) -> Body:
        """Make one request and return the JSON object that is the answer. Its time begins with its turn.

        Raises:
            KubeError: one of its kinds.
        """
        try:
            async with self._turns, asyncio.timeout(seconds):
                # The body goes past the client's serialization, which would copy it model by model for nothing.
                _, url, headers, _, _ = await self._api.param_serialize(
                    method,
                    f"{path}?{urlencode(query)}" if query else path,
                    header_params={"Accept": accept, "Content-Type": content_type},
                    auth_settings=["BearerToken"],
                )
                answer = await self._api.call_api(
                    method, url, headers, body, _request_timeout=aiohttp.ClientTimeout(total=seconds)
                )
                text = await answer.read()  # type: ignore[no-untyped-call]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{method} {path}: {str(error) or type(error).__name__}") from error
        if answer.status >= 300:
            raise _error(answer.status, method, path, text)
        found: Body = json.loads(text or b"{}")
        return found

    # --- the four kinds

    async def read(self, kind: Kind, namespace: str, name: str) -> Body:
        """The object as the API server has it now."""
        return await self.call("GET", _path(kind, namespace, name))

    async def list_metadata(self, kind: Kind, namespace: str | None, *, limit: int = 0) -> list[Body]:
        """The metadata of all objects of the kind, or of so many; by pages, so that reading them holds nobody up."""
        query = {"limit": str(limit or PAGE)}
        listed: list[Body] = []
        while True:
            found = await self.call("GET", _path(kind, namespace), query=query, accept=METADATA_ONLY, seconds=20)
            listed += [item["metadata"] for item in found["items"] or ()]
            following = found["metadata"].get("continue")
            if limit or not following:
                return listed
            query["continue"] = following

    async def apply_status(self, kind: Kind, namespace: str, name: str, status: Body) -> Body:
        """Make the operator's part of the status exactly this, by server-side apply; the answer is the object."""
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": kind.__name__,
            "metadata": {"name": name, "namespace": namespace},
            "status": status,
        }
        return await self.call(
            "PATCH",
            f"{_path(kind, namespace, name)}/status",
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
            body=body,
            content_type=APPLY_PATCH,
        )

    async def keep_finalizer(self, kind: Kind, seen: Mapping[str, Any]) -> Body | None:
        """Put our finalizer on an object as it was last seen; None where that object is gone or going."""
        return await self._finalizer(kind, seen, present=True)

    async def drop_finalizer(self, kind: Kind, seen: Mapping[str, Any]) -> Body | None:
        """Take our finalizer off an object as it was last seen; None where that object is gone."""
        return await self._finalizer(kind, seen, present=False)

    async def _finalizer(self, kind: Kind, seen: Mapping[str, Any], *, present: bool) -> Body | None:
        """Change the list as it was last seen, and again on fresh data when somebody else changed it meanwhile."""
        namespace, name, uid = (seen["metadata"][each] for each in ("namespace", "name", "uid"))
        found = dict(seen)
        for _ in range(_CONFLICT_TRIES):
            try:
                metadata = found["metadata"]
                finalizers = metadata.get("finalizers", [])
                if metadata["uid"] != uid or (present and metadata.get("deletionTimestamp")):
                    return None
                if (FINALIZER in finalizers) is present:
                    return found
                wanted = [*finalizers, FINALIZER] if present else [each for each in finalizers if each != FINALIZER]
                return await self.call(
                    "PATCH",
                    _path(kind, namespace, name),
                    query={"fieldManager": FIELD_MANAGER},
                    body={"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": wanted}},
                    content_type=MERGE_PATCH,
                )
            except NotFound:
                return None
            except Conflict:
                try:
                    found = await self.read(kind, namespace, name)
                except NotFound:
                    return None
        raise Conflict(f"the finalizers of {kind.__name__} {namespace}/{name} change faster than they can be written")

    # --- what stands beside them

    async def create_event(self, namespace: str, body: Body) -> None:
        """Create a core/v1 Event."""
        await self.call("POST", f"/api/v1/namespaces/{namespace}/events", body=body)

    async def config_map_key(self, namespace: str, name: str, key: str) -> str:
        """The value of one key of a ConfigMap.

        Raises:
            Unusable: it has no such key.
        """
        found = await self.call("GET", f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        value = (found.get("data") or {}).get(key)
        if value is None:
            raise Unusable(f"ConfigMap {name} has no key {key}")
        return str(value)

    async def secret_key(self, namespace: str, name: str, key: str) -> str:
        """The value of one key of a Secret that is labelled as a script.

        Raises:
            Unusable: it lacks the label or the key, or is not text.
        """
        found = await self.call("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")
        return secret_script(found, name, key)

    async def engine_secret(self, namespace: str, name: str) -> dict[str, str]:
        """The texts in a Secret that is labelled for engines.

        Raises:
            Unusable: it lacks the label, or holds something that is not text.
        """
        found = await self.call("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")
        return secret_for_engine(found, name)

    async def read_lease(self, namespace: str, name: str) -> Body:
        """The Lease as it is."""
        return await self.call("GET", f"{_leases(namespace)}/{name}", seconds=5)

    async def create_lease(self, namespace: str, body: Body) -> Body:
        """Create a Lease; `Conflict` where somebody was faster."""
        return await self.call("POST", _leases(namespace), body=body, seconds=5)

    async def replace_lease(self, namespace: str, body: Body) -> Body:
        """Replace the Lease of that resourceVersion; `Conflict` where it changed since."""
        return await self.call("PUT", f"{_leases(namespace)}/{body['metadata']['name']}", body=body, seconds=5)


def _stays_there() -> aiohttp.TraceConfig:
    """What keeps a client from going where a server sends it."""

    async def refuse(*_: object) -> None:
        raise aiohttp.ClientError("it redirects, which is not followed")

    made = aiohttp.TraceConfig()
    made.on_request_redirect.append(refuse)
    return made


def _client(made: client.Configuration) -> client.ApiClient:
    made.retries = None
    made.connection_pool_maxsize = CONNECTIONS
    made.client_session_kwargs = {"trust_env": False}
    return client.ApiClient(made)


def secret_script(secret: Body, name: str, key: str) -> str:
    """The script in a Secret, if the Secret is labelled for that."""
    _need_label(secret, name, SCRIPT_LABEL, SCRIPT_LABEL_VALUE)
    value = (secret.get("data") or {}).get(key)
    if value is None:
        raise Unusable(f"Secret {name} has no key {key}")
    return _text(value, name, key)


def secret_for_engine(secret: Body, name: str) -> dict[str, str]:
    """The texts in a Secret, if the Secret is labelled for engines."""
    _need_label(secret, name, ENGINE_LABEL, ENGINE_LABEL_VALUE)
    return {key: _text(value, name, key) for key, value in (secret.get("data") or {}).items()}


def _need_label(secret: Body, name: str, label: str, value: str) -> None:
    labels = secret["metadata"].get("labels") or {}
    if labels.get(label) != value:
        raise Unusable(f'Secret {name} is not read without the label {label}: "{value}"')


def _text(value: str, name: str, key: str) -> str:
    try:
        return base64.b64decode(value).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Unusable(f"key {key} of Secret {name} is not text") from error


def _path(kind: Kind, namespace: str | None, name: str | None = None) -> str:
    inside = f"/namespaces/{namespace}" if namespace else ""
    one = f"/{name}" if name else ""
    return f"/apis/{GROUP}/{VERSION}{inside}/{kind.PLURAL}{one}"


def _leases(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


def _error(status: int, method: str, path: str, text: bytes) -> KubeError:
    """The one mapping from the API server's answers to what they mean here."""
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = text[:200].decode(errors="replace")
    said = f"{method} {path}: {status} {message}"
    match status:
        case 404 | 410:
            return NotFound(said)
        case 409 | 412:
            return Conflict(said)
        case _ if status == 429 or status >= 500:
            return Unavailable(said)
        case _:
            return Rejected(said)
