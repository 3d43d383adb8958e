"""Validation loss: one value per set of weights, whoever computes it and whenever; it falls as training goes."""

from __future__ import annotations

import pytest

from schemas.training import TrainingRecipe
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
        source = Source(ShardReader(recipe.dataset / "shards", data.rows))
        validation = Validation(recipe, data, source, encoders)
        device = next(model.parameters()).device
        losses += [validation.losses(model, World(0, 1, device)) for _ in range(2)]
        halves = [validation.losses(model, Part(rank, 2, device)) for rank in range(2)]
        assert sum(half["val_mse"] for half in halves) / 2 == pytest.approx(losses[-1]["val_mse"], rel=1e-12)
    assert all(loss == losses[0] for loss in losses)
    assert losses[0]["val_loss"] == pytest.approx(losses[0]["val_mse"] + losses[0]["val_vb"])


def test_the_validation_loss_falls_and_disturbs_no_training(recipe_values, tmp_path):
    values = recipe_values | {"checkpoint_every": 100, "log_every": 10, "ema": {"decay": 0.5}}
    values["stages"] = [values["stages"][0] | {"steps": 60}]
    lines = []
    for every in (0, 20):
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
