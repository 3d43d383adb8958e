"""Recipes are found by path, and those that come with Sigma by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import recipes
from commands.front_door import app
from schemas.recipe import DataRecipe
from schemas.training import TrainingRecipe


@pytest.mark.parametrize("name", ["folder", "folder.yaml", Path("train_demo")])
def test_a_name_without_a_folder_finds_the_shipped_recipe(
    name: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()  # is no recipe
    assert recipes.find(name) == recipes.SHIPPED[Path(name).stem]


def test_a_file_that_is_there_is_taken_before_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.yaml").write_text("out: mine")
    assert recipes.find("folder.yaml") == Path("folder.yaml")
    assert recipes.find("folder") == recipes.SHIPPED["folder"]


@pytest.mark.parametrize("name", ["no_such", "recipes/none.yaml", "/folder"])
def test_a_recipe_that_is_nowhere_is_refused_with_the_names_there_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"no such recipe file.*ablate_demo, demo, distil_demo, evaluate_demo, folder, train_demo, train_sigma",
    ):
        recipes.find(name)


@pytest.mark.slow
def test_recipe_prints_knobs_and_shipped_recipes() -> None:
    def printed(*words: str) -> str:
        done = CliRunner().invoke(app, ["recipe", *words])
        assert done.exit_code == 0, done.output
        return done.stdout

    knobs = yaml.safe_load(printed())
    assert knobs.keys() == DataRecipe.model_fields.keys()
    assert '#   kind: "webdataset"' in printed(), "the knobs of a source"
    assert yaml.safe_load(printed("train")).keys() == TrainingRecipe.model_fields.keys()
    assert "#   kv_compression: null" in printed("train"), "the knobs of a stage"
    for name, path in recipes.SHIPPED.items():
        assert printed(name) == path.read_text(encoding="utf-8")


def test_a_recipe_to_print_that_there_is_not_is_refused_with_those_there_are() -> None:
    done = CliRunner().invoke(app, ["recipe", "flower"])
    assert done.exit_code == 1
    assert (
        "flower: no such recipe; there are data, train, ablation, evaluation, evaluation-set, judge, ablate_demo, "
        in " ".join(done.output.split())
    )
