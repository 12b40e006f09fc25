"""Debian's packages without installing them: what a package needs, downloaded and unpacked into a folder.

apt resolves and downloads as for a machine that has nothing installed; its verdict on which versions exist is part of
the name under which a finished image is kept.
"""

import os
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo.cache import BuildError, cache_root, locked, run, run_with_progress

OPTIONS: Final = (
    "-qq",
    "-y",
    "-o",
    "APT::Install-Recommends=0",
    "-o",
    "APT::Sandbox::User=",
    "-o",
    "Debug::NoLocking=1",
)


@dataclass(frozen=True, slots=True)
class Package:
    """One version of a package, and the name of the file apt keeps it in."""

    name: str
    version: str
    file: str


def parse_uris(text: str) -> list[Package]:
    """Return the packages of what `apt-get --print-uris install` prints: `'uri' name_version_arch.deb size hash`."""
    packages = []
    for line in text.splitlines():
        if not line.startswith("'"):
            continue
        file = line.split()[1]
        name, version, _ = urllib.parse.unquote(file).split("_")
        packages.append(Package(name, version, file))
    return sorted(packages, key=lambda package: package.name)


def resolve(names: Sequence[str]) -> list[Package]:
    """Return the packages and all that they depend on, in the newest versions this machine's package lists know.

    Raises:
        BuildError: apt knows no such package; as root its lists were refreshed first.
    """
    try:
        return _resolve(names)
    except BuildError:
        if os.geteuid() != 0:
            raise
    refresh()
    return _resolve(names)


def refresh() -> None:
    """Refresh apt's package lists, which only root may."""
    run_with_progress("refreshing the package lists", ["apt-get", "-qq", "update"])


def unpack(names: Sequence[str], only: Sequence[Package], root: Path) -> None:
    """Download what `resolve(names)` returned, where it is not there yet, and unpack those packages of it in `only`."""
    archives = cache_root() / "packages"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    with locked(archives / "lock", "another process is downloading packages: waiting for it"), _apt() as apt:
        command = [*apt, "-o", f"Dir::Cache::archives={archives}", "--download-only", "install", *names]
        try:
            run_with_progress(f"downloading Debian packages for {names[0]}", command)
        except BuildError:  # the lists may name a version that was superseded
            if os.geteuid() != 0:
                raise
            refresh()
            run_with_progress("downloading again", command)
        root.mkdir(parents=True, exist_ok=True)
        for package in only:
            file = archives / package.file
            if not file.exists():
                raise BuildError(f"apt did not download {package.name} {package.version}: try again")
            run(["dpkg-deb", "--extract", file, root])


def libraries(root: Path, program: Path) -> list[Path]:
    """Return the loader and the shared libraries under `root` that a program there is linked against."""
    loader = root / "lib64" / "ld-linux-x86-64.so.2"
    folders = [root / "lib/x86_64-linux-gnu", root / "usr/lib/x86_64-linux-gnu"]
    answer = run([loader, "--library-path", ":".join(map(str, folders)), "--list", program])
    found = [loader]
    for line in answer.splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        if arrow:
            path = Path(rest.split(" (", 1)[0])
            if not path.is_relative_to(root):
                raise BuildError(f"{program.name} needs {name}, which none of its packages has")
            found.append(path)
    return found


def _resolve(names: Sequence[str]) -> list[Package]:
    with _apt() as apt:
        return parse_uris(run([*apt, "--print-uris", "install", *names]))


@contextmanager
def _apt() -> Iterator[list[str]]:
    """Yield an apt-get that believes nothing is installed."""
    if shutil.which("apt-get") is None:
        raise BuildError("the guest images are put together from Debian packages: apt-get is needed")
    with tempfile.TemporaryDirectory(prefix="lifeboat-apt-") as scratch:
        status = Path(scratch) / "status"
        status.touch()
        (Path(scratch) / "archives" / "partial").mkdir(parents=True)
        folders = ["-o", f"Dir::State::status={status}", "-o", f"Dir::Cache={scratch}"]
        yield ["apt-get", *OPTIONS, *folders]
