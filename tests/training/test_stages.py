"""A stage's rows, its folder's record of what it was trained with, and the lock."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest

from schemas.shard_index import ShardIndex, read_index
from schemas.training import TrainingRecipe
from tests.processes import run_python
from training.data.selection import Selection, select_rows
from training.identity import check_identity, identity, rows_sha256
from training.stages import locked, stage_data


def ids(rows: Selection) -> list[str]:
    return [row for part in rows.parts(["image_id"]) for row in part["image_id"].to_pylist()]


@pytest.mark.parametrize("part_rows", [2, 100])
def test_the_condition_selects_rows_in_tar_order(dataset, part_rows):
    table = read_index(dataset / "shards")
    index = ShardIndex.of(table, part_rows)
    chosen = select_rows(index, "width > height or caption_source = 'raw'", "s")
    expected = [r for r in table.to_pylist() if r["width"] > r["height"] or r["caption_source"] == "raw"]
    assert 0 < len(expected) < 7 and ids(chosen) == [row["key"] for row in expected]
    for row, facts in enumerate(expected):
        entry = chosen.entry(row)
        assert (entry.image_id, entry.shard, entry.image_ext) == (facts["key"], facts["shard"], "png")
        assert entry.offsets == (facts["image_offset"], facts["txt_offset"], facts["json_offset"])
        assert entry.sizes == (facts["image_size"], facts["txt_size"], facts["json_size"])
    assert ids(select_rows(index, None, "s")) == table["key"].to_pylist()


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ('WIDTH * "Height" >= 6400', 4),
        ("width + height - 64 > 64 and samples.height > 0", 6),
        ("COLUMNS(['width', 'height']) > 64", 4),
        ("true", 7),
    ],
)
def test_conditions_read_the_columns_they_need(dataset, where, count):
    assert select_rows(ShardIndex(dataset / "shards"), where, "s").num_rows == count


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("widht > 3", r"stage s: where: 'widht > 3' is no condition on the index: .*widht"),
        ("width >", "is no condition on the index"),
        ("width > 100000", "selects no sample"),
        ("width > 64 and random() < 0.5", "stage s: where: random depends on more than the picture"),
        ("width > 64 and age(timestamp '2020-01-01') > interval 1 day", "where: age depends on more than the picture"),
        ("key in (select key from samples where uuid() > '8')", "stage s: where: .* holds a query of its own"),
        ("key in (select key from samples using sample 3)", "stage s: where: .* holds a query of its own"),
        ("width = (select max(width) from samples)", "holds a query of its own"),
        ("true) union all (select 1", "is more than a condition"),
        ("image_id::int > 0", "is no condition on the index: Conversion Error"),
        ("true); drop table samples; --", "is no condition on the index"),
        ("key in (select content from read_text('/etc/passwd'))", "holds a query of its own"),
    ],
)
def test_a_condition_that_is_no_sql_or_selects_nothing_is_refused(dataset, where, message):
    with pytest.raises(ValueError, match=message):
        select_rows(ShardIndex(dataset / "shards"), where, "s")


def test_a_missing_dataset_is_named(recipe_values, tmp_path):
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
    index = ShardIndex(dataset / "shards")
    check_identity(tmp_path / "stage", identity(recipe, recipe.stages[0], Selection(index)))
    with pytest.raises(ValueError, match=r"dataset\.samples = 7, the recipe now has 6"):
        fewer = Selection(index, np.arange(1, 7, dtype=np.int32))
        check_identity(tmp_path / "stage", identity(recipe, recipe.stages[0], fewer))


def test_the_fingerprint_is_of_ids_and_shards_however_they_are_cut(dataset):
    table = read_index(dataset / "shards")
    lines = "\n".join(table["image_id"].to_pylist()) + "\n".join(table["shard"].to_pylist())
    for part_rows in (1, 3, 100):
        rows = Selection(ShardIndex.of(table, part_rows))
        assert rows_sha256(rows, ("image_id", "shard")) == hashlib.sha256(lines.encode()).hexdigest()


def test_a_condition_must_fill_a_batch_and_a_small_dataset_repeats(recipe_values):
    values = recipe_values | {"data": recipe_values["data"] | {"batch": 16}}
    recipe = TrainingRecipe.from_mapping(values)
    order = stage_data(recipe, recipe.stages[0]).order
    assert all(len(order.batch(step).rows) == 16 for step in range(len(order)))
    assert max(order.batch(0).occurrences) >= 2
    recipe = TrainingRecipe.from_mapping(values | {"stages": [recipe_values["stages"][0] | {"where": "width > 70"}]})
    with pytest.raises(
        ValueError, match=r"stage small: where: 'width > 70' selects 5 samples, less than one batch of 16"
    ):
        stage_data(recipe, recipe.stages[0])


def test_a_second_process_in_one_folder_is_refused(tmp_path):
    program = (
        f"from pathlib import Path\nfrom training.stages import locked\nwith locked(Path({str(tmp_path)!r})): pass"
    )
    with locked(tmp_path):
        result = run_python("-c", program)
    assert result.returncode != 0 and f"process {os.getpid()} on " in result.stderr
    assert "is training here; wait for it or choose another out" in result.stderr
    with locked(tmp_path):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"), locked(tmp_path / "file" / "out"):
        pass
