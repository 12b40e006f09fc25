"""The objects as last seen: what belongs to what, what is news, and what cannot be read."""

from typing import Any

import pytest

from lifeboat.api.drill import Drill
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair
from lifeboat.world import ANSWER_SECONDS, ECHO_SECONDS, Key, World

Body = dict[str, Any]


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def body(kind: str, name: str, spec: Body, *, namespace: str = "ns", version: int = 1, **metadata: object) -> Body:
    return {
        "apiVersion": "lifeboat.dev/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"{kind}-{namespace}-{name}",
            "generation": 1,
            "resourceVersion": str(version),
            **metadata,
        },
        "spec": spec,
    }


def pair(name: str = "pair", recovery: str = "b", **more: Any) -> Body:
    return body("SitePair", name, {"primary": {"zone": "a"}, "recovery": {"zone": recovery}}, **more)


def server(name: str, server_id: str = "web", pair_name: str = "pair", **more: Any) -> Body:
    return body("ProtectedServer", name, {"sitePairRef": {"name": pair_name}, "serverId": server_id}, **more)


def drill(name: str, of: str, **more: Any) -> Body:
    return body("Drill", name, {"serverRef": {"name": of}}, **more)


def found(world: World, name: str = "web", namespace: str = "ns") -> ProtectedServer:
    got = world.get(ProtectedServer, namespace, name)
    assert got is not None
    return got


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def world(clock: Clock) -> World:
    return World(elapsed=clock)


def test_what_belongs_to_what(world: World) -> None:
    for each in (drill("d", "web"), pair(), server("web"), server("db", "db")):
        world.put(each)
    its = world.get(SitePair, "ns", "pair")
    assert its is not None
    assert [each.metadata.name for each in world.servers(its)] == ["db", "web"]
    assert [each.metadata.name for each in world.drills(found(world))] == ["d"]
    world.remove(Key("ProtectedServer", "ns", "web"), "ProtectedServer-ns-web")
    assert world.children(Key("ProtectedServer", "ns", "web")) == (Key("Drill", "ns", "d"),)


def test_the_servers_of_a_pair_are_the_same_tuple_until_one_of_them_changes(world: World) -> None:
    for each in (pair(), server("web"), server("db", "db")):
        world.put(each)
    here = world.get(SitePair, "ns", "pair")
    assert here is not None
    before, changes = world.servers(here), world.changes
    world.put(drill("d", "web"))
    assert world.servers(here) is before
    assert world.changes > changes
    changes = world.changes
    world.put(server("db", "db", version=2))
    assert world.servers(here) is not before
    assert world.changes > changes
    changes = world.changes
    world.remove(Key("ProtectedServer", "ns", "db"), "ProtectedServer-ns-db")
    assert [each.metadata.name for each in world.servers(here)] == ["web"]
    assert world.changes > changes


