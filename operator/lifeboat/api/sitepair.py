"""SitePair: two sites of which one can take over from the other, and the engine that copies between them."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from lifeboat.api import cel
from lifeboat.api.common import AGE_COLUMN, LENIENT, READY_COLUMN, Column, Condition, Model, Resource, of_map
from lifeboat.api.values import Cidr, Id, Label, NetworkAttachment, ObjectName, Quantity

ENGINES = ("qemu", "ceph")
"""The members of `spec.engine`, the default first; another engine is added here and as a field of `Engine`."""


def _engine_given(of: str, engine: str) -> str:
    given = f"(has({of}.engine) && has({of}.engine.{engine}))"
    return f"(!has({of}.engine) || {given})" if engine == ENGINES[0] else given


class SitePairType(StrEnum):
    """How far the two sites are apart."""

    ZONE_TO_ZONE = "ZoneToZone"


class Site(Model):
    """One of the two sites."""

    zone: Id = Field(description="The availability zone. Immutable.")
    network: Id | None = Field(None, description="The network (VPC) of the site.")
    replication_network: Id | None = Field(None, description="The network that carries replication to this site.")
    recovery_network: Id | None = Field(None, description="The network that servers recovered at this site join.")


class Qemu(Model):
    """The engine that uses QEMU's own mirroring; it has no settings."""


class SecretRef(Model):
    """A Secret in the SitePair's namespace."""

    name: ObjectName = Field(description="The Secret's name.")


class CephHost(Model):
    """Servers run as QEMU machines on the operator's host; there is nothing to choose."""


class PodNetwork(Model):
    """The network that every pod has; there is nothing to choose."""


class KubeVirtNetwork(Model):
    """What a network of the site is in the Kubernetes cluster: exactly one of pod and multus."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            cel.rule(cel.exactly_one("pod", "multus"), "write exactly one of pod and multus; such as pod: {}"),
            cel.rule(
                "!has(self.isolated) || has(self.multus)",
                "write isolated beside multus only: on the network of pods a NetworkPolicy isolates",
                field=".isolated",
            ),
        )
    )

    name: Id = Field(description="The network's name, as this SitePair and its servers use it.")
    pod: PodNetwork | None = Field(None, description="The network of pods.")
    multus: NetworkAttachment | None = Field(
        None, description="A NetworkAttachmentDefinition, as [namespace/]name; the machine is bridged to it."
    )
    isolated: NetworkAttachment | None = Field(
        None, description="The NetworkAttachmentDefinition that a drill's server joins instead, which leads nowhere."
    )
    cidr: Cidr | None = Field(None, description="Its range of addresses, as the status tells it. Absent: 0.0.0.0/0.")


class CsiSecretRef(Model):
    """A Secret of the Kubernetes cluster where the servers run."""

    name: ObjectName = Field(description="The Secret's name.")
    namespace: Label = Field(description="Its namespace.")


class CephMounter(StrEnum):
    """How ceph-csi maps an image on a node."""

    RBD = "rbd"
    RBD_NBD = "rbd-nbd"


class KubeVirt(Model):
    """Servers run as KubeVirt's virtual machines, on images that ceph-csi maps."""

    kubeconfig_secret_ref: SecretRef | None = Field(
        None,
        description="The Secret with a key kubeconfig that reaches the Kubernetes cluster, labelled "
        'lifeboat.dev/engine: "true". Absent: the cluster and the account of the operator.',
    )
    namespace: Label | None = Field(
        None, description="Where the virtual machines are. Absent, or without kubeconfigSecretRef: as the SitePair."
    )
    cluster_id: Annotated[str, Field(min_length=1, max_length=36)] = Field(
        alias="clusterID", title="Cluster ID", description="The Ceph cluster, as ceph-csi's configuration calls it."
    )
    csi_secret_ref: CsiSecretRef = Field(description="The Secret with which ceph-csi maps an image on a node.")
    driver: ObjectName | None = Field(None, description="ceph-csi's name for itself. Absent: rbd.csi.ceph.com.")
    mounter: CephMounter | None = Field(
        None, description="How ceph-csi maps an image: rbd by the kernel, rbd-nbd by librbd. Absent: rbd."
    )
    networks: tuple[KubeVirtNetwork, ...] = Field(
        min_length=1,
        max_length=32,
        json_schema_extra=of_map("name"),
        description="What the site's networks are in the Kubernetes cluster.",
    )


