"""What the objects of a namespace say of the servers there: pure reading, of one list of each kind.

What is not known for certain to have ended counts as running: a virtual machine that is on its way out still writes to
its disks, and one on a node that went silent may.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from lifeboat.api.values import parse_quantity
from lifeboat.engines.ceph.compute import Disk, Made, Offer
from lifeboat.engines.ceph.compute.kubevirt import names
from lifeboat.engines.ceph.compute.kubevirt.cluster import Body
from lifeboat.engines.ceph.compute.kubevirt.manifests import HALTED, MANUAL
from lifeboat.engines.ceph.options import KubeVirt
from lifeboat.engines.contract import Refused
from lifeboat.engines.facts import Machine, MachineState, Network, Source

ORDERLY, AT_ONCE, DRAINED = "orderly", "at-once", "drained"
"""How far a fence has come; of an orderly one, whether the replica holds the last write."""
_ENDED = frozenset({"Succeeded", "Failed"})
# KubeVirt says so of what ran on a node that does not answer, where it may run on.
_SILENT_NODE = "NodeUnresponsive"
_NEVER_STARTS = frozenset({"CrashLoopBackOff", "DataVolumeError", "ErrorPvcNotFound", "FailedMapping"})
# Where no quota bounds a namespace, its cluster says what fits when it is asked.
_UNBOUNDED_CPU = 512
_UNBOUNDED_MEMORY = 16 << 40


@dataclass(frozen=True, slots=True)
class Found:
    """A virtual machine, and the instance of it where it runs."""

    vm: Body
    instance: Body | None

    @property
    def name(self) -> str:
        """The name of both."""
        return str(self.vm["metadata"]["name"])

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return self.vm["metadata"].get("labels") or {}

    @property
    def notes(self) -> Mapping[str, str]:
        """Its annotations."""
        return self.vm["metadata"].get("annotations") or {}

    @property
    def strategy(self) -> str:
        """What keeps it running."""
        spec = self.vm["spec"]
        if spec.get("running") is not None:
            return "Always" if spec["running"] else HALTED
        return str(spec.get("runStrategy") or HALTED)

    @property
    def alive(self) -> bool:
        """Whether it runs, for all that is known."""
        if self.instance is None:
            return False
        status = self.instance.get("status") or {}
        return status.get("phase") not in _ENDED or status.get("reason") == _SILENT_NODE

    @property
    def off(self) -> bool:
        """Whether it neither runs nor is about to: a guest that switched itself off is not started again."""
        stays = self.strategy in {HALTED, MANUAL} or (self.phase == "Succeeded" and self.strategy != "Always")
        return stays and not self.alive

    @property
    def phase(self) -> str:
        """How far its instance is."""
        return str(((self.instance or {}).get("status") or {}).get("phase") or "")

    @property
    def fenced(self) -> bool:
        """Whether it must not serve."""
        return names.FENCED in self.labels

    @property
    def machine(self) -> str | None:
        """The launched machine that it is, None for a virtual machine of its owner's."""
        return self.notes.get(names.MACHINE, self.labels[names.MACHINE]) if names.MACHINE in self.labels else None

    def paused(self) -> str | None:
        """Why it stands still, None where it does not."""
        found = condition(self.instance, "Paused")
        return None if found is None else str(found.get("reason") or "Paused")

    def ports(self) -> tuple[int, ...]:
        """The ports on which it is served."""
        return tuple(
            int(port) for port in self.notes.get(names.PORTS, "").replace(" ", "").split(",") if port.isdigit()
        )

    def addresses(self) -> tuple[str, ...]:
        """Its addresses, as far as KubeVirt knows them."""
        status = (self.instance or {}).get("status") or {}
        found = (each.get("ipAddress") for each in status.get("interfaces") or ())
        return tuple(dict.fromkeys(address for address in found if address))


