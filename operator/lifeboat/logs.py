"""Logs: one line for each event, with the object and the operation as fields, for people or for machines."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

FIELDS: Final = "lifeboat_fields"
ONCE_SECONDS: Final = 30.0


class Object(NamedTuple):
    """Which object a line is about."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


class ObjectLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that says with every line which object it is about."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:  # noqa: ANN401 - as inherited
        """Carry the object's fields, and those of the call, into the record."""
        given = kwargs.pop("fields", {})
        kwargs["extra"] = {FIELDS: {**(self.extra or {}), **given}}
        return msg, kwargs


def about(logger: logging.Logger, kind: str, namespace: str, name: str) -> ObjectLogger:
    """A logger for one object."""
    return ObjectLogger(logger, {"object": Object(kind, namespace, name)})


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={value}" for key, value in getattr(record, FIELDS, {}).items())
        line = f"{_time(record)} {record.levelname:<7} {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, FIELDS, {})
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{key: value._asdict() if isinstance(value, Object) else value for key, value in fields.items()},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _Once(logging.Filter):
    """Lets through what a library says over and over once in a while only, whatever the numbers in it."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line was not said within the last while; our own always are."""
        if record.name.startswith("lifeboat"):
            return True
        mark = re.sub(r"\d+", "#", f"{record.name} {record.getMessage()}")[:300]
        if record.created - self._said.get(mark, 0.0) < ONCE_SECONDS:
            return False
        self._said = {each: at for each, at in self._said.items() if record.created - at < ONCE_SECONDS}
        self._said[mark] = record.created
        return True


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def configure(form: Literal["text", "json"], level: str) -> None:
    """Send all logs to standard error in one form; what the libraries say only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    handler.addFilter(_Once())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    logging.getLogger("lifeboat").setLevel(level)
    # It warns at each start that signals are not its business; they are ours.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