class CephCompute(Model):
    """Where a site's servers run: exactly one member."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            cel.rule(cel.exactly_one("host", "kubevirt"), "write exactly one of host and kubevirt; such as host: {}")
        )
    )

    host: CephHost | None = Field(None, description="As QEMU machines on the operator's host.")
    kubevirt: KubeVirt | None = Field(None, description="As KubeVirt's virtual machines.")


class CephSite(Model):
    """How the Ceph cluster of a site is reached, and where its servers run."""

    secret_ref: SecretRef = Field(
        description='The Secret with keys ceph.conf and keyring, labelled lifeboat.dev/engine: "true".'
    )
    compute: CephCompute | None = Field(None, description="Where the site's servers run. Absent: host.")


class CephPools(Model):
    """The pools that hold disks, of the same names at both sites."""

    standard: Id | None = Field(None, description="The pool of the standard tier. Absent: rbd.")
    ssd: Id | None = Field(None, title="SSD", description="The pool of the fast tier, for useSSD.")


class CephMode(StrEnum):
    """How RBD mirrors an image."""

    JOURNAL = "journal"
    SNAPSHOT = "snapshot"


class Ceph(Model):
    """The engine that lets two Ceph clusters mirror RBD images to each other."""

    primary: CephSite = Field(description="The cluster of the primary site.")
    recovery: CephSite = Field(description="The cluster of the recovery site.")
    pools: CephPools | None = Field(None, description="The pools that hold disks. Absent: rbd alone.")
    mode: CephMode | None = Field(None, description="How images are mirrored. Absent: journal; snapshot is not built.")


class Engine(Model):
    """The engine that copies the disks: exactly one member."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            cel.rule(
                cel.exactly_one(*ENGINES), f"write exactly one engine, of: {', '.join(ENGINES)}; such as qemu: {{}}"
            )
        )
    )

    qemu: Qemu | None = Field(None, description="Copy with QEMU's own mirroring.")
    ceph: Ceph | None = Field(None, description="Let two Ceph clusters mirror RBD images.")


class SitePairSpec(Model):
    """What the user asks of a SitePair."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            cel.rule(
                "self.primary.zone != self.recovery.zone",
                "write two different zones in spec.primary.zone and spec.recovery.zone",
                field=".recovery.zone",
            ),
            cel.immutable("type", "spec.type is immutable: create another SitePair"),
            cel.rule(
                "self.primary.zone == oldSelf.primary.zone",
                "spec.primary.zone is immutable: create another SitePair",
                field=".primary.zone",
                reason="FieldValueForbidden",
            ),
            cel.rule(
                "self.recovery.zone == oldSelf.recovery.zone",
                "spec.recovery.zone is immutable: create another SitePair",
                field=".recovery.zone",
                reason="FieldValueForbidden",
            ),
            cel.rule(
                " && ".join(f"{_engine_given('self', each)} == {_engine_given('oldSelf', each)}" for each in ENGINES),
                "the engine is immutable: create another SitePair",
                field=".engine",
                reason="FieldValueForbidden",
            ),
        )
    )

    type: SitePairType = Field(
        SitePairType.ZONE_TO_ZONE, description="How far the sites are apart: ZoneToZone. Immutable."
    )
    primary: Site = Field(description="The site where the servers are.")
    recovery: Site = Field(description="The site that takes over.")
    engine: Engine | None = Field(
        None, description="The engine that copies the disks. Absent: qemu. Immutable in kind."
    )

    @property
    def engine_name(self) -> str:
        """The member of `engine` that is given, or the default."""
        given = self.engine or Engine()
        return next((name for name in ENGINES if getattr(given, name) is not None), ENGINES[0])


class SitePairServers(Model):
    """How many servers the pair has, by state."""

    total: int = Field(0, ge=0, description="All servers of the pair.")
    replicating: int = Field(0, ge=0, description="Servers whose replica follows.")
    failed_over: int = Field(0, ge=0, description="Servers that are served from the recovery site.")
    faulty: int = Field(0, ge=0, description="Servers that need a person.")


MAX_SERVERS: Final = 500
MAX_NETWORKS: Final = 32
MAX_TAKEN: Final = 256
MAX_ELASTIC_IPS: Final = 256
"""How much of a site's inventory is told: a status must stay small enough for the API server to keep."""

