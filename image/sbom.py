"""Says what is in the image: every Debian and every Python package, as CycloneDX, by syft.

syft is built from its Go module, as the control plane of the tests is, and kept outside the checkout.
"""

import os
import tempfile
from pathlib import Path
from typing import Final

from demo import go
from demo.cache import built, cache_root, run
from image import build

MODULE: Final = Path(__file__).parent / "syft"
PACKAGE: Final = "github.com/anchore/syft/cmd/syft"


def syft() -> Path:
    """Return the program, building it if need be."""
    return built(cache_root() / f"syft-{go.fingerprint(MODULE)}", "syft", _build)


def _build(target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{target.name}-", dir=target.parent) as scratch:
        made = Path(scratch) / "syft"
        what = "building syft from its Go module: about 4 minutes on two cores, once"
        go.run_build(what, go.build_command(go.find_go(), PACKAGE, made), MODULE)
        made.rename(target)


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
