"""When the operator says that a restart would help."""

from unittest.mock import Mock

from lifeboat.reconcile.reconciler import STUCK_SECONDS, Reconciler
from lifeboat.reconcile.tools import Tools


async def test_an_operator_that_waits_for_the_api_server_is_not_stuck() -> None:
    now = 0.0
    tools = Mock(spec=Tools, elapsed=lambda: now, world=Mock(), leader=Mock(), metrics=Mock())
    reconciler = Reconciler(tools)
    now += 100 * STUCK_SECONDS
    assert reconciler.alive


async def test_one_whose_loop_has_not_turned_for_long_is() -> None:
    now = 0.0
    tools = Mock(spec=Tools, elapsed=lambda: now, world=Mock(), leader=Mock(leading=False), metrics=Mock())
    reconciler = Reconciler(tools)
    turning = reconciler.run()
    turning.send(None)  # to its first wait, and no further
    seen = [reconciler.alive]
    now += STUCK_SECONDS
    seen.append(reconciler.alive)
    turning.close()
    assert seen == [True, False]
