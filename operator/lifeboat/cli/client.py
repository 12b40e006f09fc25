"""How the commands reach the API server: as kubectl does, and with words instead of a traceback where that fails.

Exit codes are the same for all commands: 0 told or done; 1 not there, or refused: asking again changes nothing; 2 the
command line is wrong; 3 the API server, or the zone, does not answer: it may later.
"""

from __future__ import annotations

import asyncio
import os
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import pydantic
import yaml
from kubernetes.aio import client, config

from lifeboat import clock, kube, settings
from lifeboat.api import names
from lifeboat.api.common import Resource
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair

FINE: Final = 0
REFUSED: Final = 1
SILENT: Final = 3

LIST_SECONDS: Final = 10.0
LEASE_NAME: Final = settings.Settings().lease_name
"""The usual name; a lease of another name is not found, and then nothing is said about the operator."""
OPERATOR_SILENT: Final = timedelta(seconds=60)
"""An operator renews its lease every few seconds; the rest is for clocks that differ."""

R = TypeVar("R", bound=Resource)


class Failure(Exception):
    """Raised when a command cannot tell or do what was asked. The message says what is wrong and what to do."""

    def __init__(self, message: str, code: int = REFUSED) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that was read at one moment. `namespace` None means all; `operator_silent` is for how long, if so."""

    now: datetime
    namespace: str | None
    pairs: Sequence[SitePair] = ()
    servers: Sequence[ProtectedServer] = ()
    drills: Sequence[Drill] = ()
    failovers: Sequence[Failover] = ()
    unreadable: Sequence[str] = ()
    operator_silent: timedelta | None = None


class Connection:
    """An open connection, and the namespace that is meant where none is given."""

    def __init__(self, api: kube.Kube, namespace: str) -> None:
        self._api = api
        self.namespace = namespace

    async def snapshot(self, namespace: str | None) -> Snapshot:
        """Read the four kinds, of one namespace or of all.

        Raises:
            Failure: they cannot be read.
        """
        problems: list[str] = []
        failures: list[Failure] = []

        async def every(kind: type[R]) -> tuple[R, ...]:
            try:
                return await self._list(kind, namespace, problems)
            except Failure as failure:  # noted, not raised: the others end in order, with their connections closed
                failures.append(failure)
                return ()

        async with asyncio.TaskGroup() as group:
            pairs = group.create_task(every(SitePair))
            servers = group.create_task(every(ProtectedServer))
            drills = group.create_task(every(Drill))
            failovers = group.create_task(every(Failover))
            silence = group.create_task(self._operator_silence())
        if failures:
            raise failures[0]
        return Snapshot(
            now=clock.now(),
            namespace=namespace,
            pairs=pairs.result(),
            servers=servers.result(),
            drills=drills.result(),
            failovers=failovers.result(),
            unreadable=tuple(sorted(problems)),
            operator_silent=silence.result(),
        )

    async def read(self, kind: type[R], namespace: str, name: str) -> R:
        """Read one object.

        Raises:
            Failure: it is not there, or cannot be read.
        """
        try:
            return kind.parse(await self._api.read(kind, namespace, name))
        except kube.NotFound:
            present = [each.metadata.name for each in await self._list(kind, namespace, [])]
            raise Failure(missing(kind, name, namespace, present)) from None
        except kube.KubeError as error:
            raise explained(error, kind) from error
        except pydantic.ValidationError as error:
            raise Failure(f"{kind.__name__} {name} cannot be read: {_problem(error)}") from error

    async def every(self, kind: type[R], namespace: str | None) -> tuple[R, ...]:
        """Read all objects of a kind that can be read.

        Raises:
            Failure: none can.
        """
        return await self._list(kind, namespace, [])

    async def _list(self, kind: type[R], namespace: str | None, problems: list[str]) -> tuple[R, ...]:
        inside = f"/namespaces/{namespace}" if namespace else ""
        path = f"/apis/{names.GROUP}/{names.VERSION}{inside}/{kind.PLURAL}"
        try:
            answer = await self._api.call("GET", path, seconds=LIST_SECONDS)
        except kube.KubeError as error:
            raise explained(error, kind) from error
        found = []
        for item in answer["items"]:
            try:
                found.append(kind.parse(item))
            except pydantic.ValidationError as error:
                name = f"{item['metadata'].get('namespace')}/{item['metadata']['name']}"
                problems.append(f"{kind.__name__} {name} cannot be read: {_problem(error)}")
        return tuple(sorted(found, key=lambda each: (each.metadata.namespace, each.metadata.name)))

    async def _operator_silence(self) -> timedelta | None:
        """For how long no operator has renewed its lease, where that can be seen and is long."""
        query = {"fieldSelector": f"metadata.name={LEASE_NAME}"}
        try:
            leases = (await self._api.call("GET", "/apis/coordination.k8s.io/v1/leases", query=query))["items"]
        except kube.KubeError:
            return None  # not everybody may read leases, and what matters more was read
        return lease_silence(leases, clock.now())


def lease_silence(leases: Sequence[Mapping[str, Any]], now: datetime) -> timedelta | None:
    """For how long the leases say that no operator was there, where that is long."""
    renewed = [lease["spec"]["renewTime"] for lease in leases if lease.get("spec", {}).get("renewTime")]
    if not renewed:
        return None
    silence = now - max(datetime.fromisoformat(each) for each in renewed)
    return silence if silence > OPERATOR_SILENT else None


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options that say which API server and which namespace, as kubectl has them."""
    parser.add_argument("-n", "--namespace", help="the namespace. Default: the one of the kubeconfig's context")
    parser.add_argument("--context", help="the context of the kubeconfig. Default: its current one")
    parser.add_argument("--kubeconfig", type=Path, help="the kubeconfig. Default: $KUBECONFIG, then ~/.kube/config")


