"""Which engines a manifest can choose, and how each is made.

A further engine adds a function and a row: its package, and whatever client library that needs, is imported only when
it is chosen. What is not in the table (the simulated engine) is handed in by tests and cannot be asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from lifeboat.engines.contract import Engine, Refused, Secrets


def _qemu(*, zones: Path, **_: object) -> Engine:
    """The embedded engine; `zones` is the folder with a folder for each zone."""
    from lifeboat.engines.qemu.engine import QemuEngine  # noqa: PLC0415 - an engine is loaded only where it is chosen

    return QemuEngine(zones)


def _ceph(*, zones: Path, secrets: Secrets) -> Engine:
    """The engine on Ceph; `zones` has a folder for each zone where servers run, `secrets` how clusters are reached."""
    from lifeboat.engines.ceph.engine import CephEngine  # noqa: PLC0415 - as above

    return CephEngine(zones, secrets)


_FACTORIES: Mapping[str, Callable[..., Engine]] = {"qemu": _qemu, "ceph": _ceph}
NAMES = tuple(_FACTORIES)


def create(name: str, **options: object) -> Engine:
    """Make the engine that `spec.engine` names, with the operator's options for it.

    Raises:
        Refused: there is no engine of that name.
    """
    if (factory := _FACTORIES.get(name)) is None:
        raise Refused(f"there is no engine {name}: choose one of {', '.join(NAMES)}")
    return factory(**options)
