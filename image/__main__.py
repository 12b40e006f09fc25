"""`python -m image build [--base IMAGE]` makes the operator's image, `sbom` lists what is in it."""

import argparse
import shlex
import sys
from pathlib import Path

from demo.cache import BuildError
from demo.packages import ensure
from image import build, sbom


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m image", description=__doc__)
    parser.add_argument("command", choices=("build", "sbom"))
    parser.add_argument("--base", default=None, help="a Debian 12 to build on. Default: one made here")
    chosen = parser.parse_args()
    try:
        build.check_root()
        ensure(build.REQUIREMENTS)
        if chosen.command == "sbom":
            print(f"{sbom.write(Path('dist'))} lists what is in {build.tag()}.")
            return 0
        tag = build.build(chosen.base or None)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    push = build.buildah("push", tag, f"docker://REGISTRY/lifeboat:{build.version()}")
    print(f"{tag} is built. To bring it to a registry:\n  {shlex.join(map(str, push))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
