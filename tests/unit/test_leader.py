"""The lease: who may act, until when, and in which term; against an API server of a few lines and a clock in hand."""

import copy
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import pytest

from lifeboat import kube, leader
from lifeboat.leader import Leadership, NotLeader

Body = dict[str, Any]


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Api:
    """One Lease with resource versions."""

    def __init__(self) -> None:
        self.lease: Body | None = None
        self.down = False
        self.version = 0

    async def read_lease(self, namespace: str, name: str) -> Body:
        self._answer()
        if self.lease is None:
            raise kube.NotFound(f"{namespace}/{name}")
        return copy.deepcopy(self.lease)

    async def create_lease(self, namespace: str, body: Body) -> Body:
        self._answer()
        if self.lease is not None:
            raise kube.Conflict(namespace)
        return self._store(body)

    async def replace_lease(self, namespace: str, body: Body) -> Body:
        self._answer()
        if self.lease is None:
            raise kube.NotFound(namespace)
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise kube.Conflict(namespace)
        return self._store(body)

    def _answer(self) -> None:
        if self.down:
            raise kube.Unavailable("down")

    def _store(self, body: Body) -> Body:
        self.version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def api() -> Api:
    return Api()


def candidate(api: Api, clock: Clock, name: str, *, gone: Collection[str] = ()) -> Leadership:
    # Each write has another time, as in life; no decision reads it.
    stamps = iter(range(1, 1000))
    return Leadership(
        api,
        "ns",
        "lifeboat",
        name,
        elapsed=clock,
        now=lambda: datetime.fromtimestamp(next(stamps), UTC),
        gone=lambda holder: holder in gone,
    )


async def test_the_first_one_leads_and_the_second_waits(api: Api, clock: Clock) -> None:
    first, second = candidate(api, clock, "first"), candidate(api, clock, "second")
    await first.step()
    await second.step()
    assert first.term() == 1
    assert not second.leading
    with pytest.raises(NotLeader):
        second.term()


async def test_a_silent_holder_is_followed_once_its_lease_has_run_out(api: Api, clock: Clock) -> None:
    first, second = candidate(api, clock, "first"), candidate(api, clock, "second")
    await first.step()
    await second.step()
    for _ in range(leader.LEASE_SECONDS - 1):
        clock.seconds += 1
        await second.step()
        assert not second.leading
    clock.seconds += 1
    await second.step()
    assert second.term() == 2
    assert not first.leading, "it let go by its own clock, long before"


async def test_a_renewed_lease_is_never_taken(api: Api, clock: Clock) -> None:
    first, second = candidate(api, clock, "first"), candidate(api, clock, "second")
    for _ in range(20):
        await first.step()
        await second.step()
        assert not second.leading
        clock.seconds += leader.RENEW_SECONDS
    await first.step()
    assert first.term() == 1


async def test_one_that_was_stopped_may_not_act_when_it_continues(api: Api, clock: Clock) -> None:
    first = candidate(api, clock, "first")
    await first.step()
    clock.seconds += leader.ACT_SECONDS
    with pytest.raises(NotLeader):
        first.term()


async def test_while_the_api_server_answers_nobody_the_leader_goes_on(api: Api, clock: Clock) -> None:
    first = candidate(api, clock, "first")
    await first.step()
    api.down = True
    for _ in range(60):
        clock.seconds += leader.AGAIN_SECONDS
        with pytest.raises(kube.Unavailable):
            await first.step()
        assert first.term() == 1
        with pytest.raises(kube.Unavailable):
            first.may_write()
    api.down = False
    await first.step()
    first.may_write()
    assert first.term() == 1


async def test_one_that_was_stopped_does_not_go_on_because_the_api_server_is_down(api: Api, clock: Clock) -> None:
    first = candidate(api, clock, "first")
    await first.step()
    api.down = True
    clock.seconds += leader.ACT_SECONDS
    for _ in range(3):
        with pytest.raises(kube.Unavailable):
            await first.step()
        with pytest.raises(NotLeader):
            first.term()


async def test_one_that_is_cut_off_hears_of_its_follower_from_a_ledger(api: Api, clock: Clock) -> None:
    first = candidate(api, clock, "first")
    await first.step()
    api.down = True
    clock.seconds += leader.RENEW_SECONDS
    with pytest.raises(kube.Unavailable):
        await first.step()
    first.told(2)
    with pytest.raises(kube.Unavailable):
        await first.step()
    with pytest.raises(NotLeader):
        first.term()


async def test_a_refusal_is_no_silence_and_ends_the_lease_in_time(
    api: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = candidate(api, clock, "first")
    await first.step()

    async def refuse(*_: object) -> Body:
        raise kube.Rejected("not any more")

    monkeypatch.setattr(api, "read_lease", refuse)
    for _ in range(2):
        clock.seconds += leader.RENEW_SECONDS
        with pytest.raises(kube.Rejected):
            await first.step()
    with pytest.raises(NotLeader):
        first.term()


async def test_the_lease_of_a_process_that_is_gone_is_taken_at_once(api: Api, clock: Clock) -> None:
    first, second = candidate(api, clock, "first"), candidate(api, clock, "second", gone=("first",))
    await first.step()
    await second.step()
    assert second.term() == 2


async def test_a_lease_that_went_back_in_time_gives_no_term_twice(api: Api, clock: Clock) -> None:
    first, second = candidate(api, clock, "first"), candidate(api, clock, "second")
    await first.step()
    backup = copy.deepcopy(api.lease)
    await first.release()
    await second.step()
    await second.release()
    await first.step()
    assert first.term() == 3
    api.lease = backup
    assert api.lease is not None
    api.lease["spec"]["holderIdentity"] = "third"
    await first.step()
    assert not first.leading
    clock.seconds += leader.LEASE_SECONDS
    await first.step()
    assert first.term() == 4


async def test_a_released_lease_is_taken_at_once(api: Api, clock: Clock) -> None:
    first, second = candidate(api, clock, "first"), candidate(api, clock, "second")
    await first.step()
    await first.release()
    assert not first.leading
    await second.step()
    assert second.term() == 2


async def test_a_term_that_a_ledger_knows_is_passed(api: Api, clock: Clock) -> None:
    first = candidate(api, clock, "first")
    await first.step()
    first.told(41)
    await first.step()
    assert first.term() == 42
    await first.step()
    assert first.term() == 42, "it is passed once"


async def test_a_term_from_another_leader_ends_ours(api: Api, clock: Clock) -> None:
    first, second = candidate(api, clock, "first"), candidate(api, clock, "second")
    await first.step()
    await second.step()
    clock.seconds += leader.LEASE_SECONDS
    await second.step()
    first.told(second.term())
    await first.step()
    assert not first.leading
    assert second.term() == 2


async def test_two_that_reach_for_it_at_once_do_not_both_get_it(api: Api, clock: Clock) -> None:
    first, second = candidate(api, clock, "first"), candidate(api, clock, "second")
    await first.step()
    await first.release()
    stale = await api.read_lease("ns", "lifeboat")
    await second.step()
    with pytest.raises(kube.Conflict):
        await api.replace_lease("ns", stale)
    assert second.leading
