"""What is done again and again costs no more than its share."""

from collections.abc import Callable

import pytest

from lifeboat.reconcile.thrift import Thrift


@pytest.fixture
def spent() -> list[float]:
    return [7.0]


@pytest.fixture
def thrift(spent: list[float]) -> Thrift:
    now: Callable[[], float] = lambda: spent[0]  # noqa: E731 - a clock
    return Thrift(0.02, 1.0, 5.0, spent=now)


@pytest.mark.parametrize(("cost", "pause"), [(0.0, 1.0), (0.019, 1.0), (0.04, 2.0), (0.08, 4.0), (3.0, 5.0)])
def test_what_costs_more_is_done_less_often_within_bounds(
    cost: float, pause: float, spent: list[float], thrift: Thrift
) -> None:
    thrift.begin()
    spent[0] += cost
    assert thrift.pause() == pytest.approx(pause)


def test_each_time_counts_by_itself(spent: list[float], thrift: Thrift) -> None:
    thrift.begin()
    spent[0] += 0.08
    thrift.begin()
    assert thrift.pause() == 1.0


def test_who_asks_for_less_than_the_longest_is_heard() -> None:
    assert Thrift(0.02, 60.0, 5.0).pause() == 60.0
