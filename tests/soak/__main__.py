"""`python -m tests.soak SECONDS SEED`: days of bad luck in some minutes, and a judgement at the end.

The seed is told first and decides every choice; what is chosen from depends on how far things are, so a run can be
replayed roughly, not exactly. Exit code 1 says that something was as it must never be: the folder with the evidence is
named then, and kept.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.soak import rest
from tests.soak.book import Book
from tests.soak.faults import FAULTS, Hurt, NotNow, Undo
from tests.soak.nonsense import OPERATIONS
from tests.soak.operations import Ask, Life, Operation
from tests.soak.people import tend
from tests.soak.rows import Rows
from tests.soak.watch import Watcher
from tests.soak.world import SERVERS, Rejected, SoakWorld, Undelivered

FAULTS_AT_ONCE: Final = 2
FAULT_CHANCE: Final = 0.25
ASK_IN_VAIN_CHANCE: Final = 0.1
TRIES: Final = 5


class Soak:
    """One run."""

    def __init__(self, folder: Path, seconds: float, seed: int) -> None:
        self._seconds = seconds
        self._chance = random.Random(seed)
        self.book = Book(folder, seed)
        self._world = SoakWorld(folder / "world")
        self._lives: dict[str, Life] = {}
        self._rows: dict[str, Rows] = {}
        self._undo: list[tuple[float, int, str, Undo]] = []
        self._order = itertools.count()

    def run(self) -> int:
        """Do all of it; the exit code."""
        watcher = Watcher(self._world, self.book, lambda: list(self._rows.values()))
        try:
            self.book.note("begin", "a disk to fill" if self._world.mount() else "no disk may be mounted here")
            self._world.up(lambda step: self.book.note("begin", step))
            self._world.reconnect()
            self._world.pair()
            for relay in self._world.relays.values():
                relay.__enter__()
            for server in SERVERS:
                self._be_born(server)
            watcher.start()
            self._wait_for_points()
            self._suffer()
            self._heal()
            objects = rest.come_to_rest(self._world, self.book, self._tend_all)
            for rows in self._rows.values():
                rows.stop()
            watcher.stop()
            self._compare()
            rest.judge(self._world, self.book, objects)
        except Exception as error:
            self.book.violate(f"the soak itself broke: {type(error).__name__}: {error}")
            raise
        finally:
            if self.book.violations:
                self._world.keep(self.book.folder / "kept")
            self._world.down()
            for relay in self._world.relays.values():
                relay.__exit__()
            self._world.unmount()
            self.book.close()
        return 1 if self.book.violations else 0

    # --- lives

    def _be_born(self, server: str) -> None:
        self._world.begin(server)
        self._lives[server] = Life(server)
        self._rows[server] = Rows(self._world, self.book, server)
        self._rows[server].start()
        self._deliver(f"protect {server}", lambda: self._world.protect(server))
        self.book.note("life", f"{server} begins")

    def _tend_all(self) -> None:
        """Let people do what is left to them."""
        for life in self._lives.values():
            self._try(life, tend, legal=True)

    # --- days of bad luck

    def _wait_for_points(self) -> None:
        """Bad luck begins once there is something to lose."""
        while any(not life.status.get("recoveryPoints") for life in self._lives.values()):
            time.sleep(0.5)
            for life in self._lives.values():
                life.refresh(self._world)

    def _suffer(self) -> None:
        ends = self.book.elapsed + self._seconds
        while self.book.elapsed < ends:
            self._undo_due()
            if self._chance.random() < FAULT_CHANCE and len(self._undo) < FAULTS_AT_ONCE:
                self._hurt()
            elif self._world.control_plane.running or self._chance.random() < ASK_IN_VAIN_CHANCE:
                self._ask()
            time.sleep(self._chance.uniform(0.2, 1.8))

    def _ask(self) -> None:
        """Ask for something that makes sense, or none, at the moment."""
        life = self._chance.choice(list(self._lives.values()))
        weights = [weight for weight, _, _ in OPERATIONS]
        for _ in range(TRIES):
            [(_, legal, operation)] = self._chance.choices(OPERATIONS, weights)
            if self._try(life, operation, legal=legal):
                return

    def _try(self, life: Life, operation: Operation, *, legal: bool) -> bool:
        """Ask for one thing; whether it was asked for."""
        try:
            life.refresh(self._world)
            said = operation(Ask(self._world, life, self._chance))
        except Undelivered as error:
            self.book.count("asked in vain")
            self.book.note("unheard", f"{life.server} {operation.__name__}: {error}")
        except Rejected as error:
            self.book.count("refused by the API server")
            self.book.note("rejected", f"{life.server} {operation.__name__}: {error}")
        else:
            if said is None:
                return False
            self.book.count("legal operations" if legal else "illegal operations")
            self.book.note("ask", f"{life.server} {operation.__name__}: {said}")
        return True

    def _hurt(self) -> None:
        server = self._chance.choice(list(self._lives))
        [(_, least, most, fault)] = self._chance.choices(FAULTS, [weight for weight, _, _, _ in FAULTS])
        if any(what.split()[-1] == fault.__name__ for _, _, what, _ in self._undo):
            return
        lasts = self._chance.uniform(least, most)
        try:
            undo = fault(Hurt(self._world, server, self._chance))
        except NotNow:
            return
        self.book.count("faults")
        self.book.count(f"fault {fault.__name__}")
        self.book.note("fault", f"{fault.__name__} ({server}), {lasts:.1f} s")
        if undo is not None:
            heapq.heappush(
                self._undo, (self.book.elapsed + lasts, next(self._order), f"{server} {fault.__name__}", undo)
            )

    def _undo_due(self, *, all_of_them: bool = False) -> None:
        while self._undo and (all_of_them or self._undo[0][0] <= self.book.elapsed):
            _, _, what, undo = heapq.heappop(self._undo)
            undo()
            self.book.note("over", what)

    # --- and the end

    def _heal(self) -> None:
        """Undo every fault; owners start what should run."""
        self._undo_due(all_of_them=True)
        for zone in ("zone-a", "zone-b"):
            self._world.answer(zone)
        self._world.start_operator()
        self.book.note("heal", "every fault is over")

    def _compare(self) -> None:
        for rows in self._rows.values():
            place = rows.place()
            if place is not None and not rows.verify(place):
                self.book.violate(
                    f"{rows.server}: nobody answers at {place.host}, where its ledger says that it serves"
                )

    def _deliver(self, what: str, ask: Callable[[], object]) -> None:
        """Ask until the API server answers."""
        while True:
            try:
                ask()
            except Undelivered:
                self._undo_due()
                time.sleep(0.5)
            except Rejected as error:
                self.book.note("rejected", f"{what}: {error}")
                return
            else:
                return


def main() -> int:
    """Run one soak."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=900.0)
    parser.add_argument("seed", type=int, nargs="?", default=None)
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else secrets.randbelow(1_000_000)
    folder = Path(tempfile.mkdtemp(prefix="lifeboat-soak-"))
    code = Soak(folder, chosen.seconds, seed).run()
    if code == 0:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        sys.stdout.write(f"seed {seed}; the evidence is in {folder}: actions.log, and kept/ with logs and ledgers\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
