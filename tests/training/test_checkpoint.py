"""Checkpoints: whole or absent, the newest few kept, misfits named."""

from __future__ import annotations

import pytest
import torch

from schemas.training import TrainingRecipe
from training.checkpoint import checkpoints, latest_checkpoint, read_checkpoint, write_checkpoint
from training.encoders import text_encoder_for
from training.state import TrainState, learning_rate
from training.weak_to_strong import starting_model


def content(step: int) -> dict:
    return {"state_dict": {}, "state_dict_ema": {}, "optimizer": {}, "step": step}


def test_the_newest_are_kept(tmp_path):
    assert latest_checkpoint(tmp_path / "absent") is None
    for step in (5, 10, 15):
        write_checkpoint(tmp_path, step, content(step), keep=2)
    assert [step for step, _ in checkpoints(tmp_path)] == [10, 15]
    found = latest_checkpoint(tmp_path)
    assert found is not None and read_checkpoint(found[1])["step"] == 15


def test_a_write_that_fails_leaves_the_others(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, 5, content(5), keep=1)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ValueError, match="No space left on device"):
        write_checkpoint(tmp_path, 10, content(10), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005.pt"]


def test_unusable_files_are_named(tmp_path):
    path = write_checkpoint(tmp_path, 5, content(5) | {"state_dict": {"w": torch.ones(100)}}, keep=1)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="remove it to go on from the one before"):
        read_checkpoint(path)
    torch.save({"state_dict": {}}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="state_dict_ema is missing"):
        read_checkpoint(tmp_path / "weights.pth")


def test_a_state_comes_back_whole_and_other_models_are_refused(recipe_values, tmp_path):
    recipe = TrainingRecipe.from_mapping(recipe_values)
    encoder = text_encoder_for(recipe.text)

    def state(of: TrainingRecipe) -> TrainState:
        return TrainState.begin(starting_model(of, of.stages[0], encoder), of, of.stages[0])

    first = state(recipe)
    for parameter in first.model.parameters():
        parameter.grad = torch.randn_like(parameter)
    first.optimizer.step()
    first.step = 7
    path = write_checkpoint(tmp_path, 7, first.content(), keep=1)
    second = state(recipe)
    second.restore(path)
    assert second.step == 7
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))
    for a, b in zip(first.optimizer.state.values(), second.optimizer.state.values(), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)

    deeper = TrainingRecipe.from_mapping(recipe_values | {"model": {"depth": 3, "hidden_size": 32, "num_heads": 2}})
    with pytest.raises(ValueError, match=r"missing: blocks\.2\.scale_shift_table"):
        state(deeper).restore(path)


def test_the_learning_rate_warms_up_and_stays():
    assert [learning_rate(step, 1.0, 4) for step in (0, 1, 3, 4, 99)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert learning_rate(0, 1.0, 0) == 1.0
