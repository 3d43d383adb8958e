"""Bad data seen from outside: each kind stops a run with its reason, or is replaced, counted and trained around."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from schemas.shard_index import read_index
from schemas.training import TrainingRecipe
from training.metrics import read_metrics
from training.parallel.distributed import World
from training.train import train, train_stage


def recipe_of(values: dict[str, Any], **changes: Any) -> TrainingRecipe:
    """The first stage alone, with other data knobs or another condition."""
    stage = values["stages"][0] | {"steps": 4} | {key: changes.pop(key) for key in ("where",) if key in changes}
    return TrainingRecipe.from_mapping(values | {"data": values["data"] | changes, "stages": [stage]})


@pytest.fixture
def damaged_values(make_dataset, recipe_values, tmp_path) -> dict[str, Any]:
    """Six pictures of one shape, two of them cut short."""
    pictures = []
    for number in range(6):
        buffer = io.BytesIO()
        Image.new("RGB", (40, 40), (number * 40, 0, 0)).save(buffer, "PNG")
        whole = buffer.getvalue()
        pictures.append((whole[:40] if number < 2 else whole, f"caption {number}", None))
    make_dataset(tmp_path / "damaged", pictures, [(40, 40)] * 6)
    return recipe_values | {"dataset": str(tmp_path / "damaged")}


def test_damaged_samples_are_named_replaced_and_counted(damaged_values, tmp_path, caplog):
    metrics = []
    for name in ("first", "second"):
        caplog.clear()
        recipe = recipe_of(damaged_values | {"out": str(tmp_path / name)})
        with caplog.at_level(logging.WARNING):
            train(recipe)
        named = [
            message for message in caplog.messages if "damaged sample, replaced by the next of its shape" in message
        ]
        assert len(named) == 2 and all("1.0/1.0-000000.tar" in message for message in named)
        metrics.append(read_metrics(recipe.stage_folder(recipe.stages[0])))
    assert metrics[0][-1]["num_damaged"] == 2
    assert [line["loss"] for line in metrics[0]] == [line["loss"] for line in metrics[1]]


def test_more_damage_than_is_allowed_stops(damaged_values):
    recipe = recipe_of(damaged_values, max_damaged=1)
    with pytest.raises(
        ValueError, match=r"2 damaged samples, data\.max_damaged allows 1; the last: [0-9a-f]{32} in 1\.0/"
    ):
        train(recipe)


@pytest.mark.parametrize(
    ("change", "message"),
    [("cut", "of .* bytes begins at .* rebuild the shards"), ("gone", "the index names this shard, but No such file")],
)
def test_a_tar_that_the_index_does_not_fit_stops(damaged_values, change, message):
    shards = Path(damaged_values["dataset"]) / "shards"
    tar = shards / read_index(shards, ["shard"])["shard"][0].as_py()
    if change == "gone":
        tar.unlink()
    else:
        tar.write_bytes(tar.read_bytes()[:1024])
    recipe = recipe_of(damaged_values)
    with pytest.raises(ValueError, match=message):
        train(recipe)
    assert not list(recipe.stage_folder(recipe.stages[0]).glob("step-*.pt"))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("width > 9000", "stage small: where: 'width > 9000' selects no sample of the index"),
        ("width > 100", "selects 2 samples, less than one batch of 4; widen the condition or lower the batch"),
        ("widht > 3", "stage small: where: 'widht > 3' is no condition on the index"),
    ],
)
def test_a_condition_that_cannot_be_trained_on_leaves_no_folder(recipe_values, where, message):
    recipe = recipe_of(recipe_values, where=where)
    with pytest.raises(ValueError, match=message):
        train(recipe)
    assert not recipe.stage_folder(recipe.stages[0]).exists()


def test_a_dataset_smaller_than_a_batch_is_repeated(recipe_values):
    recipe = recipe_of(recipe_values, batch=16)
    train(recipe)
    assert read_metrics(recipe.stage_folder(recipe.stages[0]))[-1]["step"] == 4


def test_a_batch_that_the_processes_do_not_divide(recipe_values):
    recipe = recipe_of(recipe_values)
    with pytest.raises(
        ValueError, match="stage small: a batch of 4 cannot be split over 3 processes evenly; set another"
    ):
        train_stage(recipe, recipe.stages[0], World(0, 3, torch.device("cpu")), None)
