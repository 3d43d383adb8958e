"""A stage's rows, its folder's record of what it was trained with, and the lock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from schemas.shard_index import read_index
from schemas.training import TrainingRecipe
from training.stages import check_identity, identity, locked, select_rows, stage_data


def test_the_condition_selects_rows_in_tar_order(dataset):
    index = read_index(dataset / "shards")
    chosen = select_rows(index, "width > height or caption_source = 'raw'", "s")
    expected = [r["key"] for r in index.to_pylist() if r["width"] > r["height"] or r["caption_source"] == "raw"]
    assert chosen["key"].to_pylist() == expected and chosen.schema == index.schema
    assert select_rows(index, None, "s").num_rows == 7


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("widht > 3", r"stage s: where: 'widht > 3' is no condition on the index: .*widht"),
        ("width >", "is no condition on the index"),
        ("width > 100000", "selects no sample"),
        ("key in (select content from read_text('/etc/passwd'))", "is no condition on the index"),
    ],
)
def test_conditions_that_cannot_be(dataset, where, message):
    with pytest.raises(ValueError, match=message):
        select_rows(read_index(dataset / "shards"), where, "s")


def test_no_dataset_is_named(recipe_values, tmp_path):
    recipe = TrainingRecipe.from_mapping(recipe_values | {"dataset": str(tmp_path / "nowhere")})
    with pytest.raises(ValueError, match="no shard index here; build the dataset first"):
        stage_data(recipe, recipe.stages[0])


def test_shapes_suit_the_stage(recipe_values):
    recipe = TrainingRecipe.from_mapping(recipe_values)
    for stage, multiple in zip(recipe.stages, (16, 32), strict=True):
        shapes = stage_data(recipe, stage).shapes
        assert len(shapes) == 7 and all(side % multiple == 0 for shape in shapes for side in shape)


def test_a_changed_knob_is_named(recipe_values, tmp_path):
    def check(values: dict) -> None:
        recipe = TrainingRecipe.from_mapping(values)
        stage = recipe.stages[0]
        check_identity(tmp_path / "stage", identity(recipe, stage, stage_data(recipe, stage).rows))

    check(recipe_values)
    check(recipe_values)
    check(recipe_values | {"keep_checkpoints": 9, "data": recipe_values["data"] | {"threads": 7}})  # numbers stay
    with pytest.raises(ValueError, match=r"was trained with optimizer\.lr = 0.001, the recipe now has 0.002"):
        check(recipe_values | {"optimizer": recipe_values["optimizer"] | {"lr": 0.002}})
    fewer = [recipe_values["stages"][0] | {"where": "width > 70"}]
    with pytest.raises(ValueError, match=r"stage\.where = None, the recipe now has width > 70"):
        check(recipe_values | {"stages": fewer})


def test_another_dataset_is_noticed(recipe_values, dataset, tmp_path):
    recipe = TrainingRecipe.from_mapping(recipe_values)
    rows = read_index(dataset / "shards")
    check_identity(tmp_path / "stage", identity(recipe, recipe.stages[0], rows))
    with pytest.raises(ValueError, match=r"dataset\.samples = 7, the recipe now has 6"):
        check_identity(tmp_path / "stage", identity(recipe, recipe.stages[0], rows.slice(1)))


def test_two_processes_in_one_folder(tmp_path):
    program = (
        f"from pathlib import Path\nfrom training.stages import locked\nwith locked(Path({str(tmp_path)!r})): pass"
    )
    with locked(tmp_path):
        result = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
        )
    assert result.returncode != 0 and "another process is training here" in result.stderr
    with locked(tmp_path):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"), locked(tmp_path / "file" / "out"):
        pass