def test_what_is_kept_of_an_object_has_no_managers_and_is_else_what_was_seen(world: World) -> None:
    seen = server("web")
    seen["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    seen["status"] = {"phase": "Replicating", "conditions": [{"type": "Ready", "status": "True"}]}
    world.put(seen)
    kept = world.body(Key("ProtectedServer", "ns", "web"))
    assert kept is not None
    assert {**kept, "metadata": {**kept["metadata"], "managedFields": [{"manager": "kubectl"}]}} == seen


def test_the_servers_of_a_pair_are_in_order_whatever_comes_and_goes(world: World) -> None:
    world.put(pair())
    here = world.get(SitePair, "ns", "pair")
    assert here is not None

    def names() -> list[str]:
        return [each.metadata.name for each in world.servers(here)]

    for name in ("b", "c", "a"):
        world.put(server(name, server_id=name))
        assert names() == sorted(names())
    world.remove(Key("ProtectedServer", "ns", "b"), "ProtectedServer-ns-b")
    assert names() == ["a", "c"]
    world.put(server("c", server_id="c", pair_name="other", version=2))
    assert names() == ["a"]
    world.put(server("b", server_id="b", version=3))
    assert names() == ["a", "b"]


def test_rivals_name_the_same_server_of_the_same_primary_zone(world: World) -> None:
    world.put(pair())
    world.put(pair(namespace="other"))
    world.put(pair("elsewhere", recovery="c", namespace="other"))
    world.put(server("web"))
    world.put(server("mine", namespace="other"))
    world.put(server("third", pair_name="elsewhere", namespace="other"))
    world.put(server("lost", pair_name="nothing"))
    its = world.get(SitePair, "ns", "pair")
    assert its is not None
    assert [each.metadata.name for each in world.rivals(found(world), its)] == ["mine", "third"]


def test_an_unreadable_object_is_kept_out_and_mended(world: World) -> None:
    world.put(pair())
    world.put(server("web"))
    broken = server("web", version=2, generation=2)
    del broken["spec"]["serverId"]
    world.put(broken)
    key = Key("ProtectedServer", "ns", "web")
    assert world.find(key) is None
    assert "serverId" in world.unreadable()[key].problem
    its = world.get(SitePair, "ns", "pair")
    assert its is not None
    assert world.has_servers(its), "an unreadable server holds its pair all the same"
    world.put(server("web", version=3, generation=3))
    assert not world.unreadable()
    assert found(world).spec.server_id == "web"


def test_only_what_people_change_is_news(world: World) -> None:
    told: list[tuple[str, bool]] = []
    world.listen(lambda key, written: told.append((key.name, written)))
    world.put(server("web"))
    world.put(server("web"))
    world.put(server("web", version=2) | {"status": {"phase": "Initialized"}})
    world.put(server("web", version=3, generation=2))
    world.put(server("web", version=4, generation=2, annotations={"a": "b"}))
    world.put(server("web", version=5, generation=2, annotations={"a": "b"}), written=True)
    assert told == [("web", False), ("web", True), ("web", False), ("web", False), ("web", True)]


def test_an_edit_that_is_first_heard_of_in_the_answer_to_our_own_write_is_news(world: World) -> None:
    told: list[bool] = []
    world.put(server("web"))
    world.listen(lambda _, written: told.append(written))
    world.put(server("web", version=3, generation=2), written=True)
    world.put(server("web", version=2, generation=2))  # the edit, by the watch
    assert told == [False]
    assert found(world).metadata.resource_version == "3"


def test_a_late_echo_does_not_undo_our_own_write(world: World, clock: Clock) -> None:
    world.put(server("web", version=5), written=True)
    world.put(server("web", version=4, annotations={"late": "yes"}))
    assert found(world).metadata.resource_version == "5"
    clock.seconds += ECHO_SECONDS
    world.put(server("web", version=3, annotations={"restored": "yes"}))
    assert found(world).metadata.resource_version == "3", "an etcd that was restored counts from before"


def test_a_late_answer_to_our_own_write_does_not_undo_an_edit_after_it(world: World, clock: Clock) -> None:
    world.put(server("web", version=4))
    world.put(server("web", version=6, generation=2))  # the edit, by the watch
    world.put(server("web", version=5), written=True)
    assert found(world).metadata.generation == 2
    clock.seconds += ANSWER_SECONDS
    world.put(server("web", version=3), written=True)
    assert found(world).metadata.resource_version == "3", "an etcd that was restored counts from before"


def test_a_deleted_object_leaves_its_successor_alone(world: World) -> None:
    world.put(drill("d", "web", uid="new"))
    world.remove(Key("Drill", "ns", "d"), "old")
    assert world.get(Drill, "ns", "d") is not None
    told: list[bool] = []
    world.listen(lambda key, _: told.append(world.find(key) is not None))
    world.remove(Key("Drill", "ns", "d"), "new")
    assert told == [True, False], "once while it can be found, once when it cannot"


def test_what_a_list_does_not_have_is_forgotten(world: World, clock: Clock) -> None:
    world.put(drill("gone", "web"))
    world.put(drill("there", "web"))
    world.put(drill("other", "web", namespace="other"))
    clock.seconds = 10
    world.put(drill("newer", "web"))
    world.keep_only("Drill", [("ns", "there", "Drill-ns-there")], 5, "ns")
    assert sorted(each.metadata.name for each in world.all(Drill)) == ["newer", "other", "there"]


def test_who_wrote_which_field_is_not_kept(world: World) -> None:
    world.put(server("web", managedFields=[{"manager": "kubectl"}], labels={"a": "b"}))
    kept = world.body(Key("ProtectedServer", "ns", "web"))
    assert kept is not None
    assert kept["metadata"]["labels"] == {"a": "b"}
    assert "managedFields" not in kept["metadata"]
