"""What the Makefile calls: `prepare` builds what takes long, `up` and `down` make a world to use, `story` tells one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from demo import guest, packages
from demo.cache import BuildError
from demo.ceph import CephError
from demo.ceph.world import CephWorld
from demo.controlplane import binaries
from demo.controlplane.plane import ControlPlaneError
from demo.helm import HelmError, program
from demo.story import tell_story
from demo.world import World, WorldError

ENGINES: Mapping[str, Callable[[Path], World]] = {"qemu": World, "ceph": CephWorld}
HOME = Path(".lifeboat")

USAGE = """
The world is up. To use it:

  export KUBECONFIG={kubeconfig} PATH={programs}:$PATH
  kubectl apply -f demo/manifests/{sitepair} -f demo/manifests/2-protectedserver.yaml
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
    parser.add_argument("--engine", choices=ENGINES, default="qemu", help="what copies the disks")
    chosen = parser.parse_args(arguments)
    make = ENGINES[chosen.engine]
    try:
        match chosen.what:
            case "prepare":
                binaries()
                program()
                packages.ensure(packages.CEPH if chosen.engine == "ceph" else ())
                for flavour in guest.FLAVOURS:
                    guest.build(flavour)
            case "up":
                world = make(chosen.folder)
                world.up(lambda step: print(f"  {step}", flush=True))
                print(
                    USAGE.format(
                        sitepair=world.sitepair,
                        kubeconfig=world.kubeconfig,
                        programs=world.folder / "bin",
                        log=world.operator_log,
                    )
                )
            case "down":
                make(chosen.folder).down()
            case _:
                tell_story(make(chosen.folder / "story"))
    except (BuildError, CephError, ControlPlaneError, HelmError, WorldError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
