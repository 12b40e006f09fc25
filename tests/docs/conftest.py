"""Somebody who goes through the docs in a checkout of their own, on the one-machine world that they make there."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from demo.world import World
from tests import pages
from tests.conftest import FIRST_BUILD_SECONDS
from tests.pages import ROOT, Shell

LEFT_OUT_OF_A_COPY: Final = shutil.ignore_patterns(
    ".git", ".venv", ".lifeboat", "dist", ".*_cache", "__pycache__", ".hypothesis"
)
PAGES: Final = sorted(
    [ROOT / "README.md", *(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "reference")]
)
AGAIN_SECONDS: Final = 20.0
EXAMPLES: Final = {
    "point": "rp-20261125-000604",
    "failover": "zone-a-lost",
    "zones": "/var/lib/lifeboat/zones",
    "folder": "zones/",
    "kubeconfig": "~/.kube/config",
}
"""What stands on the pages for what everybody has another one of."""


class Reader:
    """Types what the pages say, and keeps in mind what was typed. `world` is the one that `make up` makes."""

    def __init__(self, checkout: Path) -> None:
        self.shell = Shell(checkout)
        self.shell.types("export PYTHONPATH=$PWD/operator")  # the environment is another checkout's
        self.world = World(checkout / ".lifeboat")
        self.told = {key: command for page in PAGES for key, command in pages.commands(page).items()}
        self.typed: set[str] = set()

    def types(self, command: str, seconds: float = 120.0, **instead: str) -> str:
        """Type a command that is on a page; what it printed.

        Args:
            command: The command, or what of it is in no other one.
            seconds: How long it may take.
            instead: What this reader has in place of what stands on the page as an example, by the names in EXAMPLES.
        """
        return self.shell.types(self._mine(command, instead), seconds)

    def watches(self, command: str, words: str) -> None:
        """Type a command that is on a page and goes on, until it has printed these words."""
        with self.works(command) as said:
            self.until(lambda: words in said())

    def works(self, command: str, **instead: str) -> contextlib.AbstractContextManager[Callable[[], str]]:
        """Type a command that is on a page and goes on, until the block ends; gives what it has printed so far."""
        return self.shell.goes_on(self._mine(command, instead))

    def until(self, holds: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until it holds."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def _mine(self, command: str, instead: Mapping[str, str]) -> str:
        found = [each for each in self.told if each == command] or [each for each in self.told if command in each]
        assert len(found) == 1, f"{command!r} is in {found}"
        self.typed.add(found[0])
        mine = self.told[found[0]]
        for example, replacement in instead.items():
            assert EXAMPLES[example] in mine, f"{mine} has no {EXAMPLES[example]}"
            mine = mine.replace(EXAMPLES[example], replacement)
        return mine

    def goes_through(self, page: str, until: str = "") -> None:
        """Type the blocks of a page one by one, up to one with these words; what the page shows has to be printed."""
        output, command = "", ""
        for block in pages.blocks(ROOT / page):
            if block.language == pages.SHELL and until and until in block.text:
                return
            if block.language == pages.SHELL:
                self.typed |= set(pages.commands_of([block]))
                output, command = self.shell.types(block.text, FIRST_BUILD_SECONDS), block.text
            elif not block.language:
                self._sees(block.text, output, command)

    def _sees(self, shown: str, output: str, command: str) -> None:
        """Compare what a page shows with what was printed; what is only looked at may need a second look."""
        last = command.strip().splitlines()[-1]
        deadline = time.monotonic() + AGAIN_SECONDS
        while not pages.shows(output, shown):
            assert last.startswith(("kubectl get", "curl")), f"{command}\nprinted\n{output}\nand not\n{shown}"
            assert time.monotonic() < deadline, f"{command}\nprinted\n{output}\nand not\n{shown}"
            time.sleep(0.5)
            output = self.shell.types(last)


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """A reader in a copy of this checkout, who has its virtual environment already."""
    folder = Path(tempfile.mkdtemp(prefix="lifeboat-docs-"))
    checkout = folder / "lifeboat"
    shutil.copytree(ROOT, checkout, ignore=LEFT_OUT_OF_A_COPY, symlinks=True)
    (checkout / ".venv").mkdir()
    for each in Path(sys.prefix).iterdir():
        if each.name != "ready":
            (checkout / ".venv" / each.name).symlink_to(each)
    (checkout / ".venv" / "ready").touch()
    made = Reader(checkout)
    try:
        yield made
    finally:
        World(made.world.folder).down()  # what `make up` started is written down there, and this one was made before
        shutil.rmtree(folder, ignore_errors=True)
