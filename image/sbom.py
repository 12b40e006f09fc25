"""Says what is in the image: every Debian and every Python package, as CycloneDX, by syft.

syft is built from its Go module, as the control plane of the tests is, and kept outside the checkout.
"""

import os
import tempfile
from pathlib import Path
from typing import Final

from demo.cache import cache_root, locked, run, run_with_progress
from demo.controlplane.build import find_go, fingerprint
from image import build

MODULE: Final = Path(__file__).parent / "syft"
PACKAGE: Final = "github.com/anchore/syft/cmd/syft"


def syft() -> Path:
    """Return the program, building it if need be."""
    target = cache_root() / f"syft-{fingerprint(MODULE)}"
    with locked(target.with_suffix(".lock"), "another process is building syft: waiting for it"):
        if not target.exists():
            with tempfile.TemporaryDirectory(prefix=f"{target.name}-", dir=target.parent) as scratch:
                made = Path(scratch) / "syft"
                options = ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", str(made)]
                run_with_progress(
                    "building syft from its Go module: about 4 minutes on two cores, once",
                    [str(find_go()), "build", *options, PACKAGE],
                    cwd=MODULE,
                    env={**os.environ, "CGO_ENABLED": "0"},
                )
                made.rename(target)
    return target


def write(folder: Path) -> Path:
    """Write the list for the image that was built last, and return its file.

    Raises:
        BuildError: There is no image yet, or syft failed.
    """
    program = syft()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"lifeboat-{build.version()}.cdx.json"
    container = run(build.buildah("from", "--pull-never", build.tag())).strip()
    try:
        root = run(build.buildah("mount", container)).strip()
        named = ["--source-name", "lifeboat", "--source-version", build.version()]
        only_packages = {**os.environ, "SYFT_FILE_METADATA_SELECTION": "none", "SYFT_CHECK_FOR_APP_UPDATE": "false"}
        run(
            [program, "scan", "--quiet", f"dir:{root}", *named, "--output", f"cyclonedx-json={path}"], env=only_packages
        )
    finally:
        run(build.buildah("rm", container))
    return path
