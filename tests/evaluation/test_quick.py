"""Measures in the middle of training: where, under which names, and that training is the same without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from evaluation.quick import QuickEvaluation
from schemas.training import TrainingRecipe
from training.metrics import read_metrics
from training.model import PixArt
from training.optim.ema import AveragedModel
from training.parallel.distributed import World
from training.train import train
from training.validation import Validation, measured_at
from training.weak_to_strong import model_config

STAGES = [{"name": "first", "resolution": 32, "steps": 4, "multi_aspect": False}]


def lines(recipe: TrainingRecipe) -> list[dict[str, Any]]:
    return read_metrics(recipe.stage_folder(recipe.stages[0]))


@pytest.mark.slow
def test_measures_come_at_their_steps_and_disturb_no_training(
    made: Callable[..., Any], tiny: None, tmp_path: Any
) -> None:
    values = {"stages": STAGES, "checkpoint_every": 2}
    plain, _ = made(values)
    train(plain)
    # Begun without an evaluation and continued with one: it is no part of what a stage is trained from.
    begun, _ = made(values | {"out": str(tmp_path / "two"), "stages": [STAGES[0] | {"steps": 2}]})
    train(begun)
    measured, _ = made(values | {"out": str(tmp_path / "two"), "evaluation": {"every": 2, "pictures": 5}})
    train(measured, evaluate=QuickEvaluation(measured))
    assert [line["loss"] for line in lines(measured)] == [line["loss"] for line in lines(plain)]
    names = {f"quick/5/{name}" for name in ("fid", "kid", "precision", "recall")}
    assert [names & line.keys() for line in lines(measured)] == [set(), set(), set(), names]
    assert lines(measured)[-1]["quick/5/fid"] > 0


def test_where_nothing_can_be_measured_it_says_how_to_get_what_is_missing(
    made: Callable[..., Any], no_weights: None
) -> None:
    recipe, _ = made({"stages": STAGES, "evaluation": {"every": 2}})
    quick = QuickEvaluation(recipe)
    assert len(quick.missing) == 1
    assert "sigma weights get fid-inception" in quick.missing[0]
    assert quick(PixArt(model_config(recipe, recipe.stages[0])), recipe.stages[0]) == {}


@pytest.mark.slow
def test_too_few_pictures_to_compare_with_leave_fid_out_and_training_goes_on(
    made: Callable[..., Any], tiny: None, caplog: pytest.LogCaptureFixture
) -> None:
    held = {"every": 1, "share": 0.3}
    recipe, _ = made(
        {"stages": [STAGES[0] | {"steps": 2}], "validation": held, "evaluation": {"every": 2, "pictures": 5}}
    )
    quick = QuickEvaluation(recipe)
    train(recipe, evaluate=quick)
    assert "pictures to compare with, FID needs 4 or more" in caplog.text
    assert not any("quick" in name for line in lines(recipe) for name in line)


def test_only_the_first_process_measures_and_only_when_it_is_due(made: Callable[..., Any]) -> None:
    recipe, _ = made({"stages": STAGES, "evaluation": {"every": 2}, "validation": {"every": 0}})
    stage, cpu = recipe.stages[0], torch.device("cpu")
    average = AveragedModel(PixArt(model_config(recipe, stage)), recipe.ema)
    validation = object.__new__(Validation)  # never asked
    seen: list[str] = []

    def evaluate(model: PixArt, of: Any) -> dict[str, float]:
        seen.append(of.name)
        return {"quick/64/fid": 1.0}

    def at(step: int, rank: int) -> dict[str, float]:
        return measured_at(step, average, recipe, stage, validation, evaluate, World(rank, 2, cpu))

    assert at(2, 0) == {"quick/64/fid": 1.0}
    assert at(2, 1) == at(3, 0) == {}
    assert seen == ["first"]
    assert measured_at(2, average, recipe, stage, validation, None, World(0, 1, cpu)) == {}


def test_an_evaluation_that_never_comes_is_refused(made: Callable[..., Any]) -> None:
    for knobs, message in (
        ({"every": 3}, "evaluation.every 3 is no multiple of log_every 2"),
        ({"every": 6}, "evaluation.every 6 is above the steps of every stage"),
        ({"pictures": 5}, "pictures 5 changes nothing while every is 0"),
        ({"every": 2, "pictures": 3}, "evaluation.pictures"),
    ):
        with pytest.raises(ValueError, match=message):
            made(
                {
                    "stages": STAGES,
                    "log_every": 2,
                    "checkpoint_every": 2,
                    "evaluation": knobs,
                    "validation": {"every": 0},
                }
            )
