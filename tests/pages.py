"""Pages of the docs as a reader takes them: what they tell to type is typed, as it stands there."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
SHELL: Final = "sh"

_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:kubectl|lifeboat|helm|make|touch) [^`]+)`")
_REMARK = re.compile(r"\s+#\s.*$")
# What differs from one day to the next: numbers, names and times made of them, durations.
_VARYING = re.compile(r"\d[\d.]*(?:[hms](?:\d+[hms])*)?")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, empty for what a command printed, and its text without the page's indentation."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(language, re.sub(f"^{indent}", "", text, flags=re.MULTILINE)) for indent, language, text in found]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))


def commands(page: Path) -> dict[str, str]:
    """Every command that a page tells to type, in shell blocks and within its text.

    By the command in one line, without remarks and without needless space: how it stands there.
    """
    within = _INLINE.findall(prose(page))
    return commands_of(blocks(page)) | {" ".join(each.split()): each for each in within if "<" not in each}


def commands_of(some: Iterable[Block]) -> dict[str, str]:
    """The commands in some blocks, as `commands` gives those of a page."""
    found = {}
    for block in some:
        if block.language == SHELL:
            for line in block.text.replace("\\\n", "").splitlines():
                command = _REMARK.sub("", line).strip()
                if command and not command.startswith("#"):
                    found[" ".join(command.split())] = command
    return found


def shows(output: str, shown: str) -> bool:
    """Whether what was printed has the lines that a page shows, in their order, but for numbers; `…` stands for any."""
    printed = iter([_shape(line) for line in output.splitlines()])
    return all(line in printed for line in map(_shape, shown.splitlines()) if line not in {"", "…"})


def _shape(line: str) -> str:
    return " ".join(_VARYING.sub("N", line).split())


class Shell:
    """A shell in a folder; what is exported lasts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment: Mapping[str, str] = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HELM_", "KUBE", "MAKE", "PYTHON"))
        }

    def types(self, commands: str, seconds: float = 120.0) -> str:
        """Type commands; what they printed. The first that fails ends them, and fails the test."""
        exported = self.folder / ".exported"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{commands}\nenv -0 > {exported}"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
        lines = exported.read_text(encoding="utf-8").split("\0")
        self.environment = dict(line.split("=", 1) for line in lines if "=" in line)
        return done.stdout

    @contextlib.contextmanager
    def goes_on(self, command: str) -> Iterator[Callable[[], str]]:
        """Type a command that goes on, and end it with the block; gives what it has printed so far."""
        log = self.folder / f".printed-{secrets.token_hex(4)}"
        with log.open("wb") as output:
            running = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            yield lambda: log.read_text(encoding="utf-8", errors="replace")
        finally:
            running.terminate()
            running.wait(30)
