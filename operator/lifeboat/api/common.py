"""What the four kinds share: the base of every model, conditions, metadata, and the parts of a Drill and a Failover.

Every model is frozen, and forgiving when it reads: an object stored by another version must never stop a loop, so
unknown fields are ignored and a status field that cannot be read counts as lost, which the operator can live with.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic.alias_generators import to_camel

from lifeboat.api import cel, names
from lifeboat.api.values import (
    DataKey,
    ElasticIP,
    Id,
    IPv4,
    Label,
    MicroTime,
    ObjectName,
    Quantity,
    Time,
)

GROUP: Final = names.GROUP
VERSION: Final = names.VERSION

CHECK_TIMEOUT_SECONDS: Final = 300
"""How long a check may go on failing where it does not say."""


def of_map(*keys: str) -> dict[str, Any]:
    """Return the schema extra of a list that is a map by these keys, for server-side apply."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


_GIVEN: Final[dict[frozenset[str], set[str]]] = {}


class Model(BaseModel):
    """The base of every part of the API."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    def model_post_init(self, _context: object, /) -> None:
        """Share the note of which fields were given with all that were given the same.

        Pydantic keeps a set in every part of every object. With thousands of servers these are the larger half of the
        objects' memory, and there are some dozens of different ones. Nothing changes them: the parts are frozen, and a
        copy gets a set of its own.
        """
        given = self.__pydantic_fields_set__
        object.__setattr__(self, "__pydantic_fields_set__", _GIVEN.setdefault(frozenset(given), given))

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object that Kubernetes stores, without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Result(StrEnum):
    """What checks found."""

    PASSED = "Passed"
    FAILED = "Failed"


class ActiveSite(StrEnum):
    """Where a workload is served from."""

    PRIMARY = "Primary"
    RECOVERY = "Recovery"
    NONE = "None"
    UNKNOWN = "Unknown"


class ObjectMeta(Model):
    """The part of an object's metadata that the operator reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()


_CONDITION_TYPE: Final = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
)


class Condition(Model):
    """One aspect of an object's state, as `metav1.Condition`."""

    type: Annotated[str, WithJsonSchema({"type": "string", "maxLength": 316, "pattern": _CONDITION_TYPE})] = Field(
        description="The aspect, such as Ready."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    observed_generation: int | None = Field(
        None, ge=0, description="The generation of the object that the condition is about."
    )
    last_transition_time: Time = Field(description="When the status last changed.")
    reason: Annotated[
        str,
        WithJsonSchema(
            {
                "type": "string",
                "minLength": 1,
                "maxLength": 1024,
                "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
            }
        ),
    ] = Field(description="Why, as one word of a documented list.")
    message: str = Field(max_length=32768, description="Why, for people, and what to do about it.")


class ObjectRef(Model):
    """The name of an object in the same namespace."""

    name: ObjectName = Field(description="The name of the object, in the same namespace.")


class KeyRef(Model):
    """One key of a ConfigMap or a Secret in the same namespace."""

    name: ObjectName = Field(description="The name of the ConfigMap or Secret.")
    key: DataKey = Field(description="The key whose value is the script.")


class PostScript(Model):
    """A script that runs inside the recovered server, from exactly one source."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            cel.rule(
                cel.exactly_one("inline", "configMapKeyRef", "secretKeyRef"),
                "write exactly one of inline, configMapKeyRef and secretKeyRef",
            )
        )
    )

    inline: str | None = Field(None, min_length=1, max_length=65536, description="The script itself.")
    config_map_key_ref: KeyRef | None = Field(None, description="The key of a ConfigMap that holds the script.")
    secret_key_ref: KeyRef | None = Field(
        None,
        description="The key of a Secret that holds the script. The Secret must carry the label "
        'lifeboat.dev/script: "true", and the output of the script is not recorded.',
    )


class Instance(Model):
    """What the recovered server is to be; what is absent is as the source has it."""

    name: Id | None = Field(
        None, description="The host name that its network gives the server. Absent: the id of the source."
    )
    cpu: int | None = Field(None, ge=1, description="The number of virtual CPUs. Absent: as the source has.")
    memory: Quantity | None = Field(None, description="Memory, such as 4Gi. Absent: as the source has.")
    network: Id | None = Field(
        None, description="The network that the server joins. Absent: the ProtectedServer's, then the site's."
    )
    ip_address: IPv4 | None = Field(
        None, description="The server's IPv4 address in that network. Absent: one given by DHCP."
    )
    use_ssd: bool | None = Field(
        None, alias="useSSD", description="Put the disks on the site's fast storage tier. Absent: as the replica."
    )
    elastic_ip: ElasticIP | None = Field(
        None, alias="elasticIP", description="auto, or an address of the site's pool. Absent: no elastic IP."
    )
    post_script: PostScript | None = Field(
        None, description="A script that runs inside the recovered server once. A failing script is a failed check."
    )


Port = Annotated[int, Field(ge=1, le=65535)]


class HTTPGet(Model):
    """A check that asks the application over HTTP."""

    port: Port = Field(description="The TCP port, 1 to 65535.")
    path: str = Field(
        "/",
        max_length=1024,
        description="The path, with its query. Absent: /.",
        json_schema_extra=cel.rules(cel.rule("self.startsWith('/')", "write a path that begins with /")),
    )
    status: int | None = Field(
        None, ge=100, le=599, description="The status code that passes. Absent: any from 200 to 399."
    )
    contains: str | None = Field(None, min_length=1, max_length=1024, description="Text that the answer must contain.")


class TCPSocket(Model):
    """A check that opens a TCP connection."""

    port: Port = Field(description="The TCP port, 1 to 65535.")


Argument = Annotated[str, Field(max_length=4096)]


class Exec(Model):
    """A check that runs a program inside the server, through its agent."""

    command: tuple[Argument, ...] = Field(
        min_length=1,
        max_length=32,
        description="The program and its arguments, without a shell. Exit code 0 passes.",
    )


class Check(Model):
    """A proof that the application works, of exactly one sort."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            cel.rule(
                cel.exactly_one("httpGet", "tcpSocket", "exec"),
                "write exactly one of httpGet, tcpSocket and exec",
            )
        )
    )

    name: Label = Field(description="The check's name, a DNS label, once in the list.")
    http_get: HTTPGet | None = Field(None, description="Ask over HTTP.")
    tcp_socket: TCPSocket | None = Field(None, description="Open a TCP connection.")
    exec: Exec | None = Field(None, description="Run a program inside the server.")
    timeout_seconds: int = Field(
        CHECK_TIMEOUT_SECONDS,
        ge=1,
        le=86400,
        description="Seconds from the server's start within which the check must pass; it is repeated until then. "
        f"Absent: {CHECK_TIMEOUT_SECONDS}.",
    )


