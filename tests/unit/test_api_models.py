from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lifeboat.api import values
from lifeboat.api.common import Condition, Resource, Result
from lifeboat.api.crd import KINDS
from lifeboat.api.drill import IMMUTABLE, Drill, DrillPhase, DrillSpec
from lifeboat.api.failover import FROZEN_BY_COMMIT, Failover, FailoverSpec, FailoverType
from lifeboat.api.protectedserver import Direction, ProtectedServer, Tier
from lifeboat.api.sitepair import ENGINES, Engine, SitePair

META = {"name": "web", "namespace": "shop", "uid": "u-1", "generation": 3, "resourceVersion": "17"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1h30m", 5400), ("24h", 86400), ("1.5h", 5400), ("250ms", 0.25), ("1m0.5s", 60.5), ("0s", 0)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert values.parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "90", "1d", "-5m", "1h 30m", "5M", "h", "1µs", "9999999h", "1s" * 11, "1h\n"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write one such as 90s, 1h30m or 24h"):
        values.parse_duration(text)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (600, "10m"), (5400, "1h30m"), (90.25, "1m30s250ms")])
def test_durations_are_written(seconds: float, text: str) -> None:
    assert values.format_duration(timedelta(seconds=seconds)) == text


def test_a_negative_duration_is_not_written() -> None:
    with pytest.raises(ValueError, match="not negative"):
        values.format_duration(timedelta(seconds=-1))


@given(st.integers(0, 999_999 * 3_600_000))
def test_a_duration_is_read_as_written(milliseconds: int) -> None:
    length = timedelta(milliseconds=milliseconds)
    assert values.parse_duration(values.format_duration(length)) == length


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("4Gi", 4 * 2**30),
        ("2G", 2_000_000_000),
        ("1.5Ki", 1536),
        ("100m", 1),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("12k", 12_000),
        ("-1Ki", -1024),
        (512, 512),
        (".5Gi", 2**29),
        ("1n", 1),
        ("16Ei", 2**63 - 1),
        ("1e999999999", 2**63 - 1),
        ("1e-999999999", 1),
    ],
)
def test_quantities_are_read(text: str | int, number: int) -> None:
    assert values.parse_quantity(text) == number


@pytest.mark.parametrize("text", ["", "Gi", "4GB", "4 Gi", "1.2.3", "plenty", "1K", "1e", "٣"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write one such as 512Mi, 4Gi or 2G"):
        values.parse_quantity(text)


@given(st.integers(0, 2**63 - 1))
def test_a_quantity_is_read_as_written(number: int) -> None:
    assert values.parse_quantity(values.format_quantity(number)) == number


def test_quantities_are_written_for_people() -> None:
    assert [values.format_quantity(number) for number in (0, 1000, 2**20, 3 * 2**29)] == ["0", "1000", "1Mi", "1536Mi"]


def test_times_are_written_in_utc() -> None:
    time = datetime(2026, 1, 31, 13, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=1)))
    assert values.format_time(time) == "2026-01-31T12:00:00Z"
    assert values.format_micro_time(time) == "2026-01-31T12:00:00.25Z"
    assert values.format_micro_time(time.replace(microsecond=0)) == "2026-01-31T12:00:00Z"
    assert values.parse_time("2026-01-31T13:00:00.25+01:00") == time


