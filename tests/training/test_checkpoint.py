"""Checkpoints: whole or absent, the newest few kept, misfits named."""

from __future__ import annotations

import errno
import os
import threading

import pytest
import torch

from schemas.training import TrainingRecipe
from tests.processes import run_python
from training.checkpoint import CheckpointWriter, read_checkpoint, write_checkpoint
from training.checkpoint_files import checkpoints, latest_checkpoint
from training.encoders.make import text_encoder_for
from training.model.seal import SealedFile
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


def test_training_goes_on_while_a_copy_is_written(tmp_path, monkeypatch):
    gate, save = threading.Event(), torch.save

    def slow(*args):
        assert gate.wait(10)
        save(*args)

    monkeypatch.setattr(torch, "save", slow)
    weights = torch.ones(3)
    with CheckpointWriter(tmp_path, keep=2) as writer:
        writer.begin(5, content(5) | {"state_dict": {"w": weights}})
        weights += 1  # training goes on: the write has not even begun
        writer.check()
        assert latest_checkpoint(tmp_path) is None
        gate.set()
    found = latest_checkpoint(tmp_path)
    assert found is not None and torch.equal(read_checkpoint(found[1])["state_dict"]["w"], torch.ones(3))


def test_an_error_of_the_writer_surfaces(tmp_path):
    (tmp_path / "step-00000005.pt").mkdir()  # in the way
    writer = CheckpointWriter(tmp_path, keep=2)
    writer.begin(5, content(5))
    with pytest.raises(ValueError, match="the checkpoint cannot be written"):
        writer.wait()
    with pytest.raises(ValueError, match="cannot be written"), CheckpointWriter(tmp_path, keep=2) as another:
        another.begin(5, content(5))


def test_a_full_disk_is_named_and_not_what_torch_makes_of_it(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(SealedFile, "write", full)
    with pytest.raises(ValueError, match=r"cannot be written \(\[Errno 28\] No space left on device\); free space"):
        write_checkpoint(tmp_path, 5, content(5), keep=1)


def test_killed_during_the_write_the_one_before_is_whole(tmp_path):
    write_checkpoint(tmp_path, 5, content(5), keep=1)
    program = f"""
import os, signal, torch
from pathlib import Path
from training.checkpoint import CheckpointWriter
def half(content, file):
    file.write(b"half a checkpoint"); file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = half
with CheckpointWriter(Path({str(tmp_path)!r}), 1) as writer:
    writer.begin(10, {{}})
"""
    killed = run_python("-c", program)
    assert killed.returncode == -9 and len(list(tmp_path.glob(".tmp-*-step-00000010.pt"))) == 1
    found = latest_checkpoint(tmp_path)
    assert found is not None and found[0] == 5 and read_checkpoint(found[1])["step"] == 5
    write_checkpoint(tmp_path, 10, content(10), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010.pt"]


def test_a_checkpoint_that_cannot_be_read_now_is_not_to_be_removed(tmp_path, monkeypatch):
    def away(path):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    path = write_checkpoint(tmp_path, 5, content(5), keep=1)
    monkeypatch.setattr("training.model.convert.refuse_damage", away)
    with pytest.raises(ValueError, match=r"cannot be read as weights \(.*Stale file handle\)$"):
        read_checkpoint(path)


def test_a_checkpoint_cut_short_names_the_one_before(tmp_path):
    for step in (5, 10):
        path = write_checkpoint(tmp_path, step, content(step), keep=2)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"step-00000010\.pt: .*remove it to continue from step-00000005\.pt"):
        read_checkpoint(path)


def test_a_damaged_checkpoint_names_the_last_whole_one(tmp_path):
    for step in (5, 10, 15):
        path = write_checkpoint(tmp_path, step, content(step), keep=3)
    for name in ("step-00000010.pt", "step-00000015.pt"):
        data = bytearray((tmp_path / name).read_bytes())
        data[300] ^= 1
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged: its checksum is wrong.*to continue from step-00000005\.pt"):
        read_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"it is empty, 0 bytes.*remove it to continue from step-00000005\.pt"):
        read_checkpoint(path)


def test_unusable_files_are_named(tmp_path):
    path = write_checkpoint(tmp_path, 5, content(5) | {"state_dict": {"w": torch.ones(100)}}, keep=1)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(
        ValueError, match=r"step-00000005.pt: .*remove it to start the stage again, there is no older one"
    ):
        read_checkpoint(path)
    torch.save({"state_dict": {}}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="state_dict_ema is missing"):
        read_checkpoint(tmp_path / "weights.pth")


def test_a_state_comes_back_whole_and_other_models_are_refused(recipe_values, tmp_path):
    recipe = TrainingRecipe.from_mapping(recipe_values)
    null = text_encoder_for(recipe.text).null()

    def state(of: TrainingRecipe) -> TrainState:
        return TrainState.begin(starting_model(of, of.stages[0], null), of, of.stages[0])

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
