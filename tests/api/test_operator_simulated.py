"""The whole operator against a real API server, with the simulated engine: what people see, and what is not written."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pydantic
import pytest
from kubernetes import client

from demo.controlplane import ControlPlane
from lifeboat.api.drill import Drill
from lifeboat.api.failover import Failover
from lifeboat.api.names import FINALIZER
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.api.sitepair import SitePair
from lifeboat.engines import verbs
from lifeboat.engines.contract import Refused, Retry
from lifeboat.world import World
from tests.api.operators import Operator, Site
from tests.conftest import connect, install_crds


@pytest.fixture
def site(control_plane: ControlPlane) -> Iterator[Site]:
    with connect(control_plane) as connection:
        yield Site(connection, control_plane.kubeconfig)


@pytest.fixture
def operator(site: Site) -> Iterator[Operator]:
    with site.operator() as running:
        yield running


def protected(site: Site, *server_ids: str) -> None:
    site.pair()
    for server_id in server_ids:
        site.protect(server_id)
    for server_id in server_ids:
        site.until_phase(ProtectedServer, server_id, "Replicating")


def page(operator: Operator, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{operator.port}{path}", timeout=30) as answer:
        return str(answer.read().decode())


class Application(BaseHTTPRequestHandler):
    """What a recovered server serves."""

    def do_GET(self) -> None:
        body = b"the shop is open"
        self.send_response(200 if self.path == "/shop" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def application() -> Iterator[tuple[str, int]]:
    server = HTTPServer(("127.0.0.1", 0), Application)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield "127.0.0.1", server.server_address[1]
    server.shutdown()
    server.server_close()


def test_a_pair_is_ready_and_a_server_replicates(site: Site, operator: Operator) -> None:
    protected(site, "web")
    site.until(lambda: site.condition(SitePair, "pair", "Ready") == ("True", "SitesAnswer"))
    site.until(lambda: site.get(SitePair, "pair")["status"]["servers"]["replicating"] == 1)
    server = site.get(ProtectedServer, "web")
    assert server["metadata"]["finalizers"] == [FINALIZER]
    assert site.condition(ProtectedServer, "web", "Ready")[0] == "True"
    assert server["status"]["recoveryPointCount"] == 1
    owners = {m["manager"]: m["operation"] for m in server["metadata"]["managedFields"] if m.get("subresource")}
    assert owners == {"lifeboat": "Apply"}
    assert "lifeboat_leader 1.0" in page(operator, "/metrics")
    phase = f'lifeboat_server_phase{{name="web",namespace="{site.namespace}",phase="Replicating"}} 1.0'
    assert phase in page(operator, "/metrics")
    assert page(operator, "/healthz") == page(operator, "/readyz") == "ok\n"


def test_a_drill_runs_with_passed_checks_and_is_cleared(
    site: Site, operator: Operator, application: tuple[str, int]
) -> None:
    protected(site, "web")
    site.world.guest.ports["drill-rehearsal", 80] = application
    checks = [
        {"name": "shop", "httpGet": {"port": 80, "path": "/shop", "contains": "open"}},
        {"name": "tcp", "tcpSocket": {"port": 80}},
        {"name": "data", "exec": {"command": ["true"]}},
    ]
    spec = {"serverRef": {"name": "web"}, "checks": checks, "instance": {"postScript": {"inline": "echo hello"}}}
    site.create(Drill, "rehearsal", spec)
    site.until_phase(Drill, "rehearsal", "Running")
    status = site.get(Drill, "rehearsal")["status"]
    assert status["result"] == "Passed", status
    assert {check["name"]: check["result"] for check in status["checks"]} == dict.fromkeys(
        ("shop", "tcp", "data"), "Passed"
    )
    assert status["postScript"]["exitCode"] == 0
    assert "lifeboat_drill_rto_seconds" in page(operator, "/metrics")
    site.edit(Drill, "rehearsal", {"running": False})
    site.until_phase(Drill, "rehearsal", "CleanedUp")
    assert site.get(Drill, "rehearsal")["status"]["result"] == "Passed"
    site.delete(Drill, "rehearsal")
    site.until(lambda: not site.exists(Drill, "rehearsal"))
    site.until(lambda: 'lifeboat_drill_rto_seconds{name="rehearsal"' not in page(operator, "/metrics"))
    assert site.phase(ProtectedServer, "web") == "Replicating"


@pytest.mark.usefixtures("operator")
def test_a_failing_check_is_a_failed_drill_that_goes_on_running(site: Site) -> None:
    protected(site, "web")
    checks = [{"name": "no", "exec": {"command": ["false"]}, "timeoutSeconds": 2}]
    site.create(Drill, "bad", {"serverRef": {"name": "web"}, "checks": checks})
    site.until_phase(Drill, "bad", "Running")
    assert site.get(Drill, "bad")["status"]["result"] == "Failed"
    assert site.condition(Drill, "bad", "Stalled")[0] == "True"


@pytest.mark.usefixtures("operator")
def test_a_failover_awaits_commit_and_commits(site: Site) -> None:
    protected(site, "web")
    written = site.world.write("web")
    created = site.create(Failover, "go", {"serverRef": {"name": "web"}})
    took = site.until(lambda: site.phase(Failover, "go") is not None)
    assert took < 1, "a failover is looked at when it is created, not at the next poll"
    site.until_phase(Failover, "go", "AwaitingCommit")
    site.until_phase(ProtectedServer, "web", "FailedOver")
    assert site.world.contents("web", "failover-1-1") == written
    assert not site.world.running("web")
    assert site.condition(Failover, "go", "SourceFenced")[0] == "True"
    told = [event for event in site.events() if event.involved_object.name == "go"]
    assert told
    assert {event.involved_object.uid for event in told} == {created["metadata"]["uid"]}
    assert {event.reporting_component for event in told} == {"lifeboat"}
    site.edit(Failover, "go", {"commit": True})
    site.until_phase(Failover, "go", "Committed")
    site.until_phase(ProtectedServer, "web", "Committed")


@pytest.mark.usefixtures("operator")
def test_nothing_is_written_while_nothing_changes(site: Site) -> None:
    protected(site, "web", "db")
    site.create(Drill, "idle", {"serverRef": {"name": "web"}})
    site.create(Drill, "orphan", {"serverRef": {"name": "nobody"}})
    site.until_phase(Drill, "idle", "Running")
    before = site.until_quiet()
    time.sleep(3)
    assert site.versions() == before


def test_a_restart_changes_nothing(site: Site) -> None:
    with site.operator():
        protected(site, "web")
        site.create(Failover, "go", {"serverRef": {"name": "web"}})
        site.until_phase(Failover, "go", "AwaitingCommit")
        before = site.until_quiet()
        done = len(site.world.performed)
    assert site.versions() == before
    with site.operator() as second:
        site.until(lambda: "lifeboat_leader 1.0" in page(second, "/metrics"))
        time.sleep(2)
    assert site.versions() == before
    assert len(site.world.performed) == done


def test_what_the_engine_cannot_do_is_told_and_holds_up_nobody_else(site: Site, operator: Operator) -> None:
    site.pair()
    site.world.fail_next(verbs.StartReplication, Refused("the array is on strike"))
    site.protect("web")
    site.until(lambda: site.phase(ProtectedServer, "web") == "Replicating")
    for _ in range(30):
        site.world.fail_next(verbs.TakePoint, Retry("the daemon does not answer"))
    site.protect("db")
    site.protect("cache")
    site.until(lambda: 'verb="TakePoint"' in page(operator, "/metrics"))
    site.until(lambda: any("not answer" in str(c) for c in site.get(ProtectedServer, "db")["status"]["conditions"]), 5)


@pytest.mark.usefixtures("operator")
def test_orphans_are_told_and_found(site: Site) -> None:
    site.create(Drill, "early", {"serverRef": {"name": "web"}})
    site.until(lambda: site.condition(Drill, "early", "Ready") == ("False", "ServerNotFound"))
    site.protect("web")
    site.until(lambda: site.condition(ProtectedServer, "web", "Ready") == ("False", "SitePairNotFound"))
    site.pair()
    site.until_phase(Drill, "early", "Running")


def test_deletion_in_any_order(site: Site, operator: Operator) -> None:
    protected(site, "web")
    site.create(Drill, "one", {"serverRef": {"name": "web"}})
    site.until_phase(Drill, "one", "Running")
    site.until(lambda: FINALIZER in site.get(SitePair, "pair")["metadata"].get("finalizers", ()))
    site.delete(SitePair, "pair")
    site.delete(ProtectedServer, "web")
    time.sleep(1)
    assert site.exists(SitePair, "pair")
    assert site.exists(ProtectedServer, "web")
    site.delete(Drill, "one")
    for kind, name in ((Drill, "one"), (ProtectedServer, "web"), (SitePair, "pair")):
        site.until(lambda kind=kind, name=name: not site.exists(kind, name))  # type: ignore[misc]
    assert "lifeboat_server_phase{" not in page(operator, "/metrics")
    assert site.world.running("web")


def test_an_object_that_cannot_be_read_stops_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = ProtectedServer.parse

    def picky(body: Any) -> ProtectedServer:
        if body["metadata"]["name"] == "broken":
            raise pydantic.ValidationError.from_exception_data(
                "ProtectedServer", [{"type": "missing", "loc": ("spec", "x"), "input": {}}]
            )
        return parse(body)

    monkeypatch.setattr(ProtectedServer, "parse", picky)
    with site.operator():
        site.pair()
        site.protect("broken")
        site.protect("web")
        site.until_phase(ProtectedServer, "web", "Replicating")
        site.until(lambda: site.condition(ProtectedServer, "broken", "Stalled") == ("True", "InvalidValue"))
        before = site.until_quiet()
        time.sleep(1)
        assert site.versions() == before


@pytest.mark.usefixtures("operator")
def test_secrets_are_read_with_their_label_only_and_their_output_is_dropped(site: Site) -> None:
    protected(site, "web")
    metadata = client.V1ObjectMeta(name="script")
    secret = client.V1Secret(metadata=metadata, string_data={"run": "echo password"})
    site.core.create_namespaced_secret(site.namespace, secret)
    script = {"secretKeyRef": {"name": "script", "key": "run"}}
    site.create(Drill, "secret", {"serverRef": {"name": "web"}, "instance": {"postScript": script}})
    site.until(lambda: site.condition(Drill, "secret", "Ready") == ("False", "ScriptUnavailable"))
    label = {"metadata": {"labels": {"lifeboat.dev/script": "true"}}}
    site.core.patch_namespaced_secret("script", site.namespace, label, _content_type="application/merge-patch+json")
    site.until_phase(Drill, "secret", "Running")
    assert site.get(Drill, "secret")["status"]["postScript"].get("output", "") == ""


def test_a_second_operator_takes_over_from_one_that_stands_still(site: Site) -> None:
    with site.operator() as first, site.operator() as second:
        protected(site, "web")
        leader, follower = (first, second) if "lifeboat_leader 1.0" in page(first, "/metrics") else (second, first)
        assert "lifeboat_leader 0.0" in page(follower, "/metrics")
        assert page(follower, "/readyz") == "ok\n"
        leader.freeze(25)
        began = time.monotonic()
        site.create(Failover, "go", {"serverRef": {"name": "web"}})
        site.until_phase(Failover, "go", "AwaitingCommit", seconds=30)
        assert time.monotonic() - began < 30
        terms = [target.term for target, act in site.world.journal if not isinstance(act, verbs.TakePoint)]
        assert terms == sorted(terms)
        site.until(lambda: "lifeboat_leader 0.0" in page(leader, "/metrics"), 30)
        assert "lifeboat_leader 1.0" in page(follower, "/metrics")
        assert site.phase(Failover, "go") == "AwaitingCommit"


def test_the_command_line_leads_and_lets_go(site: Site, control_plane: ControlPlane) -> None:
    command = [sys.executable, "-m", "lifeboat", "operator", "--http", "127.0.0.1:0", "--log-format", "json"]
    command += [
        "-n",
        site.namespace,
        "--lease-namespace",
        site.namespace,
        "--kubeconfig",
        str(control_plane.kubeconfig),
    ]
    environment = {**os.environ, "PYTHONPATH": "operator"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:

        def holder() -> str | None:
            leases = site.coordination.list_namespaced_lease(site.namespace).items
            return leases[0].spec.holder_identity if leases and leases[0].spec else None

        site.until(lambda: bool(holder()))
        time.sleep(1.5)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert not holder()
    lines = [json.loads(line) for line in said.splitlines()]
    assert {"leading in term 1", "acting", "stopping"} <= {line["message"] for line in lines}


def test_an_outage_of_the_api_server_is_lived_through(tmp_path: Path) -> None:
    with ControlPlane(tmp_path) as plane, connect(plane) as connection:
        install_crds(connection)
        site = Site(connection, plane.kubeconfig)
        with site.operator():
            protected(site, "web")
            plane.stop()
            time.sleep(3)
            with ControlPlane(tmp_path):
                site.create(Failover, "go", {"serverRef": {"name": "web"}})
                assert site.until_phase(Failover, "go", "AwaitingCommit") < 10


def test_a_failover_that_is_gone_does_not_begin(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a torn watch still shows: here the deletion is kept from the operator."""
    monkeypatch.setattr(World, "remove", lambda *_: None)
    with site.operator():
        protected(site, "web")
        site.world.silence("zone-b")
        site.until(lambda: site.condition(ProtectedServer, "web", "Ready")[0] != "True")
        site.create(Failover, "ghost", {"serverRef": {"name": "web"}})
        site.until(lambda: site.phase(Failover, "ghost") == "Pending")
        site.delete(Failover, "ghost")
        time.sleep(0.5)
        monkeypatch.undo()
        site.world.answer("zone-b")
        site.until_phase(ProtectedServer, "web", "Replicating")
        time.sleep(1)
    assert not any(isinstance(verb, verbs.StopReplication) for _, verb in site.world.performed)


def test_a_term_that_the_ledgers_know_is_passed(site: Site) -> None:
    with site.operator():
        protected(site, "web")
    lease = site.coordination.read_namespaced_lease("lifeboat", site.namespace)
    with site.operator() as second:
        site.until(lambda: "lifeboat_leader 1.0" in page(second, "/metrics"))
        site.until_quiet()
    site.coordination.delete_namespaced_lease("lifeboat", site.namespace)
    assert lease.spec is not None
    with site.operator():
        site.create(Failover, "go", {"serverRef": {"name": "web"}})
        site.until_phase(Failover, "go", "AwaitingCommit")
        found = site.coordination.read_namespaced_lease("lifeboat", site.namespace)
        assert found.spec is not None
        assert (found.spec.lease_transitions or 0) > (lease.spec.lease_transitions or 0)
