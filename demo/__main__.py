"""What the Makefile calls: `prepare` builds what takes long, `up` and `down` make a world to use, `story` tells one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from demo import guest
from demo.cache import BuildError
from demo.controlplane import binaries
from demo.controlplane.plane import ControlPlaneError
from demo.helm import HelmError, program
from demo.story import tell_story
from demo.world import World, WorldError

HOME = Path(".lifeboat")

USAGE = """
The world is up. To use it:

  export KUBECONFIG={kubeconfig} PATH={programs}:$PATH
  kubectl apply -f demo/manifests/1-sitepair.yaml -f demo/manifests/2-protectedserver.yaml
  kubectl get sp,ps,dr,fo
  lifeboat status
  kubectl apply -f demo/manifests/3-drill.yaml          # rehearse; then: lifeboat status orders-db
  kubectl patch dr rehearsal --type=merge -p '{{"spec":{{"running":false}}}}'
  kubectl apply -f demo/manifests/4-failover.yaml       # the bad day

The example server answers at http://127.0.11.5/cgi-bin/rows, its database at 127.0.11.5:5432.
The operator's log is {log}. `make down` ends all of it.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one of the four; failures are told in one message, without a traceback."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("what", choices=("prepare", "up", "down", "story"))
    parser.add_argument("--folder", type=Path, default=HOME, help="where the world lives")
    chosen = parser.parse_args(arguments)
    try:
        match chosen.what:
            case "prepare":
                binaries()
                program()
                for flavour in guest.FLAVOURS:
                    guest.build(flavour)
            case "up":
                world = World(chosen.folder)
                world.up(lambda step: print(f"  {step}", flush=True))
                print(USAGE.format(kubeconfig=world.kubeconfig, programs=world.folder / "bin", log=world.operator_log))
            case "down":
                World(chosen.folder).down()
            case _:
                tell_story(chosen.folder / "story")
    except (BuildError, ControlPlaneError, HelmError, WorldError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
