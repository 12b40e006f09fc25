"""Where the script after the switch comes from: the object itself, a ConfigMap, or a labelled Secret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from lifeboat import clock, kube
from lifeboat.api.common import PostScript
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.view import Notice

FRESH_SECONDS: Final = 2.0
"""How long an answer about a script counts: a look at a waiting object must not cost a request each."""
MAX_CHARACTERS: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Content:
    """A script, and whether it is a secret's: then what it prints is nobody's business."""

    text: str = field(repr=False)
    secret: bool = False


class ScriptProblem(Exception):
    """Raised when a script cannot be read; `waits` where it may be readable later without anybody's doing."""

    def __init__(self, message: str, *, waits: bool = False) -> None:
        super().__init__(message)
        self.waits = waits


class Source(Protocol):
    """What is needed of the API server."""

    async def config_map_key(self, namespace: str, name: str, key: str) -> str:
        """The value of one key of a ConfigMap."""
        ...

    async def secret_key(self, namespace: str, name: str, key: str) -> str:
        """The value of one key of a labelled Secret."""
        ...


async def fetch(source: Source, namespace: str, script: PostScript) -> Content:
    """Read a script from where the object says.

    Raises:
        ScriptProblem: it cannot be read, and why.
    """
    try:
        if script.inline is not None:
            return Content(script.inline)
        if script.config_map_key_ref is not None:
            ref, what = script.config_map_key_ref, "ConfigMap"
            content = Content(await source.config_map_key(namespace, ref.name, ref.key))
        elif script.secret_key_ref is not None:
            ref, what = script.secret_key_ref, "Secret"
            content = Content(await source.secret_key(namespace, ref.name, ref.key), secret=True)
        else:
            raise ScriptProblem("postScript names no source")
    except kube.NotFound as error:
        raise ScriptProblem(f"{what} {ref.name} does not exist in namespace {namespace}; create it") from error
    except kube.Unusable as error:
        raise ScriptProblem(str(error)) from error
    except kube.Rejected as error:
        raise ScriptProblem(f"{what} {ref.name} may not be read by the operator: {error}") from error
    except kube.KubeError as error:
        raise ScriptProblem(f"{what} {ref.name} cannot be read now: {error}", waits=True) from error
    if len(content.text) > MAX_CHARACTERS:
        raise ScriptProblem(f"the script in {what} {ref.name} is longer than {MAX_CHARACTERS // 1024} Ki characters")
    return content


class Readability:
    """Whether scripts can be read, asked anew every few seconds at most."""

    def __init__(self, source: Source, *, elapsed: Callable[[], float] = clock.elapsed) -> None:
        self._source = source
        self._elapsed = elapsed
        self._known: dict[tuple[str, PostScript], tuple[float, Notice | None]] = {}

    async def problem(self, namespace: str, script: PostScript | None) -> Notice | None:
        """Why the script cannot be read, or None where it can, or where there is none."""
        if script is None or script.inline is not None:
            return None
        key, moment = (namespace, script), self._elapsed()
        known = self._known.get(key)
        if known is not None and moment - known[0] < FRESH_SECONDS:
            return known[1]
        self._known = {k: v for k, v in self._known.items() if moment - v[0] < FRESH_SECONDS}
        try:
            await fetch(self._source, namespace, script)
            notice = None
        except ScriptProblem as error:
            notice = Notice(reasons.SCRIPT_UNAVAILABLE, str(error), stalled=not error.waits)
        self._known[key] = (moment, notice)
        return notice