@asynccontextmanager
async def connect(chosen: Namespace, environment: Mapping[str, str] = os.environ) -> AsyncIterator[Connection]:
    """Connect as the options, the environment or the pod say.

    Raises:
        Failure: there is no usable kubeconfig.
    """
    made = client.Configuration()
    made.retries = None
    made.client_session_kwargs = {"trust_env": False}
    given = _kubeconfig(chosen.kubeconfig, environment)
    try:
        if given is None:
            config.load_incluster_config(client_configuration=made)  # type: ignore[no-untyped-call]  # has no types
            namespace = settings.own_namespace()
        else:
            loader = await config.load_kube_config(  # type: ignore[no-untyped-call]  # has no types
                config_file=given, context=chosen.context, client_configuration=made, persist_config=False
            )
            namespace = loader.current_context["context"].get("namespace") or "default"
    except (config.ConfigException, yaml.YAMLError, OSError, TypeError, ValueError) as error:
        why = str(error).rstrip(".")
        raise Failure(
            f"kubeconfig {given} cannot be used: {why}. Name one with --kubeconfig or $KUBECONFIG, and a context of it "
            "with --context"
        ) from error
    api = kube.Kube(client.ApiClient(made))
    try:
        yield Connection(api, chosen.namespace or namespace)
    finally:
        await api.close()


def _kubeconfig(given: Path | None, environment: Mapping[str, str]) -> str | None:
    """The kubeconfig to use, found as kubectl finds it; None is for a pod that has none."""
    if chosen := str(given or environment.get("KUBECONFIG", "")):
        return chosen
    usual = Path("~/.kube/config").expanduser()
    return None if "KUBERNETES_SERVICE_HOST" in environment and not usual.exists() else str(usual)


def explained(error: kube.KubeError, kind: type[Resource]) -> Failure:
    """What an error of the API server means to whoever asked, and what to do about it."""
    match error:
        case kube.NotFound():
            return Failure(
                f"this cluster does not know {kind.__name__} ({names.API_VERSION}): Lifeboat's CRDs are not installed "
                "here. Install them (`kubectl apply -f crds/`), or choose another cluster with --context"
            )
        case kube.Unavailable():
            return Failure(
                f"the API server does not answer ({error}). What was protected goes on without it: replication and "
                "recovered servers do not depend on the API server. Try again, or another --kubeconfig or --context",
                SILENT,
            )
        case _:
            return Failure(
                f"the API server refuses ({error}). Ask for the right to get and list {kind.PLURAL}.{names.GROUP}, or "
                "choose another user with --kubeconfig or --context, or another namespace with -n"
            )


def missing(kind: type[Resource], name: str, namespace: str | None, present: Sequence[str]) -> str:
    """That an object is not there, and which ones are."""
    where = f"in namespace {namespace}" if namespace else "in any namespace"
    there = f"There are: {', '.join(sorted(present)[:10])}" if present else "There is none"
    elsewhere = "; look elsewhere with -n" if namespace else ""
    return f"there is no {kind.__name__} {name} {where}. {there}{elsewhere}"


def _problem(error: pydantic.ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