@pytest.mark.parametrize("text", ["2026-01-31", "2026-01-31T12:00:00", "2026-02-30T00:00:00Z", "noon"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|day"):
        values.parse_time(text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_a_time_that_utc_does_not_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="outside the years"):
        values.parse_time(text)


def _failover(**spec: object) -> Failover:
    return Failover.parse({"metadata": META, "spec": {"serverRef": {"name": "web"}, **spec}})


def test_defaults_are_those_of_the_contract() -> None:
    spec = _failover().spec
    assert spec.type is FailoverType.FAILOVER
    assert spec.recovery_point == "current"
    assert spec.start_deadline == timedelta(minutes=10)
    assert (spec.planned, spec.commit, spec.rollback) == (False, False, False)
    drill = Drill.parse({"metadata": META, "spec": {"serverRef": {"name": "web"}}})
    assert (drill.spec.recovery_point, drill.spec.running, drill.spec.ttl) == ("latest", True, None)
    server = ProtectedServer.parse({"metadata": META, "spec": {"sitePairRef": {"name": "eu"}, "serverId": "vm-1"}})
    assert server.spec.replication.direction is Direction.FORWARD
    assert not server.spec.replication.enabled
    assert server.spec.replication.tiers == (Tier(every=timedelta(hours=1), keep_for=timedelta(hours=24)),)


def test_values_are_read_and_written_as_the_user_wrote_them() -> None:
    instance = {"memory": "4Gi", "cpu": 2, "useSSD": True, "elasticIP": "auto", "ipAddress": "10.0.0.9"}
    failover = _failover(startDeadline="1h30m", instance=instance)
    assert failover.spec.start_deadline == timedelta(minutes=90)
    assert failover.spec.instance.memory == 4 * 2**30
    written = failover.as_dict()
    assert written["spec"]["startDeadline"] == "1h30m"
    assert written["spec"]["instance"] == instance
    assert Failover.parse(written) == failover


def test_for_is_a_word_of_python() -> None:
    tier = Tier.model_validate({"every": "10s", "for": "1m"})
    assert tier.keep_for == timedelta(minutes=1)
    assert tier.as_dict() == {"every": "10s", "for": "1m", "applicationConsistent": False}


def test_metadata_is_read() -> None:
    meta = {
        **META,
        "creationTimestamp": "2026-01-31T12:00:00Z",
        "deletionTimestamp": "2026-01-31T13:00:00Z",
        "finalizers": ["lifeboat.dev/cleanup"],
        "annotations": {"lifeboat.dev/discard": "vm-1"},
        "managedFields": [{"manager": "kubectl"}],
    }
    read = Drill.parse({"metadata": meta, "spec": {"serverRef": {"name": "web"}}}).metadata
    assert (read.name, read.namespace, read.uid, read.generation, read.resource_version) == tuple(META.values())
    assert read.creation_timestamp == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert read.deletion_timestamp == datetime(2026, 1, 31, 13, tzinfo=UTC)
    assert read.finalizers == ("lifeboat.dev/cleanup",)
    assert read.annotations == {"lifeboat.dev/discard": "vm-1"}


def test_an_object_of_another_version_is_still_read() -> None:
    body = {
        "metadata": META,
        "spec": {"serverRef": {"name": "web", "namespace": "x"}, "gone": 1},
        "status": {
            "phase": "Dreaming",
            "result": "Passed",
            "gone": True,
            "timings": {"readyAt": "never"},
            "instance": {"id": "vm-2", "gone": 1},
        },
    }
    drill = Drill.parse(MappingProxyType(body))
    assert drill.status.phase is None
    assert drill.status.timings is None
    assert drill.status.result is Result.PASSED
    assert drill.status.instance is not None
    assert drill.status.instance.id == "vm-2"


@pytest.mark.parametrize("status", [None, "lost", {}])
def test_a_lost_status_is_an_empty_one(status: object) -> None:
    drill = Drill.parse({"metadata": META, "spec": {"serverRef": {"name": "web"}}, "status": status})
    assert drill.status == type(drill.status)()


def test_a_spec_that_cannot_be_read_says_so() -> None:
    with pytest.raises(ValidationError, match="serverRef"):
        Drill.parse({"metadata": META, "spec": {}})


def test_models_are_values() -> None:
    drill = Drill.parse({"metadata": META, "spec": {"serverRef": {"name": "web"}}, "status": {"phase": "Running"}})
    assert drill.status.phase is DrillPhase.RUNNING
    with pytest.raises(ValidationError, match="frozen"):
        drill.spec.running = False  # type: ignore[misc]


def test_conditions_are_those_of_kubernetes() -> None:
    condition = Condition(
        type="Ready",
        status="False",
        observed_generation=2,
        last_transition_time=datetime(2026, 1, 31, 12, 0, 0, 999_999, tzinfo=UTC),
        reason="Launching",
        message="The server boots.",
    )
    assert condition.as_dict() == {
        "type": "Ready",
        "status": "False",
        "observedGeneration": 2,
        "lastTransitionTime": "2026-01-31T12:00:00Z",
        "reason": "Launching",
        "message": "The server boots.",
    }


def test_the_engine_has_a_name() -> None:
    body: dict[str, Any] = {"metadata": META, "spec": {"primary": {"zone": "a"}, "recovery": {"zone": "b"}}}
    assert SitePair.parse(body).spec.engine_name == "qemu"
    body["spec"]["engine"] = {"qemu": {}}
    assert SitePair.parse(body).spec.engine_name == "qemu"


def test_lists_of_field_names_miss_no_field() -> None:
    """A new field must be added where the rules enumerate fields."""
    assert set(ENGINES) == set(Engine.model_fields)
    assert {field.alias for field in DrillSpec.model_fields.values()} == {*IMMUTABLE, "running"}
    never_change = {"serverRef", "type", "planned"}
    fields = {field.alias for field in FailoverSpec.model_fields.values()}
    assert fields == never_change | set(FROZEN_BY_COMMIT) | {"commit"}


@pytest.mark.parametrize("kind", KINDS)
def test_names_in_json_are_camel_case_with_known_abbreviations(kind: type[Resource]) -> None:
    names = str(kind.model_json_schema())
    assert "Ssd" not in names
    assert "elasticIp" not in names
