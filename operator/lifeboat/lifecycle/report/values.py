"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lifeboat.lifecycle.view import Subject


@dataclass(frozen=True, slots=True)
class Event:
    """One Kubernetes Event, told on a transition and not again: `warning` is what a person should look at."""

    subject: Subject
    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """Statuses as JSON objects ready for server-side apply, by subject, and the events that go with them."""

    statuses: Mapping[Subject, dict[str, Any]] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
