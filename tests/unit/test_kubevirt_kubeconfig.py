"""What a Secret may say of the cluster where servers run, and what is said of it when it cannot be used."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import yaml

from lifeboat import kube
from lifeboat.engines.ceph.compute.kubevirt import kubeconfig
from lifeboat.engines.contract import Refused

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
DATA = base64.b64encode(PEM.encode()).decode()
TOKEN = "eyJhbGciOi.secret.token"


def config(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> dict[str, str]:
    """A Secret with a kubeconfig."""
    given = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "elsewhere", "context": {"cluster": "other", "user": "other"}},
            {"name": "here", "context": {"cluster": "zone-b", "user": "lifeboat", "namespace": "x"}},
        ],
        "clusters": [
            {"name": "zone-b", "cluster": cluster or {"server": "https://b:6443/", "certificate-authority-data": DATA}}
        ],
        "users": [{"name": "lifeboat", "user": user or {"token": TOKEN}}],
    }
    return {kubeconfig.KEY: yaml.safe_dump(given)}


def test_the_current_context_is_taken() -> None:
    found = kubeconfig.read(config(), "zone-b")
    assert found == kube.Access("https://b:6443", PEM, token=TOKEN)
    assert TOKEN not in repr(found)
    by_certificate = kubeconfig.read(config(user={"client-certificate-data": DATA, "client-key-data": DATA}), "zone-b")
    assert (by_certificate.token, by_certificate.certificate, by_certificate.key) == (None, PEM, PEM)


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ({}, "has no key kubeconfig"),
        ({"kubeconfig": "a: [b"}, "is no YAML"),
        ({"kubeconfig": "nonsense"}, "no context for its current-context"),
        (config(cluster={"server": "http://b"}), "begin with https://"),
        (config(user={"token": f"{TOKEN}\nX-Other: header"}), "the token of its user cannot be read"),
        (config(user={"exec": {"command": "/bin/sh"}}), "exec of its user .*write the token of a ServiceAccount"),
        (config(user={"auth-provider": {"name": "oidc"}, "token": TOKEN}), "auth-provider of its user"),
        (config(user={"tokenFile": "/var/run/secrets/token"}), "tokenFile of its user .*write token"),
        (config(user={"client-certificate": "/etc/a", "client-key-data": DATA}), "write client-certificate-data"),
        (config(user={"username": "admin", "password": "pass"}), "password of its user"),
        (config(user={"client-certificate-data": DATA}), "its user has no token"),
        (config(cluster={"server": "https://b", "certificate-authority": "/etc/passwd"}), "write certificate-auth"),
        (config(cluster={"server": "https://b", "insecure-skip-tls-verify": True}), "insecure-skip-tls-verify"),
        (config(cluster={"server": "https://b", "proxy-url": "http://x"}), "proxy-url of its cluster"),
        (config(cluster={"server": "https://b", "certificate-authority-data": "%"}), "cannot be read"),
    ],
)
def test_what_would_reach_into_the_operators_host_is_refused(secret: dict[str, str], said: str) -> None:
    with pytest.raises(Refused, match=said) as caught:
        kubeconfig.read(secret, "zone-b")
    assert "zone-b" in str(caught.value)
    assert TOKEN not in str(caught.value)


async def test_certificates_that_are_none_are_said_so() -> None:
    access = kubeconfig.read(config(), "zone-b")
    with pytest.raises(kube.Unusable, match="cannot be read"):
        kube.Kube.reach(access)
