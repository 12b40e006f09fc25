"""What a whole operator logs, at its most talkative: lines for machines, and no secret in any of them."""

import base64
import json
import logging
from collections.abc import Iterator

import pytest
import yaml
from kubernetes import client

from demo.controlplane import ControlPlane
from lifeboat import logs
from lifeboat.api.drill import Drill
from lifeboat.api.names import SCRIPT_LABEL, SCRIPT_LABEL_VALUE
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.engines import verbs
from lifeboat.engines.contract import Retry
from lifeboat.engines.ledger import ScriptOutcome
from tests.api.operators import Site
from tests.conftest import connect

SECRET = "echo the-password-is-swordfish"
INLINE = "echo a-token-of-mine"
PRINTED = "what-the-script-printed"


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("lifeboat")
    before = (root.handlers[:], root.level, ours.level)
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level, ours.level = before[0], before[1], before[2]


def test_lines_are_for_machines_and_hold_no_secrets(
    control_plane: ControlPlane, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure("json", "DEBUG")
    with connect(control_plane) as connection:
        site = Site(connection, control_plane.kubeconfig)
        site.world.guest.run_script = lambda *_: ScriptOutcome(1, PRINTED)
        metadata = client.V1ObjectMeta(name="script", labels={SCRIPT_LABEL: SCRIPT_LABEL_VALUE})
        site.core.create_namespaced_secret(
            site.namespace, client.V1Secret(metadata=metadata, string_data={"run": SECRET})
        )
        with site.operator():
            site.pair()
            site.world.fail_next(verbs.TakePoint, Retry("the daemon does not answer"))
            site.protect("web")
            site.until_phase(ProtectedServer, "web", "Replicating")
            reference = {"secretKeyRef": {"name": "script", "key": "run"}}
            for name, script in (("secret", reference), ("inline", {"inline": INLINE})):
                site.create(Drill, name, {"serverRef": {"name": "web"}, "instance": {"postScript": script}})
            for name in ("secret", "inline"):
                site.until_phase(Drill, name, "Running")
    text = capfd.readouterr().err
    lines = [json.loads(line) for line in text.splitlines()]
    web = {"kind": "ProtectedServer", "namespace": site.namespace, "name": "web"}
    launched = [line for line in lines if line.get("operation") == "Launch"]
    assert {line["for"] for line in launched} == {"secret", "inline"}
    assert all(line["object"] == web for line in launched)
    failed = next(line for line in lines if line.get("operation") == "TakePoint" and line["level"] == "warning")
    assert "the daemon does not answer" in failed["message"]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    token = yaml.safe_load(control_plane.kubeconfig.read_text(encoding="utf-8"))["users"][0]["user"]["token"]
    for hidden in (SECRET, base64.b64encode(SECRET.encode()).decode(), INLINE, PRINTED, token):
        assert hidden not in text
