"""T5 read from disk block by block answers as T5 in memory, and holds one block at a time."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from schemas.training import Text
from training.encoders.make import text_encoder_for

CAPTIONS = ("A red boat on the lake", "at DAWN")


def knobs(folder, precision="bf16"):
    return Text.from_mapping({"encoder": "t5", "weights": str(folder), "channels": 32, "precision": precision})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_vectors_are_the_same_to_the_bit(real_components, precision):
    whole = text_encoder_for(knobs(real_components, precision))
    streamed = text_encoder_for(knobs(real_components, precision), streamed=True)
    for caption in CAPTIONS:
        assert torch.equal(whole.encode(caption), streamed.encode(caption))
    assert torch.equal(whole.null(), streamed.null())


def test_weights_of_several_files_are_found(real_components, tmp_path):
    shutil.copytree(real_components, tmp_path / "parts")
    file = tmp_path / "parts" / "text_encoder" / "model.safetensors"
    tensors = sorted(load_file(file).items())
    file.unlink()
    for number in range(2):
        save_file(dict(tensors[number::2]), file.with_name(f"model-0000{number + 1}-of-00002.safetensors"))
    streamed = text_encoder_for(knobs(tmp_path / "parts"), streamed=True)
    assert torch.equal(streamed.encode(CAPTIONS[0]), text_encoder_for(knobs(real_components)).encode(CAPTIONS[0]))


def test_blocks_are_in_memory_only_while_they_are_called(real_components):
    streamed = text_encoder_for(knobs(real_components), streamed=True)
    blocks = streamed._model.encoder.block
    held = []
    blocks[1].register_forward_pre_hook(
        lambda *_: held.append([next(block.parameters()).device.type for block in blocks])
    )
    streamed.encode(CAPTIONS[0])
    assert held == [["meta", "cpu"]]
    assert {parameter.device.type for block in blocks for parameter in block.parameters()} == {"meta"}


def test_damaged_weights_are_refused_before_anything_is_encoded(real_components, tmp_path):
    shutil.copytree(real_components, tmp_path / "parts")
    file = tmp_path / "parts" / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    del tensors["encoder.block.1.layer.0.layer_norm.weight"]
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"lacks encoder\.block\.1\.layer\.0\.layer_norm\.weight and 0 more"):
        text_encoder_for(knobs(tmp_path / "parts"), streamed=True)
    file.write_bytes(b"cut")
    with pytest.raises(ValueError, match="cannot be loaded"):
        text_encoder_for(knobs(tmp_path / "parts"), streamed=True)
