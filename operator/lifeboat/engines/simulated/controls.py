"""What tests do to a simulated world, and what they ask about the data in it.

None of this is an engine's: it is the servers, the people in the zones and the disasters. Times never come from here.
"""

from __future__ import annotations

from datetime import datetime

from lifeboat.engines.contract import Pair, Refused
from lifeboat.engines.facts import Hardware, MachineState
from lifeboat.engines.simulated import machines, replication, source
from lifeboat.engines.simulated.state import Model, SourceRecord, Track, ZoneRecord


class Controls:
    """The hands that a test has on a world. Servers are named by their id in the primary zone."""

    def __init__(self, pair: Pair, model: Model) -> None:
        self.pair = pair
        self._model = model
        for name in (pair.primary_zone, pair.recovery_zone):
            self.add_zone(name)

    @property
    def now(self) -> datetime:
        """The world's time."""
        return self._model.now

    def add_zone(
        self, name: str, *, cpu: int = 64, memory_bytes: int = 256 << 30, capacity_bytes: int = 1 << 50
    ) -> None:
        """Add an empty zone with SSD storage."""
        self._model.zones[name] = ZoneRecord(
            name=name,
            namespaces=("default",),
            elastic_ips={},
            cpu=cpu,
            memory_bytes=memory_bytes,
            ssd=True,
            capacity_bytes=capacity_bytes,
        )

    def add_network(self, zone: str, name: str, cidr: str) -> None:
        """Add a network to a zone."""
        found = self._model.zones[zone]
        found.networks[name] = cidr
        found.taken[name] = {}
        found.facts = None

    def add_elastic_ip(self, zone: str, address: str) -> None:
        """Add an address to a zone's pool."""
        found = self._model.zones[zone]
        found.elastic_ips[address] = None
        found.facts = None

    def allow_namespaces(self, zone: str, *namespaces: str) -> None:
        """Say which namespaces may use a zone."""
        found = self._model.zones[zone]
        found.namespaces = namespaces
        found.facts = None

    def add_server(self, server_id: str, hardware: Hardware, *, agent_after_reboot: bool = False) -> None:
        """Add a running server to the primary zone; its client may be one that comes up after a restart only."""
        zone = self._primary
        zone.servers[server_id] = SourceRecord(server_id, hardware, self.now, agent=not agent_after_reboot)
        for address in hardware.addresses:
            if (network := zone.network_of(address)) is not None:
                zone.taken[network][address] = server_id
        self.touch_source(zone.servers[server_id])

    def remove_server(self, server_id: str) -> None:
        """Take a server out of the zone's inventory for good."""
        found = self._source(server_id)
        source.stop(self._model, self._primary, found, f"{self._primary.name} has no server {server_id} any more")
        found.removed = True
        for taken in self._primary.taken.values():
            for address in [address for address, user in taken.items() if user == server_id]:
                del taken[address]
        self.touch_source(found)

    def kill_source(self, server_id: str) -> None:
        """Let the source's process die, with its record of what is not yet copied."""
        source.stop(self._model, self._primary, self._source(server_id))
        self.touch_source(self._source(server_id))

    def start_source(self, server_id: str) -> None:
        """Start the source as the zone's own people would; its zone refuses while the fence is up."""
        found = self._source(server_id)
        if found.fenced:
            raise Refused(f"{server_id} is fenced")
        if not found.running:
            source.boot(self._model, found)
            self.touch_source(found)

    def set_agent(self, server_id: str, *, connected: bool) -> None:
        """Let the client in the source answer or not, after a restart as well."""
        found = self._source(server_id)
        found.agent = connected and found.running
        found.agent_starts = connected
        self.touch_source(found)

    def fail_machine(self, server_id: str, machine: str, reason: str) -> None:
        """Let a started machine die by itself."""
        machines.fail(self._track(server_id), machine, reason)
        self._model.touch(self._track(server_id))

    def spoil_point(self, server_id: str, point: str, problem: str) -> None:
        """Make a point unusable."""
        self._track(server_id).points[point].problem = problem
        self._model.touch(self._track(server_id))

    def silence(self, zone: str) -> None:
        """Let the operator get no answer from a zone, while everything in it goes on."""
        self._model.zones[zone].silent = True
        self._model.generation += 1

    def answer(self, zone: str) -> None:
        """Let a silent zone answer again."""
        self._model.zones[zone].silent = False
        self._model.generation += 1

    def cut_link(self) -> None:
        """Let no data pass between the zones: copies break and can be resumed."""
        self._model.cut.add(self._link)
        for (primary, recovery), tracks in self._model.tracks.items():
            if {primary, recovery} == self._link:
                for track in tracks.values():
                    reason = f"{primary} and {recovery} do not reach each other"
                    replication.interrupt(self._model, track, reason, resumable=True)

    def restore_link(self) -> None:
        """Let data pass again; what broke waits to be resumed."""
        self._model.cut.discard(self._link)

    def fill_disk(self, zone: str) -> None:
        """Use up a zone's storage."""
        self._model.zones[zone].filled = True
        self._model.zones[zone].facts = None

    def free_disk(self, zone: str) -> None:
        """Give a zone's storage back."""
        self._model.zones[zone].filled = False
        self._model.zones[zone].facts = None

    # What tests ask about data.

    def write(self, server_id: str, value: int | None = None) -> int:
        """Write durably to all disks of a running source; the answer is the write's number, once acknowledged."""
        found = self._source(server_id)
        if not found.running:
            raise ValueError(f"{server_id} does not run: nothing acknowledges a write")
        value = found.writes + 1 if value is None else value
        if value <= found.writes:
            raise ValueError(f"write {found.writes} was made already")
        found.writes = value
        for track in self._model.copies(self._primary.name, server_id):
            replication.acknowledge(self._model, track, found)
        return value

    def write_in(self, server_id: str, machine: str, value: int) -> None:
        """Write durably inside a running machine."""
        found = self._track(server_id).machine(machine)
        if found.state is not MachineState.RUNNING:
            raise ValueError(f"{machine} does not run: nothing acknowledges a write")
        found.disks.held = value

    def acknowledged(self, server_id: str) -> int:
        """The last write that the source acknowledged."""
        return self._source(server_id).writes

    def running(self, server_id: str) -> bool:
        """Whether the source serves, whoever can see it."""
        return self._source(server_id).running

    def replica_contents(self, server_id: str) -> int | None:
        """The last write on the replica, None while it is not consistent or not there."""
        replica = self._track(server_id).replica
        return None if replica is None else replica.held

    def point_contents(self, server_id: str, point: str) -> int | None:
        """The last write in a point."""
        return self._track(server_id).points[point].held

    def contents(self, server_id: str, machine: str) -> int:
        """The last write on a machine's disks."""
        return self._track(server_id).machine(machine).disks.held

    def lost(self, server_id: str, machine: str) -> int:
        """How many acknowledged writes of the source a machine does not have."""
        return max(0, self.acknowledged(server_id) - self.contents(server_id, machine))

    @property
    def _primary(self) -> ZoneRecord:
        return self._model.zones[self.pair.primary_zone]

    @property
    def _link(self) -> frozenset[str]:
        return frozenset((self.pair.primary_zone, self.pair.recovery_zone))

    def _source(self, server_id: str) -> SourceRecord:
        return self._primary.servers[server_id]

    def _track(self, server_id: str) -> Track:
        return self._model.track(self.pair.primary_zone, self.pair.recovery_zone, server_id)

    def touch_source(self, changed: SourceRecord) -> None:
        """Note that a source changed, for whoever looks next."""
        self._primary.facts = None
        for track in self._model.copies(self._primary.name, changed.server_id):
            self._model.touch(track)
