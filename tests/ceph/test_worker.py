"""The program that talks to a cluster, against real ones: what it sees, what it refuses, and when it gives up."""

from __future__ import annotations

import asyncio
import errno
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from demo.ceph import Clusters
from demo.ceph.cluster import POOL
from lifeboat.engines.ceph import connection
from lifeboat.engines.ceph.ledgers import Ledgers, Records
from lifeboat.engines.ceph.workers import CephFailed, Worker
from lifeboat.engines.contract import LedgerConflict, Refused, StaleTerm, Unreachable
from lifeboat.engines.ledger import Ledger


@pytest.fixture
def image(clusters: Clusters) -> str:
    name = f"image-{uuid.uuid4().hex[:8]}"
    clusters.primary.run("rbd", "create", f"{POOL}/{name}", "--size", "64M")
    return name


async def test_it_tells_how_a_cluster_stands(clusters: Clusters, here: Worker) -> None:
    standing = await here.call("standing", pools=[POOL])
    assert standing["fsid"] in clusters.primary.conf.read_text()
    assert standing["full"] == []
    assert standing["free_bytes"][POOL] > 1 << 30


async def test_a_record_is_replaced_by_whoever_read_it_last(there: Worker) -> None:
    records = Records(there, POOL)
    name = f"note.{uuid.uuid4().hex}"
    before = await records.read(name)
    assert before.version == 0
    first = await records.swap(name, before, "one")
    with pytest.raises(LedgerConflict):
        await records.swap(name, before, "two")
    second = await records.swap(name, first, "two")
    with pytest.raises(LedgerConflict):
        await records.swap(name, first, "three")
    assert (await records.all())[name] == second
    assert await Records(there, POOL).read(name) == second
    await records.forget(name)
    await records.forget(name)
    assert name not in await records.all()


async def test_of_many_writers_at_one_moment_one_wins(there: Worker) -> None:
    ledgers = Ledgers(Records(there, POOL))
    server = f"server-{uuid.uuid4().hex[:8]}"
    for version in range(3):
        results = await asyncio.gather(
            *(ledgers.record(server, 1, Ledger(server, version=version, run=number)) for number in range(6)),
            return_exceptions=True,
        )
        assert sorted(type(each).__name__ for each in results) == ["Ledger", *["LedgerConflict"] * 5]
        assert (await ledgers.load(server)).version == version + 1
    with pytest.raises(StaleTerm):
        await ledgers.record(server, 0, replace(await ledgers.load(server)))


async def test_it_sees_an_image_its_snapshots_and_its_mirroring(
    clusters: Clusters, here: Worker, there: Worker, image: str
) -> None:
    clusters.primary.run("rbd", "mirror", "image", "enable", f"{POOL}/{image}", "journal")
    await _seen(there, image, lambda _: True)
    await here.call("snapshot", pool=POOL, images=[image], name="first")
    await here.call("note", pool=POOL, image=image, changes={"colour": "green"})
    seen = await _seen(there, image, lambda image: "colour" in image["metadata"])
    assert [each["name"] for each in seen["snapshots"]] == ["first"], "what was noted later arrives later"
    assert seen["size"] == 64 << 20
    uuid_there = (await there.call("look", pool=POOL))["mirror_uuid"]
    looked = await here.call("look", pool=POOL)
    (mine,) = (each for each in looked["images"] if each["name"] == image)
    assert looked["peers"] == [{"site": clusters.recovery.name}]
    own, peer = sorted(mine["journal"], key=lambda client: str(client["id"]))
    assert (own["id"], peer["id"], peer["state"]) == ("", uuid_there, "replaying")
    assert (await here.call("primary", pool=POOL, images=[image])) == {image: True}
    assert (await there.call("primary", pool=POOL, images=[image])) == {image: False}
    with pytest.raises(CephFailed) as caught:
        await there.call("snapshot", pool=POOL, images=[image], name="second")
    assert caught.value.errno == errno.EROFS


async def test_an_image_whose_journal_was_taken_by_what_was_cut_off_is_mirrored_all_the_same(
    clusters: Clusters, here: Worker, there: Worker, image: str
) -> None:
    (mine,) = (each for each in (await here.call("look", pool=POOL))["images"] if each["name"] == image)
    clusters.primary.run("rados", "-p", POOL, "rm", f"journal.{mine['id']}")
    await here.call("enable", pool=POOL, images=[image])
    await _seen(there, image, lambda _: True)


async def _seen(worker: Worker, image: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            for each in (await worker.call("look", pool=POOL))["images"]:
                if each["name"] == image and wanted(each):
                    return dict(each)
            await asyncio.sleep(0.2)


async def test_a_cluster_that_does_not_answer_is_told_in_seconds_and_found_again(
    clusters: Clusters, there: Worker
) -> None:
    await there.call("standing", pools=[POOL])
    loop = asyncio.get_running_loop()
    clusters.recovery.pause("mon", "osd")
    try:
        began = loop.time()
        with pytest.raises(Unreachable, match="zone-b"):
            await there.call("standing", pools=[POOL])
        assert loop.time() - began < 9
        fresh = Worker(there.site, there.connection)
        began = loop.time()
        for _ in range(3):
            with pytest.raises(Unreachable, match="zone-b"):
                await fresh.call("standing", pools=[POOL])
        assert loop.time() - began < 3.5, "who asks later does not wait again"
        await fresh.close()
    finally:
        clusters.recovery.go_on("mon", "osd")
    async with asyncio.timeout(60):
        while True:
            try:
                await there.call("standing", pools=[POOL])
            except Unreachable:
                await asyncio.sleep(0.5)
            else:
                return


async def test_a_wrong_key_is_refused_and_not_shown(clusters: Clusters) -> None:
    secret = clusters.primary.secret()
    other = clusters.recovery.key("lifeboat")
    secret["keyring"] = f"[client.lifeboat]\nkey = {other}\n"
    worker = Worker("zone-a", connection.read(secret, "connection"))
    with pytest.raises(Refused, match=r"client\.lifeboat") as caught:
        await worker.call("standing", pools=[POOL])
    assert other not in str(caught.value)
    assert other not in repr(worker.connection)
    await worker.close()