CHECKS_LIST: Final = of_map("name")
MAX_CHECKS: Final = 16


class ResolvedPoint(Model):
    """What the recovery point's string was resolved to, once."""

    spec: str = Field(description="The string as it was asked for.")
    name: str | None = Field(None, description="The name of the point that it stands for.")
    time: MicroTime | None = Field(None, description="The moment whose data the point holds.")
    age_seconds: int | None = Field(
        None, ge=0, description="How old the point was when it was resolved: the data that is lost, in seconds."
    )


class RunningInstance(Model):
    """The recovered server as it is."""

    id: str | None = Field(None, description="The server's id at the site.")
    ip_address: str | None = Field(None, description="Its address in the network.")
    elastic_ip: str | None = Field(None, alias="elasticIP", description="Its elastic IP, where it has one.")
    url: str | None = Field(None, description="Where the application answers.")


class CheckStatus(Model):
    """What one check found."""

    name: str = Field(description="The check's name.")
    result: Result | None = Field(None, description="Passed or Failed. Absent: not known yet.")
    message: str | None = Field(None, max_length=1024, description="What was seen last.")


class PostScriptStatus(Model):
    """What the script did."""

    exit_code: int | None = Field(None, description="The script's exit code. Absent: it has not ended.")
    output: str | None = Field(
        None, max_length=1024, description="The last 1 KiB of its output. Absent where the script is a Secret's."
    )


class Timings(Model):
    """When what happened, and the recovery time that follows from it."""

    accepted_at: Time | None = Field(None, description="When the request was accepted.")
    launched_at: Time | None = Field(None, description="When the server was started.")
    ready_at: Time | None = Field(None, description="When the last check passed.")
    rto_seconds: float | None = Field(None, ge=0, description="Seconds from acceptance until ready.")


class RecoveryStatus(Model):
    """The status that a Drill and a Failover have in common."""

    observed_generation: int | None = Field(None, description="The generation that this status is about.")
    result: Result | None = Field(None, description="Passed or Failed. Absent without checks, and before they end.")
    recovery_point: ResolvedPoint | None = Field(None, description="The recovery point in use.")
    instance: RunningInstance | None = Field(None, description="The recovered server.")
    checks: tuple[CheckStatus, ...] = Field((), json_schema_extra=of_map("name"), description="What each check found.")
    post_script: PostScriptStatus | None = Field(None, description="What the script did.")
    timings: Timings | None = Field(None, description="When what happened.")
    conditions: tuple[Condition, ...] = Field(
        (), json_schema_extra=of_map("type"), description="The conditions of the object."
    )


@dataclass(frozen=True)
class Column:
    """One column of `kubectl get`."""

    name: str
    type: Literal["string", "integer", "number", "boolean", "date"]
    path: str


READY_COLUMN: Final = Column("Ready", "string", '.status.conditions[?(@.type=="Ready")].status')
AGE_COLUMN: Final = Column("Age", "date", ".metadata.creationTimestamp")


def _readable(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:  # noqa: ANN401 - a wrap validator
    try:
        return handler(value)
    except ValidationError as error:
        if not isinstance(value, Mapping):
            return handler({})
        unreadable = {problem["loc"][0] for problem in error.errors() if problem["loc"]}
        return handler({key: part for key, part in value.items() if key not in unreadable})


LENIENT: Final = WrapValidator(_readable)
"""Marks a kind's status: what cannot be read in it counts as lost, and is found anew."""


class Resource(Model):
    """An object of one of the four kinds."""

    PLURAL: ClassVar[str]
    SHORT_NAME: ClassVar[str]
    COLUMNS: ClassVar[tuple[Column, ...]]

    api_version: str = names.API_VERSION
    kind: str
    metadata: ObjectMeta

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Return the object from what the API server gave.

        Raises:
            pydantic.ValidationError: metadata or spec cannot be read.
        """
        return cls.model_validate(body)
