"""The connection to a cluster, and what is asked of the cluster as a whole."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import rados

# Whoever waits longer than this for one answer of the cluster is told that there is none.
_OPERATION_SECONDS = 5
_QUIET = {
    "log_to_stderr": "false",
    "err_to_stderr": "false",
    "log_file": "",
    "admin_socket": "",
    "keyring": "",
    "rados_mon_op_timeout": str(_OPERATION_SECONDS),
    "rados_osd_op_timeout": str(_OPERATION_SECONDS),
    "client_mount_timeout": str(_OPERATION_SECONDS),
    # An OSD that was started anew has another address, and a client asks the monitors for it only for an operation that
    # is older than this. One that is given up before would be given up for ever.
    "objecter_timeout": "2",
    "objecter_tick_interval": "1",
    # A clone needs no protected snapshot, and its snapshot can be removed before it.
    "rbd_default_clone_format": "2",
}


class Cluster:
    """One cluster as one user."""

    def __init__(self, conf: dict[str, str], user: str, key: str) -> None:
        self.rados = rados.Rados(
            name=f"client.{user}", conffile=rados.Rados.NO_CONF_FILE, conf={**conf, **_QUIET, "key": key}
        )
        self.rados.connect(timeout=_OPERATION_SECONDS)

    def fsid(self) -> str:
        """The cluster's own name for itself."""
        return str(self.rados.get_fsid())

    @contextlib.contextmanager
    def pool(self, name: str, namespace: str = "") -> Iterator[Any]:
        """A pool to work in. Each caller has its own: the version of what was read last is part of it."""
        ioctx = self.rados.open_ioctx(name)
        try:
            ioctx.set_namespace(namespace)
            yield ioctx
        finally:
            ioctx.close()

    def ask_mon(self, **command: object) -> Any:  # noqa: ANN401 - JSON
        """Ask the monitors."""
        return self._answered(self.rados.mon_command(_encoded(command), b"", timeout=_OPERATION_SECONDS), command)

    def ask_mgr(self, **command: object) -> Any:  # noqa: ANN401 - JSON
        """Ask the manager."""
        return self._answered(self.rados.mgr_command(_encoded(command), b"", timeout=_OPERATION_SECONDS), command)

    @staticmethod
    def _answered(answer: tuple[int, bytes, str], command: dict[str, object]) -> Any:  # noqa: ANN401 - JSON
        code, out, said = answer
        if code != 0:
            raise OSError(abs(code), f"{command['prefix']}: {said}")
        try:
            return json.loads(out)
        except ValueError:
            return out.decode("utf-8", "replace")


def _encoded(command: dict[str, object]) -> str:
    return json.dumps({"format": "json", **command})
