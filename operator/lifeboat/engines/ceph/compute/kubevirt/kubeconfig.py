"""How a cluster where servers run is reached: what a Secret's kubeconfig holds, checked at the edge.

Whoever may write a Secret in a namespace says what stands in it. So nothing in it may start a program, name a file of
the operator's host or send the operator through a proxy, as a kubeconfig of a person's own may; what is needed stands
in it as data. Nothing of it shows in a message.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import yaml

from lifeboat.engines.contract import Refused
from lifeboat.kube import Access

KEY = "kubeconfig"
_CLUSTER = {"certificate-authority-data", "server", "tls-server-name", "extensions", "disable-compression"}
_USER = {"client-certificate-data", "client-key-data", "token", "extensions"}
_INSTEAD = {
    "certificate-authority": "certificate-authority-data",
    "insecure-skip-tls-verify": "certificate-authority-data",
    "proxy-url": "the address of an API server that the operator reaches",
    "client-certificate": "client-certificate-data",
    "client-key": "client-key-data",
    "tokenFile": "token",
}
_ACCOUNT = "the token of a ServiceAccount"


def read(secret: Mapping[str, str], name: str) -> Access:
    """The API server that the Secret of this name leads to, and as whom.

    Raises:
        Refused: it leads to none; the message says what is wrong, and nothing of what is there.
    """
    if KEY not in secret:
        raise Refused(f"Secret {name} has no key {KEY}: it takes a kubeconfig of the cluster where the servers run")
    where = f"{KEY} in Secret {name}"
    try:
        found = yaml.safe_load(secret[KEY])
    except yaml.YAMLError:
        raise Refused(f"{where} is no YAML; `kubectl config view --raw --minify --flatten` prints one") from None
    config = found if isinstance(found, dict) else {}
    context = _part(config, "contexts", config.get("current-context"), "context", where)
    cluster = _part(config, "clusters", context.get("cluster"), "cluster", where)
    user = _part(config, "users", context.get("user"), "user", where)
    _only(cluster, _CLUSTER, "cluster", where)
    _only(user, _USER, "user", where)
    server = cluster.get("server")
    if not isinstance(server, str) or not server.startswith("https://"):
        raise Refused(f"{where}: the server of its cluster has to begin with https://")
    token, certificate, key = (user.get(each) for each in ("token", "client-certificate-data", "client-key-data"))
    if token is None and (certificate is None or key is None):
        raise Refused(f"{where}: its user has no token; write {_ACCOUNT}")
    server_name = cluster.get("tls-server-name")
    return Access(
        server=server.rstrip("/"),
        authority=_pem(cluster.get("certificate-authority-data"), "certificate-authority-data", where),
        server_name=None if server_name is None else str(server_name),
        token=None if token is None else _token(token, where),
        certificate=_pem(certificate, "client-certificate-data", where),
        key=_pem(key, "client-key-data", where),
    )


def _part(config: Mapping[str, object], kind: str, name: object, what: str, where: str) -> Mapping[str, object]:
    entries = config.get(kind)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and name is not None and entry.get("name") == name:
            part = entry.get(what)
            if isinstance(part, dict):
                return part
    raise Refused(f"{where} has no {what} for its current-context: `kubectl config view --raw --minify` prints one")


def _only(part: Mapping[str, object], allowed: set[str], what: str, where: str) -> None:
    for option, value in part.items():
        if option not in allowed and value:
            instead = _INSTEAD.get(option, _ACCOUNT if what == "user" else "nothing for it")
            raise Refused(f"{where}: {option} of its {what} is not taken from a Secret; write {instead} instead")


def _pem(value: object, option: str, where: str) -> str | None:
    if value is None:
        return None
    try:
        return base64.b64decode(str(value), validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        raise Refused(f"{where}: {option} cannot be read") from None


def _token(value: object, where: str) -> str:
    text = str(value).strip()
    if not text or not text.isascii() or not text.isprintable():
        raise Refused(f"{where}: the token of its user cannot be read")
    return text
