"""What the operator tells: every status and Event that a person who watches would see, with the moment when it came."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import yaml

from lifeboat.api import names

_OURS: Final = f"/apis/{names.API_VERSION}"
KINDS: Final = {
    "ps": (_OURS, "protectedservers"),
    "dr": (_OURS, "drills"),
    "fo": (_OURS, "failovers"),
    "event": ("/api/v1", "events"),
}
_AGAIN_SECONDS = 0.1
_SILENT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Told:
    """One status of one object: its phase and what its Ready condition says. `at` is `time.monotonic`.

    An Event is of kind `event`, named as the object that it is about, and has neither phase nor conditions.
    """

    at: float
    kind: str
    name: str
    phase: str
    ready: str
    reason: str
    message: str
    conditions: Mapping[str, tuple[str, str, str]]


class Watcher:
    """Watches the objects of a namespace, reconnects for ever, and keeps everything that was told."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        self._server = urllib.parse.urlsplit(config["clusters"][0]["cluster"]["server"])
        self._authority = config["clusters"][0]["cluster"]["certificate-authority"]
        self._token = config["users"][0]["user"]["token"]
        self._namespace = namespace
        self.told: list[Told] = []
        self._objects: dict[tuple[str, str], dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._ended = False
        self._threads = [threading.Thread(target=self._watch, args=(kind,), daemon=True) for kind in KINDS]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads."""
        self._ended = True
        for thread in self._threads:
            thread.join(_SILENT_SECONDS + 5)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """The object as it was seen last, None where it is not there."""
        with self._changed:
            return self._objects.get((kind, name))

    def wait(self, wanted: Callable[[], bool], seconds: float) -> bool:
        """Wait until something holds that what is told may change."""
        with self._changed:
            return self._changed.wait_for(wanted, seconds)

    def since(self, moment: float, kind: str | None = None) -> list[Told]:
        """What was told from a moment on."""
        with self._changed:
            return [told for told in self.told if told.at >= moment and kind in {None, told.kind}]

    def _watch(self, kind: str) -> None:
        while not self._ended:
            try:
                self._stream(kind)
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(_AGAIN_SECONDS)

    def _stream(self, kind: str) -> None:
        context = ssl.create_default_context(cafile=self._authority)
        connection = http.client.HTTPSConnection(
            str(self._server.hostname), self._server.port, context=context, timeout=_SILENT_SECONDS
        )
        try:
            group, plural = KINDS[kind]
            path = f"{group}/namespaces/{self._namespace}/{plural}?watch=1&timeoutSeconds=20"
            connection.request("GET", path, headers={"Authorization": f"Bearer {self._token}"})
            answer = connection.getresponse()
            if answer.status != HTTPStatus.OK:
                raise OSError(f"{path}: {answer.status}")
            while line := answer.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                self._take(kind, event["type"], event["object"])
                if self._ended:
                    return
        finally:
            connection.close()

    def _take(self, kind: str, change: str, body: dict[str, Any]) -> None:
        name = body["metadata"]["name"]
        with self._changed:
            if change == "DELETED":
                self._objects.pop((kind, name), None)
            elif kind == "event":
                # Each new connection begins with all that there are.
                if (kind, name) not in self._objects:
                    self._objects[kind, name] = body
                    about, reason = body["involvedObject"]["name"], body.get("reason", "")
                    self.told.append(Told(time.monotonic(), kind, about, "", "", reason, body.get("message", ""), {}))
            else:
                self._objects[kind, name] = body
                told = _told(kind, body)
                last = next((each for each in reversed(self.told) if (each.kind, each.name) == (kind, name)), None)
                if told is not None and (last is None or _said(last) != _said(told)):
                    self.told.append(told)
            self._changed.notify_all()


def _told(kind: str, body: Mapping[str, Any]) -> Told | None:
    status = body.get("status") or {}
    conditions = {c["type"]: (c["status"], c["reason"], c["message"]) for c in status.get("conditions", ())}
    if "Ready" not in conditions:
        return None
    ready, reason, message = conditions["Ready"]
    name = body["metadata"]["name"]
    return Told(time.monotonic(), kind, name, status.get("phase", ""), ready, reason, message, conditions)


def _said(told: Told) -> tuple[object, ...]:
    return told.phase, told.ready, told.reason, told.message, tuple(sorted(told.conditions.items()))
