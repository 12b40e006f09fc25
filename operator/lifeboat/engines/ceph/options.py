"""What a SitePair says about this engine, checked once more where it arrives."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from lifeboat.engines.contract import Pair, Refused

Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$")]


ObjectName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
Label: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Attachment: TypeAlias = Annotated[
    str, Field(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class SecretRef(_Part):
    """A Secret in the SitePair's namespace."""

    name: Name


class Host(_Part):
    """Servers run on the operator's host; there is nothing to choose."""


class PodNetwork(_Part):
    """The network that every pod has; there is nothing to choose."""


class KubeVirtNetwork(_Part):
    """A network as a SitePair names it, and what it is in the Kubernetes cluster.

    `pod` is the network of pods, `multus` a NetworkAttachmentDefinition as `[namespace/]name`, and `isolated` the one
    that an isolated machine joins instead of that. `cidr` is only told on.
    """

    name: Name
    pod: PodNetwork | None = None
    multus: Attachment | None = None
    isolated: Attachment | None = None
    cidr: IPv4Network = IPv4Network("0.0.0.0/0")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.pod is None) is (self.multus is None):
            raise ValueError("write exactly one of pod and multus")
        if self.isolated is not None and self.multus is None:
            raise ValueError("isolated stands beside multus; on the network of pods a NetworkPolicy isolates")
        return self


class CsiSecretRef(_Part):
    """The Secret with which ceph-csi maps an image on a node."""

    name: ObjectName
    namespace: Label


class KubeVirt(_Part):
    """Servers run as KubeVirt's virtual machines: in which cluster and namespace, on which networks, with which disks.

    Without `kubeconfig_secret_ref` the cluster is the operator's own, and without `namespace` it is the SitePair's.
    """

    cluster_id: Annotated[str, Field(alias="clusterID", min_length=1, max_length=36)]
    csi_secret_ref: CsiSecretRef
    networks: Annotated[tuple[KubeVirtNetwork, ...], Field(min_length=1, max_length=32)]
    kubeconfig_secret_ref: SecretRef | None = None
    namespace: Label | None = None
    driver: ObjectName = "rbd.csi.ceph.com"
    mounter: Literal["rbd", "rbd-nbd"] = "rbd"

    def network(self, name: str) -> KubeVirtNetwork | None:
        """The network that a SitePair calls so."""
        return next((network for network in self.networks if network.name == name), None)


class ComputeOptions(_Part):
    """Where a site's servers run: exactly one member, the operator's host where none is given."""

    host: Host | None = None
    kubevirt: KubeVirt | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.host is None) is (self.kubevirt is None):
            raise ValueError("write exactly one of host and kubevirt")
        return self


class SiteOptions(_Part):
    """How one site's cluster is reached, and where its servers run."""

    secret_ref: SecretRef
    compute: ComputeOptions = ComputeOptions(host=Host())


class Pools(_Part):
    """The pools that hold disks, by storage tier, of one name at both sites: RBD mirrors a pool to its namesake."""

    standard: Name = "rbd"
    ssd: Name | None = None

    def names(self) -> tuple[str, ...]:
        """Each pool once."""
        return tuple(dict.fromkeys(name for name in (self.standard, self.ssd) if name is not None))

    def tier(self, zone: str, *, use_ssd: bool) -> str:
        """The pool of a storage tier.

        Raises:
            Refused: there is no such tier.
        """
        if not use_ssd:
            return self.standard
        if self.ssd is None:
            raise Refused(f"zone {zone} has no SSD storage: name its pool in spec.engine.ceph.pools.ssd")
        return self.ssd


class Options(_Part):
    """The block `spec.engine.ceph`."""

    primary: SiteOptions
    recovery: SiteOptions
    mode: Literal["journal", "snapshot"] = "journal"
    pools: Pools = Pools()

    def site(self, pair: Pair, zone: str) -> SiteOptions:
        """The site of a zone."""
        return self.primary if zone == pair.primary_zone else self.recovery


def read(given: Mapping[str, object]) -> Options:
    """The options in a pair.

    Raises:
        Refused: they cannot be used.
    """
    try:
        options = Options.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(("spec.engine.ceph", *(str(part) for part in first["loc"])))
        raise Refused(f"{place}: {first['msg']}") from error
    if options.mode == "snapshot":
        raise Refused(
            "spec.engine.ceph.mode: mirroring by snapshots is not built; write journal, or leave mode out: it needs "
            "machines whose disks librbd serves, not the kernel"
        )
    return options
