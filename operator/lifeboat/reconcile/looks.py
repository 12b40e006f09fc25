"""Looking at a site pair through its engine: one call for many servers, with a deadline, and never an exception.

An engine that fails to look says as little as a site that is silent, so it is told as one: everything is unknown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from lifeboat.api.sitepair import SitePair
from lifeboat.engines import facts
from lifeboat.engines.contract import Engine, EngineError, Pair
from lifeboat.engines.facts import PairFacts, Unknown
from lifeboat.reconcile.rest import Sites
from lifeboat.reconcile.tools import Tools

OBSERVE_SECONDS: Final = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen, and when it was asked for: what was done since then is not in it.

    `sites` is what of it concerns servers at rest.
    """

    facts: PairFacts
    asked: float
    sites: Sites

    @classmethod
    def of(cls, facts: PairFacts, asked: float) -> Look:
        """A look at these facts."""
        return cls(facts, asked, Sites.of(facts))


def pair_of(pair: SitePair) -> Pair:
    """The pair as engines know it."""
    options = pair.spec.engine.as_dict().get(pair.spec.engine_name, {}) if pair.spec.engine is not None else {}
    return Pair(pair.spec.primary.zone, pair.spec.recovery.zone, options, pair.metadata.namespace)


async def look(tools: Tools, engine: Engine, pair: SitePair, server_ids: Collection[str]) -> Look:
    """See the pair and these servers now."""
    asked = tools.elapsed()
    try:
        async with tools.calls, asyncio.timeout(OBSERVE_SECONDS):
            return Look.of(await engine.observe(pair_of(pair), server_ids), asked)
    except TimeoutError:
        reason = f"the engine did not answer within {OBSERVE_SECONDS:g} s"
    except EngineError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - an engine's fault must not end the loop; the contract says that it never raises
        _log.exception("engine %s broke while looking at %s", engine.name, pair.metadata.name)
        reason = f"the engine broke ({type(error).__name__}), see the log"
    tools.metrics.engine_errors.labels(engine.name, "Observe", "Failed").inc()
    return Look.of(nothing_known(server_ids, reason), asked)


def nothing_known(server_ids: Collection[str], reason: str) -> PairFacts:
    """Facts of which none is known, for that reason."""
    unknown = Unknown(reason)
    return PairFacts(unknown, unknown, {each: facts.nothing_known(each, reason) for each in server_ids})
