"""Starts what is in the image as a restricted pod would, and asks it how it is."""

import shlex
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STATE = "/var/lib/lifeboat"
ENTER = "lifeboat-enter"


def command(
    root: Path,
    settings: dict[str, Any],
    mounts: Mapping[str, Path],
    *arguments: str,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """Start something in the image: what it may write on is what is mounted. The process becomes it."""
    inside = shlex.quote(str(root))
    user, _, group = settings["User"].partition(":")
    nobody = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
    given = [*settings["Env"], *(f"{name}={value}" for name, value in (environment or {}).items())]
    become = shlex.join([*nobody, "--inh-caps=-all", "env", "-i", "-C", settings["WorkingDir"], *given])
    places = "".join(f"mkdir -p {inside}{place}\n" for place in mounts)
    mounted = "".join(f"mount --bind {shlex.quote(str(source))} {inside}{place}\n" for place, source in mounts.items())
    script = f"""
        {places}
        mount --bind {inside} {inside}
        mount --options remount,bind,ro {inside}
        mount --types proc proc {inside}/proc
        mount --rbind /dev {inside}/dev
        {mounted}
        exec chroot {inside} {become} "$@"
    """
    return ["unshare", "--mount", "sh", "-euc", script, ENTER, *arguments]


def page(port: int, path: str) -> str:
    """What the operator answers; nothing while it does not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""
