"""How a cluster is reached: what a Secret holds, checked at the edge.

A Secret has two keys, as people have the files: `ceph.conf` and `keyring`. Of the first only what says where the
monitors are and how to talk to them is taken; the rest of such a file is about servers and about paths of the host
that it comes from, and is left out. The key never shows: not in a log, not in a message, not on a command line.
"""

from __future__ import annotations

import base64
import binascii
import configparser
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lifeboat.engines.contract import Refused

CONF = "ceph.conf"
KEYRING = "keyring"
_TAKEN = frozenset(
    {
        *("fsid", "mon_host", "public_network", "ms_bind_msgr1", "ms_bind_msgr2", "ms_bind_ipv4", "ms_bind_ipv6"),
        *("auth_client_required", "auth_cluster_required", "auth_service_required"),
        *("ms_client_mode", "ms_cluster_mode", "ms_service_mode", "ms_mon_client_mode"),
    }
)
_VALUE = re.compile(r"[A-Za-z0-9.,:;/ \[\]_-]{1,2000}")
_USER = re.compile(r"client\.([A-Za-z0-9][A-Za-z0-9._-]{0,99})")


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a cluster is and as whom to speak to it."""

    conf: tuple[tuple[str, str], ...]
    user: str
    key: str = field(repr=False)

    def conf_text(self) -> str:
        """A ceph.conf of it that holds nothing secret, for programs that take a file."""
        return "".join(("[global]\n", *(f"{name} = {value}\n" for name, value in self.conf)))


def read(secret: Mapping[str, str], name: str) -> Connection:
    """The connection that the Secret of this name holds.

    Raises:
        Refused: it does not hold one; the message says what is missing, and nothing of what is there.
    """
    for key in (CONF, KEYRING):
        if key not in secret:
            raise Refused(f"Secret {name} has no key {key}: it takes the cluster's {CONF} and the user's {KEYRING}")
    conf = _conf(secret[CONF], name)
    user, key = _user(secret[KEYRING], name)
    return Connection(tuple(sorted(conf.items())), user, key)


def _conf(text: str, secret: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for option, value in _section(text, "global", f"{CONF} in Secret {secret}").items():
        plain = re.sub(r"[\s-]+", "_", option.strip().lower())
        if plain not in _TAKEN:
            continue
        if not _VALUE.fullmatch(value):
            raise Refused(f"{CONF} in Secret {secret}: the value of {plain} has characters that no address has")
        found[plain] = value
    if "mon_host" not in found:
        raise Refused(f"{CONF} in Secret {secret} has no mon_host in [global]: write the monitors' addresses there")
    return found


def _user(text: str, secret: str) -> tuple[str, str]:
    where = f"{KEYRING} in Secret {secret}"
    users = [each for each in _parsed(text, where).sections() if _USER.fullmatch(each)]
    if len(users) != 1:
        raise Refused(f"{where} has {len(users)} users: leave one section [client.NAME] with its key in it")
    key = _section(text, users[0], where).get("key", "")
    try:
        decoded = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if not decoded:
        raise Refused(f"{where}: user {users[0]} has no key that can be read; `ceph auth get {users[0]}` prints one")
    return users[0].removeprefix("client."), key


def _section(text: str, section: str, where: str) -> Mapping[str, str]:
    parsed = _parsed(text, where)
    return dict(parsed[section]) if parsed.has_section(section) else {}


def _parsed(text: str, where: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    try:
        # Ceph indents as it likes, and a parser takes that for a line that goes on.
        parser.read_string("\n".join(line.strip() for line in text.splitlines()))
    except configparser.Error:
        # The parser's own message quotes the line, which may be the key's.
        raise Refused(f"{where} cannot be read: it is no file with [sections] and lines NAME = VALUE") from None
    return parser
