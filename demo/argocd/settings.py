"""What Argo CD has to be told about the four kinds: the health scripts, and the ConfigMap that carries them.

The scripts stand in the layout of Argo CD's own repository. A person who cannot wait for them to come with Argo CD
merges `argocd/argocd-cm.yaml`, which `python -m demo.argocd.settings` makes of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import lupa
import yaml

from lifeboat.api import crd, names

ARGOCD: Final = Path(__file__).parent.parent.parent / "argocd"
CUSTOMIZATIONS: Final = ARGOCD / "resource_customizations" / names.GROUP
SNIPPET: Final = ARGOCD / "argocd-cm.yaml"
HEADER: Final = "# Made by `python -m demo.argocd.settings` of resource_customizations/: merge it into argocd-cm.\n"


class _Literal(str):
    """Text that YAML shows line by line."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    pass


def _represent(dumper: _Dumper, text: _Literal) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")


_Dumper.add_representer(_Literal, _represent)


def script(kind: str) -> str:
    """The health script of a kind."""
    return (CUSTOMIZATIONS / kind / "health.lua").read_text(encoding="utf-8")


def data() -> dict[str, str]:
    """What argocd-cm has to hold."""
    kinds = [kind.__name__ for kind in crd.KINDS]
    return {f"resource.customizations.health.{names.GROUP}_{kind}": _Literal(script(kind)) for kind in kinds}


def config_map() -> str:
    """The ConfigMap as a patch for the one that Argo CD has."""
    labels = {"app.kubernetes.io/name": "argocd-cm", "app.kubernetes.io/part-of": "argocd"}
    made = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "argocd-cm", "namespace": "argocd", "labels": labels},
        "data": data(),
    }
    return HEADER + yaml.dump(made, Dumper=_Dumper, sort_keys=False, width=200)


def health(found: Mapping[str, Any]) -> dict[str, str]:
    """What the script of its kind says of an object, as Argo CD runs it: the object is `obj`."""
    lua = lupa.LuaRuntime(unpack_returned_tuples=True)
    lua.globals()["obj"] = lua.table_from(found, recursive=True)
    told = lua.execute(script(found["kind"]))
    return {"status": told["status"], "message": told["message"]}


if __name__ == "__main__":
    SNIPPET.write_text(config_map(), encoding="utf-8")
