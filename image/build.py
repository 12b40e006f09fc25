"""Builds the image of the Dockerfile with buildah, as root and without a daemon.

Without a base to build on, one is made here from Debian's packages, so that no registry of images is needed. What is
built is kept in a store of its own, outside the checkout: buildah's usual one may belong to another way of storing.
"""

import os
import subprocess
import tomllib
from pathlib import Path
from typing import Final

from demo.cache import BuildError, cache_root, locked, run, run_with_progress
from demo.packages import Requirement

ROOT: Final = Path(__file__).parent.parent
SUITE: Final = "bookworm"
LOCAL_BASE: Final = f"localhost/lifeboat-base:{SUITE}"
CA_INSIDE: Final = "/run/lifeboat-ca.crt"

REQUIREMENTS: Final = (
    Requirement("buildah", "buildah", ("image",)),
    Requirement("mmdebstrap", "mmdebstrap", ("image",)),
)


def store() -> Path:
    """Return the folder that the images are kept in."""
    return cache_root() / "images"


def buildah(*arguments: str | Path) -> list[str | Path]:
    """Return a command of buildah on our store: a chroot and plain copies work in a sandbox too."""
    folder = store()
    return ["buildah", "--root", folder, "--runroot", folder / "run", "--storage-driver", "vfs", *arguments]


def version() -> str:
    """Return the version that the image gets as its tag."""
    found: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return found


def tag() -> str:
    """Return the name of the image."""
    return f"localhost/lifeboat:{version()}"


def build(base: str | None = None) -> str:
    """Build the image on `base`, or on one that is made here; return its name.

    Raises:
        BuildError: It failed; the message ends with what was said last.
    """
    store().mkdir(parents=True, exist_ok=True)
    with locked(store().with_suffix(".lock"), "another process is building the image: waiting for it"):
        options = ["--isolation", "chroot", "--format", "oci", "--tag", tag(), *_arguments(base or _local_base())]
        command = buildah("build", *options, "--file", ROOT / "Dockerfile", ROOT)
        run_with_progress(f"building {tag()}: about 2 minutes on two cores", [str(each) for each in command])
    return tag()


def _arguments(base: str) -> list[str]:
    given = {"BASE": base, "VERSION": version(), "REVISION": _revision()}
    options = []
    if index := os.environ.get("PIP_INDEX_URL"):
        given["PIP_INDEX_URL"] = index
    if authority := os.environ.get("PIP_CERT"):
        # Behind a proxy with an authority of its own, pip has to trust it while the image is built, and only then.
        options += ["--volume", f"{authority}:{CA_INSIDE}:ro"]
        given["PIP_CERT"] = CA_INSIDE
    for name, value in given.items():
        options += ["--build-arg", f"{name}={value}"]
    return options


def _revision() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def _local_base() -> str:
    """Make a minimal Debian from its packages, once."""
    if subprocess.run(buildah("inspect", LOCAL_BASE), capture_output=True, check=False).returncode == 0:
        return LOCAL_BASE
    archive = store() / "base.tar"
    run_with_progress(
        f"making a base image from Debian {SUITE}'s packages: about a minute, once",
        ["mmdebstrap", "--quiet", "--variant=minbase", SUITE, str(archive)],
    )
    try:
        container = run(buildah("from", "scratch")).strip()
        run(buildah("add", "--quiet", container, archive, "/"))
        run(buildah("commit", "--quiet", "--rm", container, LOCAL_BASE))
    finally:
        archive.unlink(missing_ok=True)
    return LOCAL_BASE


def check_root() -> None:
    """See that the build can work.

    Raises:
        BuildError: it is not run by root.
    """
    if os.geteuid() != 0:
        raise BuildError("the image is built in a chroot, which only root may; anybody may: docker build .")
