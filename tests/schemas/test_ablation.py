"""What an ablation recipe refuses."""

from __future__ import annotations

from typing import Any

import pytest

import recipes
from schemas.ablation import AblationRecipe
from schemas.training import TrainingRecipe

LEAST: dict[str, Any] = {"train": "train_demo", "out": "out", "stage": "any"}


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"seeds": [0, 1]}, r"seeds \[0, 1\]: under 3"),
        ({"seeds": [0, 1, 1]}, r"seeds \[0, 1, 1\] must name at least one, each once"),
        ({"layers": []}, "layers"),
        ({"layers": ["all"]}, "layers.0"),
        ({"ratio": [1]}, r"ratio \[1\] compresses nothing; add 2"),
        ({"operator": ["pool"]}, "operator.0"),
        ({"layers": ["deep"], "ratio": [2], "operator": ["conv"]}, "one value each, so nothing varies"),
        ({"pictures": 3}, "pictures"),
        ({"pictures_at": 3}, "pictures_at 3 does not divide points 10"),
    ],
)
def test_what_says_nothing_is_refused(knobs: dict[str, Any], message: str) -> None:
    AblationRecipe.from_mapping(LEAST)
    with pytest.raises(ValueError, match=message):
        AblationRecipe.from_mapping(LEAST | knobs)


def test_a_training_recipe_is_told_from_an_ablation() -> None:
    with pytest.raises(ValueError, match="is a training recipe, which sigma train takes"):
        AblationRecipe.load(recipes.find("train_demo"))


def test_the_shipped_recipe_varies_a_stage_that_its_training_recipe_has() -> None:
    found = AblationRecipe.load(recipes.find("ablate_demo"))
    base = TrainingRecipe.load(recipes.find(found.train), found.overrides)
    assert not base.stage_named(found.stage).multi_aspect
