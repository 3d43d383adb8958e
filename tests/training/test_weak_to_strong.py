"""What a stage takes over from its parent, and what it refuses to start from."""

from __future__ import annotations

import pytest
import torch

from schemas.training import TrainingRecipe
from training.checkpoint import write_checkpoint
from training.encoders.make import text_encoder_for
from training.state import TrainState
from training.weak_to_strong import model_config, parent_weights, starting_model


@pytest.fixture
def recipe(recipe_values) -> TrainingRecipe:
    return TrainingRecipe.from_mapping(recipe_values)


def test_stages_share_one_range_of_positions(recipe):
    first, second = (model_config(recipe, stage) for stage in recipe.stages)
    assert first.pe_interpolation == 32 / 512 and second.pe_interpolation == 64 / 512
    assert first.base_tokens / first.pe_interpolation == second.base_tokens / second.pe_interpolation == 32
    assert second.kv_compression is not None and second.kv_compression.layers == (1,)


def test_a_child_starts_from_the_average_with_averaging_compression(recipe):
    null = text_encoder_for(recipe.text).null()
    small, compressed = recipe.stages
    state = TrainState.begin(starting_model(recipe, small, null), recipe, small)
    for parameter in state.average.model.parameters():
        torch.nn.init.normal_(parameter)
    state.step = small.steps
    write_checkpoint(_folder(recipe, 0), small.steps, state.content(), keep=1)
    child = starting_model(recipe, compressed, null)
    parent = dict(state.average.model.named_parameters())
    for name, parameter in child.named_parameters():
        if name in parent:
            assert torch.equal(parameter, parent[name]), name
    assert child.blocks[1].attn.sr.weight.eq(0.25).all()
    assert torch.equal(child.y_embedder.y_embedding, null)


def _folder(recipe, number):
    folder = recipe.stage_folder(recipe.stages[number])
    folder.mkdir(parents=True)
    return folder


def test_scratch_is_the_same_every_time(recipe):
    null = text_encoder_for(recipe.text).null()
    a, b = (starting_model(recipe, recipe.stages[0], null) for _ in range(2))
    assert parent_weights(recipe, recipe.stages[0]) is None
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_a_parent_that_is_missing_or_unfinished_is_refused(recipe, recipe_values, tmp_path):
    with pytest.raises(ValueError, match="its parent small has 0 of 8 steps; train that stage first"):
        parent_weights(recipe, recipe.stages[1])
    values = recipe_values | {"stages": [recipe_values["stages"][0] | {"parent": str(tmp_path / "no.pth")}]}
    other = TrainingRecipe.from_mapping(values)
    with pytest.raises(ValueError, match=r"no weights at .*no\.pth; check the path"):
        parent_weights(other, other.stages[0])
    torch.save({"state_dict": {"w": torch.ones(1)}}, tmp_path / "no.pth")
    with pytest.raises(ValueError, match="does not fit this model; missing: "):
        starting_model(other, other.stages[0], text_encoder_for(other.text).null())
