"""The committed CRDs are what the models say, and keep the rules that GitOps tools and `kubectl explain` rely on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lifeboat.api import crd
from lifeboat.api.common import Resource

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("folder", crd.FOLDERS, ids=str)
def test_the_committed_files_are_what_the_models_say(folder: Path) -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / folder).iterdir()}
    assert committed == crd.files(), "run python -m lifeboat.api.crd"


def test_check_tells_a_stale_file_and_writing_cures_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "crds"
    assert crd.main(["--check", str(folder)]) == 1
    assert not folder.exists()
    assert crd.main([str(folder)]) == 0
    assert crd.main(["--check", str(folder)]) == 0
    stale = folder / "lifeboat.dev_drills.yaml"
    stale.write_text("old", encoding="utf-8")
    capsys.readouterr()
    assert crd.main(["--check", str(folder)]) == 1
    assert capsys.readouterr().err == f"{stale} differs from the models: run python -m lifeboat.api.crd\n"


def _nodes(schema: dict[str, Any], path: str, *, listed: bool = False) -> Iterator[tuple[str, dict[str, Any], bool]]:
    yield path, schema, listed
    for name, part in schema.get("properties", {}).items():
        yield from _nodes(part, f"{path}.{name}", listed=listed)
    if "items" in schema:
        yield from _nodes(schema["items"], f"{path}[]", listed=True)


@pytest.mark.parametrize("kind", crd.KINDS)
def test_every_field_is_described_and_typed(kind: type[Resource]) -> None:
    version = crd.definition(kind)["spec"]["versions"][0]
    root = version["schema"]["openAPIV3Schema"]
    for part in ("spec", "status"):
        for path, schema, listed in _nodes(root["properties"][part], part):
            assert "type" in schema or schema.get("x-kubernetes-int-or-string"), path
            assert "nullable" not in schema, path
            assert not (listed and "default" in schema), path
            assert not (part == "status" and "default" in schema), path
            if not path.endswith("[]"):
                assert schema["description"].endswith("."), path
            for rule in schema.get("x-kubernetes-validations", ()):
                assert rule["message"], path


@pytest.mark.parametrize("kind", crd.KINDS)
def test_age_is_the_last_column(kind: type[Resource]) -> None:
    assert kind.COLUMNS[-1].name == "Age"


@pytest.mark.parametrize(
    "schema",
    [{"anyOf": [{"type": "string"}, {"type": "object"}]}, {"type": "object", "additionalProperties": False}],
)
def test_what_cannot_be_structural_is_not_let_through(schema: dict[str, Any]) -> None:
    with pytest.raises(NotImplementedError):
        crd.structural(schema, {}, defaults=True)


def test_bounds_and_constants_are_translated() -> None:
    schema = {"type": "integer", "exclusiveMinimum": 0, "title": "Count"}
    assert crd.structural(schema, {}, defaults=True) == {
        "type": "integer",
        "format": "int64",
        "minimum": 0,
        "exclusiveMinimum": True,
    }
    assert crd.structural({"type": "string", "const": "a"}, {}, defaults=True) == {"type": "string", "enum": ["a"]}