@dataclass(frozen=True, slots=True)
class Seen:
    """All of a namespace at one moment: the zone's servers and the launched machines, each by the server's id."""

    servers: Mapping[str, tuple[Found, ...]]
    machines: Mapping[str, Mapping[str, Found]]
    cpu: int
    memory_bytes: int

    def server(self, zone: str, server_id: str) -> Found | None:
        """The zone's server of that id: a launched machine that is registered as it, or one of the zone's own.

        Raises:
            Refused: several virtual machines say that they are it.
        """
        for machine in self.machines.get(server_id, {}).values():
            if names.REGISTERED in machine.labels:
                return machine
        found = self.servers.get(server_id, ())
        if len(found) > 1:
            several = " and ".join(sorted(each.name for each in found))
            raise Refused(
                f"virtual machines {several} of zone {zone} are both labelled {names.SERVER}: {server_id}; leave the "
                "label on the one that is that server"
            )
        return found[0] if found else None

    def held(self) -> Iterable[Found]:
        """The virtual machines of which is noted that they stand still for a moment."""
        own = (each for found in self.servers.values() for each in found)
        launched = (each for found in self.machines.values() for each in found.values())
        return (each for each in (*own, *launched) if names.HELD in each.notes)


def look(zone: str, vms: Iterable[Body], instances: Iterable[Body], quotas: Iterable[Body]) -> Seen:
    """What the lists of a namespace's objects say."""
    running = {each["metadata"]["name"]: each for each in instances}
    servers: dict[str, tuple[Found, ...]] = {}
    machines: dict[str, dict[str, Found]] = {}
    for vm in vms:
        found = Found(vm, running.get(vm["metadata"]["name"]))
        server_id = found.labels.get(names.SERVER, "")
        if found.machine is None:
            servers[server_id] = (*servers.get(server_id, ()), found)
        elif found.labels.get(names.ZONE) == zone:
            machines.setdefault(server_id, {})[found.machine] = found
    hard = [(quota.get("spec") or {}).get("hard") or {} for quota in quotas]
    return Seen(
        servers,
        machines,
        cpu=_least(hard, ("limits.cpu", "requests.cpu", "cpu"), _UNBOUNDED_CPU),
        memory_bytes=_least(hard, ("limits.memory", "requests.memory", "memory"), _UNBOUNDED_MEMORY),
    )


def offer(options: KubeVirt, user: str, seen: Seen) -> Offer:
    """What a site has for the SitePairs of namespace `user`. Who has an address is not told: the cluster gives them."""
    return Offer(
        namespaces=(user,),
        networks=tuple(Network(network.name, str(network.cidr)) for network in options.networks),
        elastic_ips={},
        cpu=seen.cpu,
        memory_bytes=seen.memory_bytes,
        servers=tuple(sorted(seen.servers)),
    )


def made(found: Found) -> Made:
    """What a server is made of. Where an instance type says it, that is known only while the server runs."""
    domain = _domain(found)
    cpu, memory = domain.get("cpu") or {}, domain.get("memory") or {}
    wants = (domain.get("resources") or {}).get("requests") or {}
    size = memory.get("guest") or wants.get("memory")
    count = 1
    for part in ("sockets", "cores", "threads"):
        count *= int(cpu.get(part) or 1)
    return Made(
        cpu=count if size is not None else 0,
        memory_bytes=parse_quantity(size) if size is not None else 0,
        addresses=found.addresses(),
        ports=found.ports(),
        machine=found.machine,
        disks=disks(found),
        known=size is not None,
    )


def source(found: Found) -> Source:
    """What a server does now.

    One that is about to be started counts as running. So does one that an orderly fence stops, until the replica holds
    its last write: only then is the fence at its end.
    """
    far = found.notes.get(names.FENCE, "") if found.fenced else ""
    alive = found.alive
    return Source(
        running=not found.off or far == ORDERLY,
        agent_connected=alive and _connected(found),
        boot_time=_booted(found) if alive else None,
        fenced=found.fenced,
        machine=found.machine,
        drained=found.off and far == DRAINED,
    )


