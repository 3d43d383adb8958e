"""The cells of the grid and of the claims, and that they see equal batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from evaluation.ablation.cells import (
    Cell,
    batches_sha256,
    check_equal_batches,
    claim,
    compressed,
    grid,
    half_of,
    training_recipe,
)
from schemas.training import SCRATCH, TrainingRecipe


def test_halves_of_28_blocks_are_the_papers_and_others_of_this_depth() -> None:
    assert half_of("deep", 28) == list(range(14, 28))
    assert half_of("middle", 28) == list(range(7, 21))
    assert half_of("shallow", 28) == list(range(14))
    assert [half_of(where, 5) for where in ("shallow", "middle", "deep")] == [[0, 1], [1, 2], [3, 4]]
    assert half_of("deep", 1) == [0]


def test_one_thing_varies_in_a_block_and_a_cell_of_two_blocks_is_trained_once(made: Callable[..., Any]) -> None:
    base, recipe = made(ratio=[1, 2, 4])
    found = grid(base, recipe)
    assert [(block.title, [cell.name for cell in block.cells]) for block in found.blocks] == [
        ("layers", ["none", "shallow-2x2-conv", "middle-2x2-conv", "deep-2x2-conv"]),
        ("ratio", ["none", "deep-2x2-conv", "deep-4x4-conv"]),
        ("operator", ["deep-2x2-conv", "deep-2x2-average", "deep-2x2-discard"]),
    ]
    assert len(found.cells) == 7
    assert found.cells[0] == Cell("none", {"kv_compression": None})
    assert [block.title for block in grid(*made(ratio=[2], operator=["conv"])).blocks] == ["layers"]


def test_cells_of_a_seed_see_equal_batches_and_other_seeds_others(made: Callable[..., Any]) -> None:
    base, recipe = made()
    experiment = grid(base, recipe)
    digests = [
        check_equal_batches(
            {cell.name: training_recipe(base, recipe, experiment, cell, seed, SCRATCH) for cell in experiment.cells}
        )
        for seed in recipe.seeds
    ]
    assert len(set(digests)) == 3
    for cell in experiment.cells:  # each by itself too
        one = training_recipe(base, recipe, experiment, cell, 0, SCRATCH)
        assert batches_sha256(one, one.stages[0]) == digests[0]


def test_cells_that_crop_to_other_shapes_are_refused(
    made: Callable[..., Any], dataset_of_shapes: dict[str, Any]
) -> None:
    base, recipe = made(dataset_of_shapes, steps=6)
    experiment = grid(base, recipe)
    recipes = {c.name: training_recipe(base, recipe, experiment, c, 0, SCRATCH) for c in experiment.cells}
    with pytest.raises(
        ValueError, match=r"cells none and shallow-2x2-conv would see other batches.*multi_aspect: false"
    ):
        check_equal_batches(recipes)


@pytest.fixture
def dataset_of_shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from tests.training.conftest import photo, write_dataset

    sizes = [(96, 96), (120, 80), (60, 90), (90, 60)]
    pictures: list[tuple[bytes, str | None, str | None]] = [
        (photo(i, *size), "words", None) for i, size in enumerate(sizes)
    ]
    folder = write_dataset(tmp_path_factory.mktemp("shapes"), pictures, sizes)
    return {"dataset": str(folder), "stages": [{"name": "compressed", "resolution": 64, "steps": 6}]}


def test_points_that_do_not_divide_the_steps_are_refused(made: Callable[..., Any]) -> None:
    base, recipe = made(steps=10)
    with pytest.raises(ValueError, match="points 3 do not divide the 10 steps; set steps=12"):
        training_recipe(base, recipe, grid(base, recipe), Cell("none"), 0, SCRATCH)


def test_a_claim_is_tried_on_a_stage_that_fits_it(made: Callable[..., Any]) -> None:
    base, recipe = made(steps=3)
    positions = claim(base, recipe, "positions")
    assert positions.stage.name == "larger"
    without, with_it = (training_recipe(base, recipe, positions, cell, 0, SCRATCH) for cell in positions.cells)
    assert (without.stages[0].interpolation, with_it.stages[0].interpolation) == (32 / 512, 64 / 512)
    vae = claim(base, recipe, "vae")
    assert vae.stage.name == "larger"
    scratch, warm = (training_recipe(base, recipe, vae, cell, 0, "./weights.pt") for cell in vae.cells)
    assert (scratch.stages[0].parent, warm.stages[0].parent) == (SCRATCH, "./weights.pt")
    assert {scratch.latents.codec, warm.latents.codec} == {"mixed_dct"}
    start = claim(base, recipe, "conv-avg-init")
    assert [cell.operator for cell in start.cells] == ["random", "conv"]
    assert start.cells[0].stage == start.cells[1].stage == compressed(2, "deep", 2).stage


@pytest.mark.parametrize(
    ("name", "stages", "message"),
    [
        (
            "positions",
            [{"name": "compressed", "resolution": 64, "steps": 3}],
            "positions: no stage has a parent of another",
        ),
        ("vae", [{"name": "compressed", "resolution": 64, "steps": 3}], "vae: no stage has a parent in the recipe"),
    ],
)
def test_a_claim_without_a_stage_for_it_is_refused(
    made: Callable[..., Any], name: Any, stages: list[dict[str, Any]], message: str
) -> None:
    base, recipe = made({"stages": stages})
    with pytest.raises(ValueError, match=message):
        claim(base, recipe, name)


def test_the_recipe_of_a_cell_is_the_base_with_one_stage_under_its_own_name(made: Callable[..., Any]) -> None:
    base, recipe = made(steps=6, pictures_at=3)
    cell = grid(base, recipe).cells[-1]
    found = training_recipe(base, recipe, grid(base, recipe), cell, 7, "./weights.pt")
    assert isinstance(found, TrainingRecipe)
    assert (found.seed, [stage.name for stage in found.stages], found.stages[0].steps) == (7, ["compressed"], 6)
    assert (found.log_every, found.validation.every, found.checkpoint_every, found.keep_checkpoints) == (2, 2, 2, 3)
    assert found.stages[0].kv_compression is not None
    assert found.out.endswith("ablation/grid/deep-2x2-discard/seed-7")
