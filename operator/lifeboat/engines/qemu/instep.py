"""Whether a replica is in step with its source, and until when it was.

Being in step is seen by looking at the source's jobs. That it was so once is written into the record, since an
inconsistent tip must never be taken for a usable one; the exact moments are gauges and live in memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lifeboat.engines.qemu import mirror, storage_daemon
from lifeboat.engines.qemu.records import ReplicaRecord, layer_file, load_replica, save_replica
from lifeboat.engines.qemu.zones import Zone
from lifeboat.host.qmp import Monitors

_FRESH = 0.5
_COARSE = 1.0
_RATE_OVER = 15.0
_RATE_FROM = 1.0


@dataclass(slots=True)
class _Window:
    synced: float | None = None
    samples: list[tuple[float, int]] = field(default_factory=list)
    marks: tuple[int, ...] | None = None


class InStep:
    """What was seen of every replica lately."""

    def __init__(
        self, monitors: Monitors, clock: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monitors = monitors
        self._clock = clock
        self._monotonic = monotonic
        self._windows: dict[tuple[str, str], _Window] = {}

    async def check(self, source: Path, target: Zone, record: ReplicaRecord) -> ReplicaRecord:
        """Look once; the record that comes back says so when the replica is in step. `source` is the server's folder.

        Raises:
            Silent: the source does not answer.
        """
        seen = await mirror.look(self._monitors, source, record, target.name)
        alive = storage_daemon.running(target, record.server_id) is not None
        if not alive or not record.offered or self.judge(target, record, seen).progress is not mirror.Progress.SYNCED:
            return record
        return self.note(target, record)

    def judge(self, target: Zone, record: ReplicaRecord, seen: mirror.Mirror) -> mirror.Mirror:
        """See through the writes that are always under way in a busy guest.

        A job that is ready with nothing marked as changed misses only what the guest has not been told is done, unless
        a resync is ending: its last requests are under way then, and no longer marked. They are done when as many bytes
        have arrived as were wanted when the marks were first seen to be gone.
        """
        window = self._window(target, record.server_id)
        if seen.progress is not mirror.Progress.COPYING or not seen.clean:
            window.marks = None
            return seen
        if record.torn:
            if window.marks is None or len(window.marks) != len(seen.lengths):
                window.marks = seen.lengths
            if any(offset < mark for offset, mark in zip(seen.offsets, window.marks, strict=True)):
                return seen
        return dataclasses.replace(seen, progress=mirror.Progress.SYNCED)

    def note(self, target: Zone, record: ReplicaRecord) -> ReplicaRecord:
        """Remember that the replica was seen in step just now; written down only when it is news."""
        self._window(target, record.server_id).synced = self._monotonic()
        if record.consistent():
            return record
        return _write(target, record, {"synced": True, "torn": False, "synced_at": self._clock()})

    def now(self, target: Zone, server_id: str) -> bool:
        """Whether the replica was in step within the last half second."""
        synced = self._window(target, server_id).synced
        return synced is not None and self._monotonic() - synced < _FRESH

    def lag(self, target: Zone, record: ReplicaRecord) -> float | None:
        """Seconds since the replica was last seen in step, None when it never was in this run."""
        if not record.synced:
            return None
        last = self._last(target, record)
        if last is None:
            return None
        # The end of being in step is written down once, for an operator that comes later.
        if not record.torn and (record.synced_at is None or last - record.synced_at > timedelta(seconds=_COARSE)):
            _write(target, record, {"synced_at": last})
        return max(0.0, (self._clock() - last).total_seconds())

    def tip_time(self, target: Zone, record: ReplicaRecord) -> datetime:
        """Up to when the tip holds the source's writes: now while in step, else the latest moment that proves it.

        To be asked before the replica's process is ended: closing the images makes them newer.
        """
        now = self._clock()
        if self.now(target, record.server_id):
            return now
        return min(now, self._last(target, record) or now)

    def rate(self, target: Zone, server_id: str, copied_bytes: int | None) -> float:
        """Bytes per second over the last looks; None begins anew."""
        window = self._window(target, server_id)
        if copied_bytes is None:
            window.samples = []
            return 0.0
        now = self._monotonic()
        window.samples = [sample for sample in window.samples if now - sample[0] < _RATE_OVER] + [(now, copied_bytes)]
        (first, start), (last, end) = window.samples[0], window.samples[-1]
        return max(0.0, (end - start) / (last - first)) if last - first >= _RATE_FROM else 0.0

    def forget(self, target: Zone, server_id: str) -> None:
        """Begin anew: another copy begins, or none is made."""
        self._windows.pop((target.name, server_id), None)

    def _last(self, target: Zone, record: ReplicaRecord) -> datetime | None:
        """The latest moment that proves that the tip held everything.

        That is the last look, this operator's or an earlier one's, and the last write that arrived: a line lets writes
        through in their order or not at all. Once the tip was closed, its images' times say nothing any more.
        """
        moments = [] if record.synced_at is None else [record.synced_at]
        synced = self._window(target, record.server_id).synced
        if synced is not None:
            moments.append(self._clock() - timedelta(seconds=self._monotonic() - synced))
        if record.tip is not None and record.replicating and record.offered and record.consistent():
            tip = record.layer(record.tip)
            for index in range(len(tip.disks)):
                with contextlib.suppress(OSError):
                    written = layer_file(target, record, tip, index).stat().st_mtime
                    moments.append(datetime.fromtimestamp(written, UTC))
        return max(moments, default=None)

    def _window(self, target: Zone, server_id: str) -> _Window:
        return self._windows.setdefault((target.name, server_id), _Window())


def _write(target: Zone, record: ReplicaRecord, changes: dict[str, object]) -> ReplicaRecord:
    """Change the record unless a verb has changed it since it was read; nothing is awaited in between."""
    changed = record.model_copy(update=changes)
    return save_replica(target, changed) if load_replica(target, record.server_id) == record else record
