"""The matrix: each phase in which a server can be (rows), each thing that can go wrong (columns), and what comes of it.

`on`      it goes on to the row's end as if nothing had happened, and there is nothing to tell
`told`    it goes on to the row's end, and says what happened
`event`   it is mended within one pass and goes on to the row's end; an Event says what happened
`mends`   replication is mended at once, and says at least that there was an interruption
`resync`  replication says that it is interrupted and why, and then copies only what changed
`recopy`  replication says why everything has to be copied again, and does that
`wait`    it says what it waits for, and goes on once that is over
`person`  it says what a person can do, the person does it
a letter  not applicable, see `NOT_APPLICABLE`

A star marks the cells that every `make test` runs, one for each group of phases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tests.faults.faults import FAULTS, Fault
from tests.faults.rows import ROWS, Row

TABLE: Final = """
                      operator  api    replica  source  source    link   disk   zone-a  zone-b  machine
                      killed    stop.  killed   killed  rebooted  cut    full   silent  silent  killed
StartingReplication   on*       on     on       wait    on        wait   wait   wait    wait    b
FullSync              on        on     event    recopy  on        resync resync on      wait    b
Replicating           on        on     mends*   recopy  on        resync resync resync  wait    b
Interrupted           on        on     on       recopy  on        e      on     on      wait    b
Resyncing             on        on     on       recopy  on        on     a      on      wait    b
Stopped               on        on     c        on      on        c      on     on      wait    b
DrillLaunching        on        on     on       on      on        on     wait   on      wait    b
DrillVerifying        on        on*    on       on      on        on     on     on      wait    event
DrillRunning          on        on     on       on      on        on     on     on      wait    person
DrillCleaningUp       on        on     on       on      on        on     on     on      wait    on
StoppingReplication   on        on     on       on      on        on     on     told    wait    b
Launching             on*       on     c        d       d         c      wait   told    wait    b
Verifying             on        on     c        d       d         c      on     told    wait    event
AwaitingCommit        on        on     c        d       d         c      wait*  told    wait    person
ChangingRecoveryPoint on        on     c        d       d         c      wait   told    wait    on
RollingBack           on        on     c        d       d         c      on     wait    wait    on
Committing            on        on     c        d       d         c      wait   told    wait    told
Committed             on        on     c        d       d         c      on     told    wait    person
ReverseReplicating    on        on     mends*   recopy  a         resync a      a       a       f
FailingBack           on        on     a        a       a         wait*  a      a       a       f
FailedBack            on        on     c        a       a         c      a      a       a       f
Registering           on        on     c        a       a         c      a      a       a       f
"""

NOT_APPLICABLE: Final = {
    "a": "no expectation is written yet",
    "b": "no machine was launched",
    "c": "nothing is replicated, so no process holds the replica and nothing goes over the link",
    "d": "the source is fenced and does not run",
    "e": "the link is cut already",
    "f": "the machine that was launched is the source there",
}

# What the message has to say, by fault and code: key words of one sentence. `TARGET` is the zone that is copied to.
WORDS: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("replica-killed", "mends"): ("interrupt",),
    ("replica-killed", "event"): ("replication", "interrupted"),
    ("link-cut", "wait"): ("link to zone TARGET is broken",),
    ("link-cut", "resync"): ("interrupted", "TARGET", "unharmed", "retried"),
    ("disk-full", "resync"): ("interrupted", "disk of zone zone-b is full", "unharmed", "retried"),
    ("disk-full", "wait"): ("zone-b", "disk"),
    ("source-killed", "wait"): ("not running in zone zone-a", "start it there"),
    ("source-killed", "recopy"): ("has stopped", "Start the server at its site", "copied again"),
    ("zone-a-silent", "resync"): ("interrupted", "zone zone-a does not answer", "retried once", "create a Failover"),
    ("zone-a-silent", "wait"): ("zone zone-a does not answer",),
    ("zone-a-silent", "told"): ("zone zone-a does not answer",),
    ("zone-b-silent", "wait"): ("zone zone-b does not answer",),
    ("machine-killed", "told"): ("stopped by itself", "started again"),
    ("machine-killed", "event"): ("stopped by itself", "started again"),
    ("machine-killed", "person"): ("stop",),
}
# Where the source goes on alone until it is fenced: only what was acknowledged before the fault is promised.
RUNS_AHEAD: Final = {
    ("StoppingReplication", fault) for fault in ("replica-killed", "link-cut", "disk-full", "zone-a-silent")
}
# Where the server itself is on the disk that is full: it stands still until there is room.
STANDS_STILL: Final = {(row, "disk-full") for row in ("AwaitingCommit", "Committing", "Committed")}


@dataclass(frozen=True)
class Cell:
    """One fault in one phase: `code` says what comes of it."""

    row: Row
    fault: Fault
    code: str
    always: bool

    @property
    def name(self) -> str:
        """The cell's id."""
        return f"{self.row.name}-{self.fault.name}"

    @property
    def runs_ahead(self) -> bool:
        """Whether the source acknowledges what cannot reach the replica any more."""
        return (self.row.name, self.fault.name) in RUNS_AHEAD

    @property
    def stops_serving(self) -> bool:
        """Whether the server acknowledges nothing while the fault lasts, or moves meanwhile."""
        still = (self.row.name, self.fault.name) in STANDS_STILL
        return still or self.fault.stops_source or self.row.moves

    @property
    def words(self) -> tuple[str, ...]:
        """What has to be told."""
        words = () if self.code == "on" else WORDS[self.fault.name, self.code]
        return tuple(word.replace("TARGET", self.row.target) for word in words)


def cells() -> Iterator[Cell]:
    """Every cell that is applicable, row by row."""
    for line in TABLE.splitlines():
        name, *codes = line.split() or [""]
        if name not in ROWS:
            continue
        for fault, code in zip(FAULTS.values(), codes, strict=True):
            if code not in NOT_APPLICABLE:
                yield Cell(ROWS[name], fault, code.removesuffix("*"), code.endswith("*"))
