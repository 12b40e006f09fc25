"""What a SitePair says about this engine, checked once more where it arrives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from lifeboat.engines.contract import Pair, Refused

Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class SecretRef(_Part):
    """A Secret in the SitePair's namespace."""

    name: Name


class SiteOptions(_Part):
    """How one site's cluster is reached."""

    secret_ref: SecretRef


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