def machine(name: str, found: Found) -> Machine:
    """What a launched machine does now."""
    state, reason = _state(found)
    paused = found.paused() if state is MachineState.RUNNING else None
    full = paused == "PausedIOError"
    if full:
        reason = "it stands still: its disks cannot be written to, as when the Ceph cluster is full"
    elif paused is not None:
        reason = f"it stands still ({paused}): let it go on with `virtctl unpause vm {found.name}`"
    addresses = found.addresses()
    port = next((each for each in found.ports() if each == 80), next(iter(found.ports()), None))
    return Machine(
        name=name,
        state=state,
        instance_id=found.name,
        reason=reason,
        agent_connected=state is MachineState.RUNNING and _connected(found),
        addresses=addresses,
        url=f"http://{addresses[0]}:{port}/".replace(":80/", "/") if addresses and port is not None else None,
        out_of_space=full,
    )


def disks(found: Found) -> tuple[Disk, ...]:
    """The disks of a launched machine."""
    told = json.loads(found.notes.get(names.DISKS, "[]"))
    return tuple(Disk(each["name"], each["pool"], each["image"], int(each["size"])) for each in told)


def claims(vm: Body) -> tuple[str, ...]:
    """The claims that a virtual machine has its disks by."""
    volumes = vm["spec"].get("template", {}).get("spec", {}).get("volumes") or ()
    found = ((each.get("persistentVolumeClaim") or {}).get("claimName") for each in volumes)
    return tuple(name for name in found if name)


def condition(body: Body | None, kind: str) -> Body | None:
    """A condition of an object that is true."""
    for each in ((body or {}).get("status") or {}).get("conditions") or ():
        if each.get("type") == kind and each.get("status") == "True":
            return dict(each)
    return None


def _state(found: Found) -> tuple[MachineState, str]:
    status = found.vm.get("status") or {}
    printable = str(status.get("printableStatus") or "")
    if found.alive:
        if found.strategy == HALTED:
            return MachineState.RUNNING, "it is being stopped"
        if found.phase != "Running":
            return MachineState.RUNNING, f"it is being started ({printable or found.phase or 'Pending'}){_why(found)}"
        return MachineState.RUNNING, ""
    if found.strategy == HALTED:
        return MachineState.HALTED, ""
    if found.phase == "Succeeded":
        return MachineState.FAILED, "the guest switched itself off"
    if found.phase == "Failed" or printable in _NEVER_STARTS:
        return MachineState.FAILED, f"it does not run ({printable or found.phase}){_why(found)}"
    return MachineState.RUNNING, f"it is being started ({printable or 'Starting'}){_why(found)}"


def _why(found: Found) -> str:
    """What KubeVirt says of it, where it says anything."""
    for body in (found.instance, found.vm):
        for each in ((body or {}).get("status") or {}).get("conditions") or ():
            if each.get("status") == "False" and each.get("message"):
                return f": {each['message']}"
    return ""


def _domain(found: Found) -> Body:
    """What its instance has; an instance type is resolved in there."""
    if found.instance is not None:
        return dict(found.instance["spec"].get("domain") or {})
    return dict(found.vm["spec"].get("template", {}).get("spec", {}).get("domain") or {})


def _connected(found: Found) -> bool:
    return condition(found.instance, "AgentConnected") is not None


def _booted(found: Found) -> datetime | None:
    """When its instance came to run, once it does; a reset from inside the guest is not seen."""
    status = (found.instance or {}).get("status") or {}
    for each in status.get("phaseTransitionTimestamps") or ():
        if each.get("phase") == "Running":
            return datetime.fromisoformat(each["phaseTransitionTimestamp"])
    return None


def _least(hard: Iterable[Mapping[str, str]], keys: tuple[str, ...], unbounded: int) -> int:
    return min((parse_quantity(each[key]) for each in hard for key in keys if key in each), default=unbounded)
