"""What tests do to a simulated world, and what they ask about the data in it.

None of this is an engine's: it is the servers, the people in the zones and the disasters. Times never come from here.
"""

from __future__ import annotations

from datetime import datetime

from lifeboat.engines.contract import Pair, Refused
from lifeboat.engines.facts import Hardware, MachineState
from lifeboat.engines.ledger import Direction
from lifeboat.engines.simulated import networks, power, replication
from lifeboat.engines.simulated.state import Disks, InventoryServer, Model, ServerRecord, Track, ZoneRecord

FORWARD = Direction.FORWARD


class Controls:
    """The hands that a test has on a world. Servers are named by their id in the primary zone.

    In a direction, the source is the server at its source zone, and points and machines are at its target zone.
    """

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
        zone = self._model.zones[self.pair.primary_zone]
        server = zone.servers[server_id] = InventoryServer(
            server_id=server_id, zone=zone, hardware=hardware, disks=Disks(hardware.disks), boot_time=self.now
        )
        networks.join(server)
        server.state, server.agent = MachineState.RUNNING, not agent_after_reboot
        self._model.touch_server(server)

    def remove_server(self, server_id: str) -> None:
        """Take a server out of the zone's inventory for good."""
        found = self._inventory_server(server_id)
        reason = f"{found.zone.name} has no server {server_id} any more"
        power.end(self._model, found, MachineState.HALTED, copies_end=reason)
        found.removed = True
        self._model.touch_server(found)

    def kill_source(self, server_id: str, direction: Direction = FORWARD) -> None:
        """Let the source's process die, with its record of what is not yet copied."""
        found = self._source(server_id, direction)
        state, reason = (MachineState.FAILED, "the machine ended") if found.running else (found.state, found.reason)
        power.end(self._model, found, state, reason)

    def start_source(self, server_id: str, direction: Direction = FORWARD) -> None:
        """Start the source as the zone's own people would; its zone refuses while the fence is up."""
        found = self._source(server_id, direction)
        if found.fenced:
            raise Refused(f"{found.user} is fenced")
        if not found.running:
            power.boot(self._model, found)

    def set_agent(self, server_id: str, direction: Direction = FORWARD, *, connected: bool) -> None:
        """Let the client in the source answer or not, after a restart as well."""
        found = self._source(server_id, direction)
        found.agent = connected and found.serving
        found.agent_starts = connected
        self._model.touch_server(found)

    def ignore_shutdown(self, server_id: str, direction: Direction = FORWARD) -> None:
        """Let the source's guest go on when it is told to shut down."""
        self._source(server_id, direction).ignores_shutdown = True

    def fail_machine(self, server_id: str, machine: str, reason: str, direction: Direction = FORWARD) -> None:
        """Let a started machine die by itself."""
        found = self._track(server_id, direction).machine(machine)
        power.end(self._model, found, MachineState.FAILED, reason)

    def run_out_of_space(self, server_id: str, machine: str, direction: Direction = FORWARD) -> None:
        """Let a started machine stand still, as one does that writes onto a full disk."""
        track = self._track(server_id, direction)
        track.machine(machine).out_of_space = True
        self._model.touch(track)

    def spoil_point(self, server_id: str, point: str, problem: str, direction: Direction = FORWARD) -> None:
        """Make a point unusable."""
        self._track(server_id, direction).points[point].problem = problem
        self._model.touch(self._track(server_id, direction))

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
        for (source, target), tracks in self._model.tracks.items():
            if {source, target} == self._link:
                for track in tracks.values():
                    reason = f"{source} and {target} do not reach each other"
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

    def write(self, server_id: str, value: int | None = None, direction: Direction = FORWARD) -> int:
        """Write durably to all disks of a running source; the answer is the write's number, once acknowledged."""
        return self._write(self._source(server_id, direction), value)

    def write_in(self, server_id: str, machine: str, value: int, direction: Direction = FORWARD) -> None:
        """Write durably inside a running machine, which may be a source."""
        self._write(self._track(server_id, direction).machine(machine), value)

    def acknowledged(self, server_id: str, direction: Direction = FORWARD) -> int:
        """The last write that the source acknowledged."""
        return self._source(server_id, direction).disks.held

    def running(self, server_id: str, direction: Direction = FORWARD) -> bool:
        """Whether the source serves, whoever can see it."""
        return self._source(server_id, direction).serving

    def original_contents(self, server_id: str) -> int | None:
        """The last write on the disks of the inventory's own server, None once they were wiped for a replica."""
        disks = self._inventory_server(server_id).disks
        return None if disks.given_up else disks.held

    def replica_contents(self, server_id: str, direction: Direction = FORWARD) -> int | None:
        """The last write on the replica, None while it is not consistent or not there."""
        replica = self._track(server_id, direction).replica
        return None if replica is None else replica.held

    def point_contents(self, server_id: str, point: str, direction: Direction = FORWARD) -> int | None:
        """The last write in a point."""
        return self._track(server_id, direction).points[point].held

    def contents(self, server_id: str, machine: str, direction: Direction = FORWARD) -> int:
        """The last write on a machine's disks."""
        return self._track(server_id, direction).machine(machine).disks.held

    def lost(self, server_id: str, machine: str, direction: Direction = FORWARD) -> int:
        """How many acknowledged writes of the source a machine does not have."""
        return max(0, self.acknowledged(server_id, direction) - self.contents(server_id, machine, direction))

    def _write(self, server: ServerRecord, value: int | None) -> int:
        if not server.serving:
            raise ValueError(f"{server.user} does not run: nothing acknowledges a write")
        value = server.disks.held + 1 if value is None else value
        if value <= server.disks.held:
            raise ValueError(f"write {server.disks.held} was made already")
        server.disks.held = value
        for track in self._model.copies(server):
            replication.acknowledge(self._model, track, server)
        return value

    @property
    def _link(self) -> frozenset[str]:
        return frozenset((self.pair.primary_zone, self.pair.recovery_zone))

    def _inventory_server(self, server_id: str) -> InventoryServer:
        return self._model.zones[self.pair.primary_zone].servers[server_id]

    def _source(self, server_id: str, direction: Direction) -> ServerRecord:
        zone = self._track(server_id, direction).source_zone
        # What a server that was taken out of the inventory acknowledged is still asked for.
        if (found := zone.server(server_id) or zone.servers.get(server_id)) is None:
            raise ValueError(f"there is no server {server_id} in direction {direction}")
        return found

    def _track(self, server_id: str, direction: Direction = FORWARD) -> Track:
        primary, recovery = self.pair.primary_zone, self.pair.recovery_zone
        source, target = (primary, recovery) if direction is FORWARD else (recovery, primary)
        return self._model.track(source, target, server_id)
