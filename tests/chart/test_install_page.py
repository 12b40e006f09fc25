"""The page about installing is gone through, command by command as they stand there, with the real Helm and kubectl."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from demo.controlplane import ControlPlane, binaries
from demo.helm import CHART, program
from tests import pages
from tests.chart import prometheus_operator
from tests.pages import ROOT

PAGE = ROOT / "docs" / "how-to" / "install.md"
IN_A_POD = " exec "
"""Nobody starts pods here; tests/image does in the image what these do."""


class Reader:
    """Somebody who follows the page on a machine with a checkout, Helm, kubectl and a cluster."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self.folder = folder
        programs = folder / "bin"
        programs.mkdir()
        (programs / "helm").symlink_to(program())
        (programs / "kubectl").symlink_to(binaries() / "kubectl")
        for each in ("charts", "crds", "demo"):
            (folder / each).symlink_to(ROOT / each)
        self.shell = pages.Shell(folder)
        self.shell.types(f"export HOME={folder} KUBECONFIG={plane.kubeconfig} PATH={programs}:$PATH")

    def saves(self, block: str) -> None:
        """Save a file that begins with its name."""
        name = block.partition("\n")[0].removeprefix("# ")
        (self.folder / name).write_text(block, encoding="utf-8")

    def deploys(self) -> None:
        """Say of each Deployment that its pods run, as the cluster would once they do."""
        for each in json.loads(self.plane.kubectl("get", "deploy", "--all-namespaces", "--output=json"))["items"]:
            wanted = each["spec"]["replicas"]
            counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), wanted)
            status = {"observedGeneration": each["metadata"]["generation"], **counts}
            name, namespace = each["metadata"]["name"], each["metadata"]["namespace"]
            options = ["--subresource=status", "--type=merge", f"--patch={json.dumps({'status': status})}"]
            self.plane.kubectl("patch", "deploy", name, f"--namespace={namespace}", *options)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with ControlPlane(tmp_path / "controlplane") as plane:
        prometheus_operator.install(plane)
        yield Reader(plane, tmp_path)


def answer(said: list[tuple[str, str]], words: str) -> str:
    """What the first block with these words printed."""
    return next(answer for block, answer in said if words in block)


def test_every_command_on_the_page_does_what_it_says(reader: Reader) -> None:
    said, left_out = [], []
    for block in pages.blocks(PAGE):
        if block.language == "yaml":
            reader.saves(block.text)
        elif block.language == pages.SHELL and IN_A_POD in block.text:
            left_out.append(block)
        elif block.language == pages.SHELL:
            said.append((block.text, reader.shell.types(block.text)))
            reader.deploys()
    assert len(left_out) == 1
    assert 'deployment "lifeboat" successfully rolled out' in answer(said, "rollout status")
    assert answer(said, "can-i").endswith("yes\n")
    assert "Rollback was a success" in answer(said, "helm history")
    assert "sitepairs.lifeboat.dev" in answer(said, "helm uninstall")
    assert "FOR EVALUATION ONLY" in answer(said, "examples/evaluation.yaml")
    assert "orders-db" in answer(said, "demo/manifests")


def test_every_value_on_the_page_is_one_of_the_chart() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    named = re.findall(r"`([a-zA-Z.]+)`", "".join(re.findall(r"^\| `.*?\|", PAGE.read_text("utf-8"), re.MULTILINE)))
    assert len(named) > 30
    for path in named:
        found = values
        for part in path.split("."):
            assert part in found, path
            found = found[part]
