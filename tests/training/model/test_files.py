"""Weights files in the ways that people have them: damage is named, wrappers are taken off, variants are found."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import save_file

from tests.training.model.test_convert import same, small, to_diffusers
from training.checkpoint import write_checkpoint
from training.model import load_weights
from training.model.convert import read_torch_file, read_weights, weights_sha256
from training.model.seal import file_digest, stated_digest


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_named(tmp_path):
    content = {"state_dict": {"w": torch.randn(50)}, "state_dict_ema": {}, "optimizer": {}, "step": 5}
    path = write_checkpoint(tmp_path, 5, content, keep=1)
    whole, chance = path.read_bytes(), random.Random(3)
    assert torch.equal(read_torch_file(path)["state_dict"]["w"], content["state_dict"]["w"])
    assert torch.equal(torch.load(path, weights_only=True, mmap=True)["state_dict"]["w"], content["state_dict"]["w"])
    tail = range(len(whole) - 110, len(whole))
    for place in [*chance.sample(range(len(whole)), 300), *tail]:
        data = bytearray(whole)
        data[place] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"step-00000005\.pt: cannot be read as weights \(.*(damaged|no file)"):
            read_torch_file(path)


def test_a_flipped_bit_in_the_tensors_of_a_published_file_is_named(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"state_dict": small().state_dict()}, path)
    assert stated_digest(path) is None
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged: the checksum of w/data/\d+ in it is wrong"):
        load_weights(small(), path)


def test_a_digest_names_the_content_and_not_the_file(tmp_path):
    content = {"state_dict": {"w": torch.ones(3)}, "state_dict_ema": {}, "optimizer": {}, "step": 5}
    a = write_checkpoint(tmp_path, 5, content, keep=9)
    b = write_checkpoint(tmp_path, 6, content, keep=9)
    torch.save(content, tmp_path / "plain.pt")
    shutil.copy(a, tmp_path / "copy.pt")
    assert file_digest(a) == file_digest(tmp_path / "copy.pt") == file_digest(b)
    content["state_dict"]["w"][1] = 2
    assert file_digest(write_checkpoint(tmp_path, 7, content, keep=9)) != file_digest(a)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty, 0 bytes"),
        (b"\0" * 40, "cannot be read as weights"),
        (b"<html>Not found</html>", "is no file of torch"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "is a pointer of Git LFS"),
        (random.Random(1).randbytes(300), "cannot be read as weights"),
    ],
)
def test_a_file_of_something_else_is_named_in_one_line(tmp_path, data, message):
    (tmp_path / "w.pth").write_bytes(data)
    with pytest.raises(ValueError, match=message) as refusal:
        load_weights(small(), tmp_path / "w.pth")
    assert "\n" not in str(refusal.value) and "weights_only" not in str(refusal.value)
    assert str(refusal.value).startswith(f"{tmp_path / 'w.pth'}: ")


def test_a_folder_whose_model_has_other_heads_is_refused(tmp_path):
    """No tensor has another shape, so nothing else would tell."""
    model = small()
    save_file(to_diffusers(model.state_dict()), tmp_path / "diffusion_pytorch_model.safetensors")
    for heads, refused in ((model.config.num_heads, False), (2 * model.config.num_heads, True), (None, False)):
        config = {} if heads is None else {"num_attention_heads": heads}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=f"says {heads} attention heads") if refused else nullcontext():
            load_weights(small(), tmp_path)


@pytest.mark.parametrize("content", [{3: torch.ones(1)}, {"epoch": 3}, {"state_dict": {"a": 3}}, {}])
def test_a_file_without_tensors_is_named(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth: holds no weights"):
        load_weights(small(), tmp_path / "w.pth")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.diffusion_model.", "module._orig_mod.", ""])
@pytest.mark.parametrize("layout", ["official", "diffusers"])
def test_a_prefix_of_every_name_is_left_out_and_said(tmp_path, caplog, prefix, layout):
    source, target = small(), small()
    weights = source.state_dict() if layout == "official" else to_diffusers(source.state_dict())
    torch.save({prefix + key: value for key, value in weights.items()}, tmp_path / "w.pth")
    with caplog.at_level(logging.INFO):
        load_weights(target, tmp_path / "w.pth")
    assert same(source, target)
    assert ("every name begins with" in caplog.text) == (prefix not in ("", "_orig_mod."))


def test_names_of_wrappers_inside_are_left_out(tmp_path):
    source, target = small(), small()
    weights = {key.replace("blocks.1.", "blocks.1._orig_mod."): value for key, value in source.state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "w.pth")
    load_weights(target, tmp_path / "w.pth")
    assert same(source, target)


def test_a_prefix_of_some_names_is_refused_by_name(tmp_path):
    weights = small().state_dict()
    weights["module.t_block.1.bias"] = weights.pop("t_block.1.bias")
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"missing: t_block\.1\.bias; unexpected: module\.t_block\.1\.bias"):
        load_weights(small(), tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["model", "module", "state_dict"])
def test_containers_of_other_programs_are_opened(tmp_path, name):
    raw, average, target = small(), small(), small()
    torch.save({name: raw.state_dict(), "ema": average.state_dict(), "epoch": 3}, tmp_path / "w.pth")
    load_weights(target, tmp_path / "w.pth")
    assert same(target, average)
    load_weights(target, tmp_path / "w.pth", ema=False)
    assert same(target, raw)


@pytest.mark.parametrize("tokens", [6, 120])
def test_the_null_caption_of_a_published_folder_is_read(tmp_path, tokens):
    source, target = small(), small()
    null = {"caption_projection.y_embedding": torch.full((tokens, 8), 3.0)}
    save_file(to_diffusers(source.state_dict()) | null, tmp_path / "diffusion_pytorch_model.safetensors")
    report = load_weights(target, tmp_path)
    assert same(source, target)
    assert (report.ignored == ()) == (tokens == 6) == bool((target.y_embedder.y_embedding == 3).all())


@pytest.mark.parametrize(
    "names",
    [
        ["diffusion_pytorch_model.fp16.safetensors"],
        ["diffusion_pytorch_model.bin"],
        ["diffusion_pytorch_model.fp16.bin"],
        ["diffusion_pytorch_model-00001-of-00002.safetensors", "diffusion_pytorch_model-00002-of-00002.safetensors"],
        [
            "diffusion_pytorch_model.bf16-00001-of-00002.safetensors",
            "diffusion_pytorch_model.bf16-00002-of-00002.safetensors",
        ],
        ["diffusion_pytorch_model-00001-of-00002.fp16.bin", "diffusion_pytorch_model-00002-of-00002.fp16.bin"],
    ],
)
def test_variants_parts_and_bin_files_of_a_folder_load(tmp_path, caplog, names):
    source, target = small().to(torch.bfloat16).float(), small()
    weights = to_diffusers(source.state_dict())
    keys = sorted(weights)
    for number, name in enumerate(names):
        part = {key: weights[key] for key in keys[number :: len(names)]}
        torch.save(part, tmp_path / name) if name.endswith("bin") else save_file(part, tmp_path / name)
    with caplog.at_level(logging.INFO):
        load_weights(target, tmp_path)
    assert same(source, target)
    assert ("the variant" in caplog.text) == any("16" in name for name in names)
    (tmp_path / names[-1]).unlink()
    missing = r"holds 1 of 2 parts" if len(names) == 2 else "no diffusion_pytorch_model"
    with pytest.raises(ValueError, match=missing):
        load_weights(target, tmp_path)


def test_full_precision_is_preferred_and_the_last_weights_on_request(tmp_path):
    models = {"": small(), ".fp16": small(), ".non_ema": small()}
    for variant, model in models.items():
        save_file(to_diffusers(model.state_dict()), tmp_path / f"diffusion_pytorch_model{variant}.safetensors")
    target = small()
    load_weights(target, tmp_path)
    assert same(target, models[""])
    load_weights(target, tmp_path, ema=False)
    assert same(target, models[".non_ema"])


def test_a_pipe_in_the_place_of_a_file_of_a_folder_is_not_waited_for(tmp_path):
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file(to_diffusers(small().state_dict()), weights)
    os.mkfifo(tmp_path / "config.json")
    load_weights(small(), tmp_path)
    weights.unlink()
    os.mkfifo(weights)
    for use in (read_weights, weights_sha256):
        with pytest.raises(ValueError, match=f"no {weights.name} in this folder"):
            use(tmp_path)


def test_a_lora_is_called_one(tmp_path):
    lora = {"transformer.transformer_blocks.0.attn1.to_q.lora_A.weight": torch.ones(2, 16)}
    for name in ("lora.safetensors", "pytorch_lora_weights.safetensors", "adapter_model.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_file(lora, tmp_path / name)
        with pytest.raises(ValueError, match=r"is a LoRA .* merge it into that model first"):
            load_weights(small(), tmp_path / name)
    with pytest.raises(ValueError, match="is a LoRA"):
        load_weights(small(), tmp_path)


def test_a_folder_of_other_weights_names_one(tmp_path):
    torch.save(small().state_dict(), tmp_path / "PixArt.pth")
    with pytest.raises(ValueError, match=r"a diffusers model folder is expected; to read PixArt\.pth, name that file"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    "around",
    [
        lambda raw, average: {"net": raw, "net_ema": average},
        lambda raw, average: {"model": {"state_dict": raw}, "ema": {"module": average, "decay": 0.99}},
        lambda raw, average: {"generator": raw, "shadow": average, "optimizer": {"exp_avg": raw}},
    ],
)
def test_weights_inside_dicts_are_found_under_any_names(tmp_path, around):
    raw, average, target = small(), small(), small()
    torch.save(around(raw.state_dict(), average.state_dict()), tmp_path / "w.pth")
    load_weights(target, tmp_path / "w.pth")
    assert same(target, average)
    load_weights(target, tmp_path / "w.pth", ema=False)
    assert same(target, raw)


def test_one_of_two_sets_of_weights_is_not_chosen_by_chance(tmp_path):
    torch.save({"student": small().state_dict(), "teacher": small().state_dict()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"several sets of weights \(student and teacher\); store the one"):
        load_weights(small(), tmp_path / "w.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_types_are_read_and_quantised_ones_are_refused(tmp_path, dtype):
    source, target = small(), small()
    weights = {key: value.to(dtype) if "blocks" in key else value for key, value in source.state_dict().items()}
    torch.save(weights, tmp_path / "w.pth")
    load_weights(target, tmp_path / "w.pth")
    assert all(torch.equal(value, weights[key].float()) for key, value in target.state_dict().items())
    torch.save(weights | {"t_block.1.bias": weights["t_block.1.bias"].to(torch.int8)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"quantised: t_block\.1\.bias \(torch\.int8\)"):
        load_weights(target, tmp_path / "w.pth")


def test_weights_that_are_not_finite_are_named(tmp_path):
    weights = small().state_dict()
    weights["t_block.1.bias"][3] = float("inf")
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"t_block\.1\.bias holds values that are not finite"):
        load_weights(small(), tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lycoris_blocks_0_attn_qkv.on_input", "is a LyCORIS .* merge it"),
        ("lycoris_blocks_0_attn_qkv.lokr_w1", "is a LyCORIS .* merge it"),
        ("base_model.model.blocks.0.attn.qkv.vera_lambda_b", "is a LoRA .* merge it"),
        ("controlnet.0.before_proj.weight", "is a ControlNet .* name the weights of that model"),
        ("controlnet_cond_embedding.conv_in.weight", "is a ControlNet"),
        ("adapter.body.0.block1.weight", "is an adapter of pictures"),
    ],
)
def test_what_changes_another_model_is_called_what_it_is(tmp_path, name, kind):
    base = {f"base_model.{key}": value for key, value in small().state_dict().items()}
    torch.save({"state_dict": base | {name: torch.ones(1)}}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=kind):
        load_weights(small(), tmp_path / "w.pth")
