"""What objects are called in a cluster where servers run, and the labels and annotations by which they are found again.

An object's name is made of ids that Kubernetes may not take and of a hash of all that tells it from others; nothing is
ever read from a name.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

MANAGER: Final = "lifeboat"
"""The field manager of what Lifeboat makes."""
POWER: Final = "lifeboat-power"
"""The field manager of whether a virtual machine runs: what it is made of may be somebody else's."""
HOLD: Final = "lifeboat-hold"
"""The field manager of the note that a virtual machine stands still for a moment."""
REGISTRATION: Final = "lifeboat-registration"
"""The field manager of which machine is the server, and of whose disks were given up."""

MANAGED_BY: Final = {"app.kubernetes.io/managed-by": "lifeboat"}
SERVER: Final = "lifeboat.dev/server"
"""Label: which server a virtual machine is, or which one it was recovered from."""
MACHINE: Final = "lifeboat.dev/machine"
"""Label and annotation: which launched machine it is. A server of the zone has none."""
ZONE: Final = "lifeboat.dev/zone"
"""Label: the zone in which a machine was launched."""
OBJECT: Final = "lifeboat.dev/virtual-machine"
"""Label of a virtual machine's pod: which one it belongs to."""
FENCED: Final = "lifeboat.dev/fenced"
"""Label of a server that was failed over and must not serve."""
FENCE: Final = "lifeboat.dev/fence"
"""Annotation of a fenced server: how far the fence has come."""
RAN: Final = "lifeboat.dev/run-strategy"
"""Annotation of a fenced server: what kept it running before, empty where nothing did."""
DISKS: Final = "lifeboat.dev/disks"
"""Annotation of a machine: its disks."""
PORTS: Final = "lifeboat.dev/ports"
"""Annotation: the ports on which a server is served, with commas between."""
ISOLATED: Final = "lifeboat.dev/isolated"
"""Annotation of a machine that is cut off from all others."""
REGISTERED: Final = "lifeboat.dev/registered"
"""Label of a machine that is the server of its zone from now on."""
GIVEN_UP: Final = "lifeboat.dev/given-up"
"""Annotation of a server: for which run of a copy its disks were given up."""
HELD: Final = "lifeboat.dev/held-since"
"""Annotation: since when Lifeboat lets a virtual machine stand still for a point."""

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_MOST = 63
_HASH = 10


def machine(zone: str, server_id: str, name: str) -> str:
    """The virtual machine of a launched machine, and its NetworkPolicy."""
    return _named(f"{server_id}-{name}", zone, server_id, name)


def disk(namespace: str, pool: str, image: str) -> str:
    """The PersistentVolume and the claim of an image: whichever machine has it, they are the same."""
    return _named(image, namespace, pool, image)


def label(value: str) -> str:
    """A label's value for a name that may be too long for one."""
    return value if _LABEL.fullmatch(value) else _named(value, value)


def hostname(text: str) -> str:
    """The name of a host for what people call a server."""
    return _slug(text)[:_MOST].strip("-") or "server"


def _named(words: str, *parts: str) -> str:
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_HASH]
    slug = _slug(words)[: _MOST - _HASH - 1].strip("-")
    return f"{slug}-{digest}" if slug else f"lifeboat-{digest}"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
