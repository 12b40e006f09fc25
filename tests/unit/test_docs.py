"""The documentation says what is: generated pages are fresh, links lead somewhere, and what is shown can be applied."""

import inspect
import itertools
import json
import re
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.packages import REQUIREMENTS
from lifeboat import cli, reference, settings
from lifeboat.api import crd, names
from lifeboat.api.common import Resource
from lifeboat.api.protectedserver import ProtectedServerPhase
from lifeboat.engines.qemu.inventory import load
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.phases import TRANSITIONS
from tests import pages
from tests.lifecycle import picture

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
MANIFESTS = sorted([*(ROOT / "demo" / "manifests").glob("*.yaml"), *(ROOT / "argocd" / "examples").glob("*/*.yaml")])
KINDS: dict[str, type[Resource]] = {kind.__name__: kind for kind in crd.KINDS}

LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
RESOURCES = {
    "events", "configmap", "lease", "crd", "pvc", names.CATEGORY,
    *(name for kind in KINDS.values() for name in (kind.__name__.lower(), kind.PLURAL, kind.SHORT_NAME)),
}  # fmt: skip
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(" ".join(re.findall(r"^([a-z][a-z -]*):", MAKEFILE, re.MULTILINE)).split())


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, language: str) -> Iterator[str]:
    return (block.text for block in pages.blocks(page) if block.language == language)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", pages.prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path, program: str) -> Iterator[list[str]]:
    """The commands of that program which the page tells to type, in blocks and in lines, as lists of words."""
    shown = [block.text for block in pages.blocks(page)] + CODE.findall(pages.prose(page))
    for each in "\n".join(shown).replace("\\\n", " ").splitlines():
        # A pipe, a list of commands: this one and no further.
        words = shlex.split(re.split(r" && | \| |; ", each.strip())[0], comments=True) if program in each else []
        if words and words[0] == program:
            yield words[1:]


def schema_of(resource: str) -> dict[str, Any]:
    """The schema of the spec of what kubectl calls a resource."""
    kind = next(k for k in KINDS.values() if resource in {k.__name__.lower(), k.PLURAL, k.SHORT_NAME})
    schema: dict[str, Any] = crd.definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def objects_of(text: str) -> Iterator[dict[str, Any]]:
    for found in yaml.safe_load_all(text):
        if isinstance(found, dict) and str(found.get("apiVersion", "")).startswith(f"{names.GROUP}/"):
            yield found


def unknown_fields(given: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    """What strict validation, kubectl's default, would refuse: the models read past it."""
    if isinstance(given, list):
        for each in given:
            yield from unknown_fields(each, schema["items"], f"{path}[]")
    elif isinstance(given, dict):
        for name, part in given.items():
            if name not in schema.get("properties", {}):
                yield f"{path}.{name}"
            else:
                yield from unknown_fields(part, schema["properties"][name], f"{path}.{name}")


def assert_can_be_applied(given: dict[str, Any]) -> None:
    assert given["apiVersion"] == names.API_VERSION
    kind = KINDS[given["kind"]]
    metadata = given["metadata"]
    named = {"name": f"{metadata['generateName']}1", **metadata} if "generateName" in metadata else metadata
    kind.parse({**given, "metadata": named})
    schema = crd.definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert not list(unknown_fields(given["spec"], schema["properties"]["spec"], "spec"))


# --- generated pages


def test_the_committed_reference_is_what_the_code_says() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "reference").iterdir()}
    assert committed == reference.files(), "run python -m lifeboat.reference docs/reference"


def test_check_tells_a_stale_page_and_writing_cures_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "reference"
    assert reference.main(["--check", str(folder)]) == 1
    assert not folder.exists()
    assert reference.main([str(folder)]) == 0
    (folder / "reasons.md").write_text("old", encoding="utf-8")
    capsys.readouterr()
    assert reference.main(["--check", str(folder)]) == 1
    assert capsys.readouterr().err.startswith(f"{folder / 'reasons.md'} differs")
    assert reference.main([str(folder)]) == 0
    assert reference.main(["--check", str(folder)]) == 0


def test_every_reason_is_in_the_reference() -> None:
    page = reference.files()["reasons.md"]
    values = re.findall(r'Final = "(\w+)"', inspect.getsource(reasons))
    assert len(values) > 50
    assert [value for value in values if f"| `{value}` |" not in page] == []


def test_a_reason_without_a_comment_is_not_let_through() -> None:
    with pytest.raises(ValueError, match="Bare"):
        reference.listed_reasons('# --- Some ------\n\n# Said.\nSAID: Final = "Said"\nBARE: Final = "Bare"\n')


def test_every_row_of_a_reference_table_has_all_its_cells() -> None:
    for name, text in reference.files().items():
        width = 0
        for line in text.splitlines():
            cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
            assert not (width and cells) or cells == width, (name, line)
            width = cells


