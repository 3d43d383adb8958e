"""Validation loss: one value per set of weights, whoever computes it and whenever; it falls as training goes."""

from __future__ import annotations

import logging

import pytest

from schemas.ids import unit_interval
from schemas.shard_index import read_index
from schemas.training import TrainingRecipe
from training.data.loader import Loader
from training.data.reader import ShardReader
from training.data.source import Source
from training.encoders.make import Encoders
from training.metrics import read_metrics
from training.parallel.distributed import World
from training.stages import stage_data
from training.train import train
from training.validation import Validation
from training.weak_to_strong import starting_model

pytestmark = pytest.mark.slow


class Part(World):
    """One of several processes, which keeps its own part of a sum."""

    def sum(self, values):
        return values


def test_the_same_weights_have_the_same_loss(recipe_values):
    losses = []
    for seed in (0, 1):  # the grid depends on no seed
        recipe = TrainingRecipe.from_mapping(recipe_values | {"seed": seed, "validation": {"every": 2, "samples": 4}})
        stage, encoders = recipe.stages[0], Encoders(recipe)
        model = starting_model(TrainingRecipe.from_mapping(recipe_values), stage, encoders.text.null())
        data = stage_data(recipe, stage)
        source = Source(ShardReader(recipe.dataset_folder / "shards", data.rows))
        validation = Validation(recipe, data, source, encoders)
        device = next(model.parameters()).device
        losses += [validation.losses(model, World(0, 1, device)) for _ in range(2)]
        halves = [validation.losses(model, Part(rank, 2, device)) for rank in range(2)]
        assert sum(half["val_mse"] for half in halves) / 2 == pytest.approx(losses[-1]["val_mse"], rel=1e-12)
    assert all(loss == losses[0] for loss in losses)
    assert losses[0]["val_loss"] == pytest.approx(losses[0]["val_mse"] + losses[0]["val_vb"])


def test_the_validation_loss_falls_and_disturbs_no_training(recipe_values, tmp_path):
    values = recipe_values | {"checkpoint_every": 100, "log_every": 10, "ema": {"decay": 0.5}}
    values["stages"] = [values["stages"][0] | {"steps": 30}]
    lines = []
    for every in (0, 10):
        recipe = TrainingRecipe.from_mapping(
            values | {"out": str(tmp_path / str(every)), "validation": {"every": every}}
        )
        train(recipe)
        lines.append(read_metrics(recipe.stage_folder(recipe.stages[0])))
    without, validated = lines
    assert [line["loss"] for line in without] == [line["loss"] for line in validated]
    assert not any("val_loss" in line for line in without)
    falling = [line["val_loss"] for line in validated if "val_loss" in line]
    assert len(falling) == 3 and falling[0] > falling[1] > falling[2]


def test_held_out_pictures_are_validated_and_never_trained_on(recipe_values, caplog, monkeypatch):
    values = recipe_values | {"validation": {"every": 4, "share": 0.3, "samples": 16}}
    recipe = TrainingRecipe.from_mapping(values)
    trained, prepare = set(), Loader.prepare
    monkeypatch.setattr(Loader, "prepare", lambda *step: (batch := prepare(*step), trained.update(batch.image_ids))[0])
    with caplog.at_level(logging.INFO):
        train(recipe)
    every = set(read_index(recipe.dataset_folder / "shards")["image_id"].to_pylist())
    held = {image_id for image_id in every if unit_interval(image_id, "validation") < 0.3}
    assert held and trained == every - held
    data = stage_data(recipe, recipe.stages[0])
    source = Source(ShardReader(recipe.dataset_folder / "shards", data.rows))
    grid = Validation(recipe, data, source, Encoders(recipe))
    assert {grid._source.read(row, grid._shapes[row]).image_id for row in grid._rows} == held
    for stage in recipe.stages:
        said = f"stage {stage.name}: {len(held)} of 7 pictures are held out for validation"
        assert caplog.text.count(said) == 1
        assert any("val_loss" in line for line in read_metrics(recipe.stage_folder(stage)))
    other = TrainingRecipe.from_mapping(values | {"validation": {"every": 4}})
    with pytest.raises(ValueError, match=r"was trained with .*the recipe now has"):
        train(other)


@pytest.mark.parametrize(("share", "word"), [(1e-9, "raise it"), (0.9999, "lower it")])
def test_a_share_that_leaves_one_side_empty_is_refused(recipe_values, share, word):
    recipe = TrainingRecipe.from_mapping(recipe_values | {"validation": {"share": share, "every": 4}})
    with pytest.raises(ValueError, match=rf"stage small: validation\.share: .* holds out \d of 7 pictures; {word}"):
        stage_data(recipe, recipe.stages[0])
