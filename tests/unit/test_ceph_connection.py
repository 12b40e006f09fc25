"""What a Secret of a Ceph cluster may hold, and what is said of it when it cannot be used."""

from __future__ import annotations

import pytest

from lifeboat.engines.ceph import connection, options
from lifeboat.engines.contract import Refused

KEY = "AQBkZWFkYmVlZhAAqKqqqqqqqqqqqqqqqqqqqg=="
KEYRING = f'[client.lifeboat]\n\tkey = {KEY}\n\tcaps mon = "profile rbd"\n'
CONF = """\
[global]
    mon host = 10.0.0.1:6789,10.0.0.2:6789
  fsid = 12-34
log file = /etc/passwd
[osd]
osd data = /x
"""


def test_the_monitors_and_the_user_are_taken_and_nothing_else() -> None:
    found = connection.read({"ceph.conf": CONF, "keyring": KEYRING}, "zone-a")
    assert dict(found.conf) == {"mon_host": "10.0.0.1:6789,10.0.0.2:6789", "fsid": "12-34"}
    assert (found.user, found.key) == ("lifeboat", KEY)
    assert KEY not in repr(found)
    assert KEY not in found.conf_text()
    assert "passwd" not in found.conf_text()


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ({"keyring": KEYRING}, "has no key ceph.conf"),
        ({"ceph.conf": CONF}, "has no key keyring"),
        ({"ceph.conf": "[global]\nfsid = 1\n", "keyring": KEYRING}, "no mon_host"),
        ({"ceph.conf": "[global]\nmon host = $(reboot)\n", "keyring": KEYRING}, "mon_host"),
        ({"ceph.conf": "nonsense", "keyring": KEYRING}, "cannot be read"),
        ({"ceph.conf": CONF, "keyring": f"{KEYRING}[client.admin]\nkey = {KEY}\n"}, "2 users"),
        ({"ceph.conf": CONF, "keyring": "[mon.]\nkey = x\n"}, "0 users"),
        ({"ceph.conf": CONF, "keyring": "[client.lifeboat]\nkey = no key\n"}, "ceph auth get"),
        ({"ceph.conf": CONF, "keyring": KEY}, "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_refused_and_no_secret_is_told(secret: dict[str, str], said: str) -> None:
    with pytest.raises(Refused, match=said) as caught:
        connection.read(secret, "zone-a")
    assert "zone-a" in str(caught.value)
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None, "a parser's own words quote what they stumble on"


SITES = {"primary": {"secretRef": {"name": "a"}}, "recovery": {"secretRef": {"name": "b"}}}


def test_options_name_pools_and_secrets() -> None:
    found = options.read({**SITES, "pools": {"standard": "slow", "ssd": "fast"}})
    assert found.pools.names() == ("slow", "fast")
    assert found.pools.tier("zone-b", use_ssd=True) == "fast"
    assert found.recovery.secret_ref.name == "b"
    with pytest.raises(Refused, match=r"pools\.ssd"):
        options.read(SITES).pools.tier("zone-b", use_ssd=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, r"spec\.engine\.ceph\.primary"),
        ({**SITES, "mode": "snapshot"}, "not built"),
        ({**SITES, "pools": {"standard": "a/b"}}, r"pools\.standard"),
        ({**SITES, "more": 1}, "more"),
    ],
)
def test_options_that_cannot_be_used_are_refused_with_their_place(given: dict[str, object], said: str) -> None:
    with pytest.raises(Refused, match=said):
        options.read(given)
