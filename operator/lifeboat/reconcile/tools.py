"""What every part of the road shares: made once, passed around, closed at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from lifeboat import clock
from lifeboat.engines.contract import Engine
from lifeboat.kube import Kube
from lifeboat.leader import Leadership
from lifeboat.metrics import Metrics
from lifeboat.reconcile.writer import Writer
from lifeboat.settings import Settings
from lifeboat.verification.scripts import Readability
from lifeboat.verification.verifier import Verifier
from lifeboat.world import World

ENGINE_CALLS: Final = 16
"""How many calls to engines are under way at once."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The operator's parts. `engine` gives the engine of a name, the same one each time."""

    settings: Settings
    kube: Kube
    world: World
    leader: Leadership
    writer: Writer
    verifier: Verifier
    readability: Readability
    metrics: Metrics
    engine: Callable[[str], Engine]
    now: Callable[[], datetime] = clock.now
    elapsed: Callable[[], float] = clock.elapsed
    calls: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(ENGINE_CALLS))