# --- written pages


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(pages.prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        leads_to = (page.parent / path).resolve() if path else page
        assert leads_to.exists(), target
        assert not anchor or anchor in anchors(leads_to), target


def test_every_page_is_reached_from_the_index() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / target.partition("#")[0]).resolve() for target in LINK.findall(pages.prose(index))}
    assert [relative(page) for page in DOCS.rglob("*.md") if page != index and page.resolve() not in linked] == []


@pytest.mark.parametrize("manifest", MANIFESTS, ids=relative)
def test_every_example_manifest_can_be_applied(manifest: Path) -> None:
    found = list(objects_of(manifest.read_text(encoding="utf-8")))
    assert found
    for each in found:
        assert_can_be_applied(each)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_object_on_a_page_can_be_applied(page: Path) -> None:
    for text in blocks(page, "yaml"):
        for each in objects_of(text):
            assert_can_be_applied(each)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_command_on_a_page_can_be_typed(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(page, "make"):
        assert [word for word in words if "=" not in word and word not in TARGETS] == []
    for words in commands(page, "lifeboat"):
        try:
            # A command that is named only, without what it needs, has to be there.
            cli.parser().parse_args(words if len(words) > 1 else [*words, "--help"])
        except SystemExit as ended:
            if ended.code:
                pytest.fail(f"lifeboat {shlex.join(words)}: {capsys.readouterr().err}")
    for words in commands(page, "kubectl"):
        assert_kubectl_takes(words)


def assert_kubectl_takes(words: list[str]) -> None:
    """What it is about exists: the kinds, the files, and each field of a patch."""
    verb, *rest = words[2:] if words[0] == "-n" else words
    for option, file in itertools.pairwise(words):
        assert option not in {"-f", "--patch-file"} or (ROOT / file).exists(), file
    if verb in {"apply", "rollout", "create", "auth", "exec"}:
        return
    assert verb in {"get", "describe", "patch", "delete", "annotate", "wait", "explain"}, verb
    about = [word for word in rest if not word.startswith("-")]
    for resource in re.split(r"[/.]", about[0])[0].split(",") if about else ():
        assert resource in RESOURCES, resource
    if verb == "patch" and "-p" in rest:
        patch = json.loads(rest[rest.index("-p") + 1])
        assert "--type=merge" in rest
        assert not list(unknown_fields(patch, schema_of(about[0]), about[0]))


def test_a_command_that_cannot_be_typed_would_be_found() -> None:
    for bad in (
        ["get", "protectedservices"],
        ["patch", "fo", "x", "--type=merge", "-p", '{"spec":{"commited":true}}'],
        ["apply", "-f", "demo/manifests/9-nothing.yaml"],
    ):
        with pytest.raises(AssertionError):
            assert_kubectl_takes(bad)


def test_the_pages_show_each_kind() -> None:
    shown = {each["kind"] for page in PAGES for text in blocks(page, "yaml") for each in objects_of(text)}
    assert shown == set(KINDS)


def test_a_misspelt_field_on_a_page_would_be_found() -> None:
    given = yaml.safe_load(next(blocks(DOCS / "how-to" / "drill.md", "yaml")))
    given["spec"]["checks"][0]["tcpSockets"] = {}
    with pytest.raises(AssertionError, match="tcpSockets"):
        assert_can_be_applied(given)


def test_the_inventory_on_the_page_can_be_used(tmp_path: Path) -> None:
    text = next(text for text in blocks(DOCS / "operations.md", "yaml") if text.startswith("zone: "))
    path = tmp_path / "zone-b" / "inventory.yaml"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    inventory = load(path)
    assert set(inventory.model_dump(exclude={"kind"}, exclude_unset=True)) == type(inventory).model_fields.keys() - {
        "kind"
    }


def test_every_option_of_the_operator_is_on_the_page() -> None:
    parser = ArgumentParser()
    settings.add_arguments(parser, {})
    options = {option for option in re.findall(r"--[a-z-]+", parser.format_help()) if option != "--help"}
    page = (DOCS / "operations.md").read_text(encoding="utf-8")
    assert [option for option in sorted(options) if f"| `{option}`" not in page] == []


def test_the_picture_of_the_phases_is_true() -> None:
    picture = next(text for text in blocks(DOCS / "concepts.md", "mermaid") if text.startswith("stateDiagram"))
    arrows = re.findall(r"(\w+) --> (\w+)", picture)
    assert len(arrows) > 15
    for before, after in arrows:
        assert ProtectedServerPhase(after) in TRANSITIONS[ProtectedServerPhase(before)], (before, after)
    shown = {phase for arrow in arrows for phase in arrow}
    assert shown == {phase.value for phase in TRANSITIONS}


def test_the_picture_of_every_transition_is_drawn_from_the_table() -> None:
    page = picture.PAGE.read_text(encoding="utf-8")
    assert page == picture.drawn(page), "run python -m tests.lifecycle.picture"


def test_the_readme_names_what_has_to_be_installed() -> None:
    """But for dpkg and apt, which every Debian has."""
    named = set(re.findall(r"[a-z0-9-]+", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {each.package for each in REQUIREMENTS} - {"apt", "dpkg"} <= named
