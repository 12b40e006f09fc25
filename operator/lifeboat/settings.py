"""How the operator is set up: frozen, made once from the command line and the environment, and passed around."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from lifeboat import identity as identities

ZONES_VARIABLE: Final = "LIFEBOAT_ZONES"
NAMESPACES_VARIABLE: Final = "LIFEBOAT_NAMESPACES"
SERVICE_ACCOUNT_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. Times are seconds.

    `namespaces` empty means all. `http_port` 0 takes any free one. `poll` is how often an engine is looked at while
    nothing moves, `poll_moving` while a server boots or is being fenced.
    """

    zones: Path = Path("zones")
    namespaces: tuple[str, ...] = ()
    http_host: str = "0.0.0.0"  # noqa: S104 - probes and scrapes come from outside the pod
    http_port: int = 8080
    poll: float = 1.0
    poll_moving: float = 0.15
    lease_namespace: str = "default"
    lease_name: str = "lifeboat"
    identity: str = field(default_factory=identities.own)
    log_format: Literal["text", "json"] = "text"
    log_level: str = "INFO"
    kubeconfig: Path | None = None


def add_arguments(parser: ArgumentParser, environment: Mapping[str, str] = os.environ) -> None:
    """Declare the options of `lifeboat operator`; the environment gives the defaults."""
    parser.add_argument(
        "--zones",
        type=Path,
        default=Path(environment.get(ZONES_VARIABLE, "zones")),
        help=f"the folder with a folder for each zone (${ZONES_VARIABLE})",
    )
    given = environment.get(NAMESPACES_VARIABLE, "")
    parser.add_argument(
        "--namespace",
        "-n",
        dest="namespaces",
        action="append",
        default=None,
        help=f"serve this namespace only; may be repeated (${NAMESPACES_VARIABLE}, separated by commas). Default: all",
    )
    parser.set_defaults(namespaces_default=tuple(name for name in given.split(",") if name))
    parser.add_argument("--http", default="0.0.0.0:8080", help="where /healthz, /readyz and /metrics answer")
    parser.add_argument("--poll", type=float, default=1.0, help="seconds between looks at an engine")
    parser.add_argument("--lease-namespace", default=None, help="namespace of the Lease. Default: the operator's own")
    parser.add_argument("--lease-name", default="lifeboat", help="name of the Lease")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO")
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        default=Path(environment["KUBECONFIG"]) if environment.get("KUBECONFIG") else None,
        help="how to reach the API server from outside a cluster ($KUBECONFIG)",
    )


def from_arguments(arguments: Namespace) -> Settings:
    """Make the settings from parsed options.

    Raises:
        ValueError: an option cannot be read.
    """
    host, _, port = str(arguments.http).rpartition(":")
    if not port.isdigit():
        raise ValueError(f"--http {arguments.http}: write HOST:PORT, such as 127.0.0.1:8080")
    if arguments.poll <= 0:
        raise ValueError(f"--poll {arguments.poll:g}: write seconds greater than zero")
    return Settings(
        zones=arguments.zones,
        namespaces=tuple(arguments.namespaces or arguments.namespaces_default),
        http_host=host.strip("[]") or "0.0.0.0",  # noqa: S104 - as above
        http_port=int(port),
        poll=arguments.poll,
        poll_moving=min(0.15, arguments.poll),
        lease_namespace=arguments.lease_namespace or own_namespace(),
        lease_name=arguments.lease_name,
        log_format=arguments.log_format,
        log_level=arguments.log_level,
        kubeconfig=arguments.kubeconfig,
    )


def own_namespace() -> str:
    """The namespace that the operator's pod is in; `default` outside a cluster."""
    try:
        return SERVICE_ACCOUNT_NAMESPACE.read_text(encoding="utf-8").strip() or "default"
    except OSError:
        return "default"