_ATOMIC: Final[dict[str, Any]] = {"x-kubernetes-list-type": "atomic"}
"""One hand writes these lists as a whole; owned item by item they would double the object."""


class TakenAddress(Model):
    """An address of a network that cannot be given to a recovered server."""

    address: str = Field(description="The address.")
    by: str = Field(description="Who has it: a server, a recovered server, or the network itself.")


class SiteNetwork(Model):
    """A network that the site has."""

    name: str = Field(description="The network's name, as spec takes it.")
    cidr: str = Field(description="Its range of addresses.")
    taken: tuple[TakenAddress, ...] = Field(
        (),
        max_length=MAX_TAKEN,
        json_schema_extra=_ATOMIC,
        description=f"The addresses that are in use, lowest first, {MAX_TAKEN} at most.",
    )


class SiteElasticIP(Model):
    """An address of the site's pool."""

    address: str = Field(description="The address, as spec takes it.")
    used_by: str | None = Field(None, description="Who has it. Absent: it is free.")


class SiteInventory(Model):
    """What a site has to choose from."""

    servers: tuple[str, ...] = Field(
        (),
        max_length=MAX_SERVERS,
        json_schema_extra=_ATOMIC,
        description=f"The ids of the site's servers, {MAX_SERVERS} at most.",
    )
    server_count: int | None = Field(None, ge=0, description="How many servers the site has.")
    networks: tuple[SiteNetwork, ...] = Field(
        (),
        max_length=MAX_NETWORKS,
        json_schema_extra=_ATOMIC,
        description=f"Its networks, {MAX_NETWORKS} at most, those that spec names among them.",
    )
    elastic_ips: tuple[SiteElasticIP, ...] = Field(
        (),
        alias="elasticIPs",
        max_length=MAX_ELASTIC_IPS,
        json_schema_extra=_ATOMIC,
        description=f"Its pool of elastic IPs, {MAX_ELASTIC_IPS} at most.",
    )
    cpu: int | None = Field(None, ge=0, description="The most virtual CPUs that a server may have.")
    memory: Quantity | None = Field(None, description="The most memory that a server may have.")
    ssd: bool | None = Field(None, title="SSD", description="Whether the site has a fast storage tier, for useSSD.")


class SitePairInventory(Model):
    """What the two sites have to choose from, as last seen; absent where the namespace may not use the zone."""

    primary: SiteInventory | None = Field(None, description="What the primary site has.")
    recovery: SiteInventory | None = Field(None, description="What the recovery site has.")


class SitePairStatus(Model):
    """What the operator found."""

    observed_generation: int | None = Field(None, description="The generation that this status is about.")
    engine: str | None = Field(None, description="The engine in use.")
    servers: SitePairServers | None = Field(None, description="How many servers the pair has.")
    worst_lag_seconds: int | None = Field(
        None, ge=0, description="How far the server that lags most is behind, in seconds."
    )
    inventory: SitePairInventory | None = Field(
        None, description="What the sites have to choose from: servers, networks, addresses and limits."
    )
    conditions: tuple[Condition, ...] = Field(
        (), json_schema_extra=of_map("type"), description="The conditions of the object."
    )


class SitePair(Resource):
    """Two sites of which one can take over from the other."""

    PLURAL: ClassVar[str] = "sitepairs"
    SHORT_NAME: ClassVar[str] = "sp"
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("Primary", "string", ".spec.primary.zone"),
        Column("Recovery", "string", ".spec.recovery.zone"),
        Column("Engine", "string", ".status.engine"),
        Column("Servers", "integer", ".status.servers.total"),
        Column("Replicating", "integer", ".status.servers.replicating"),
        READY_COLUMN,
        AGE_COLUMN,
    )

    kind: Literal["SitePair"] = "SitePair"
    spec: SitePairSpec = Field(description="What is asked; the operator never writes it.")
    status: Annotated[SitePairStatus, LENIENT] = Field(
        SitePairStatus(), description="What is; only the operator writes it."
    )
