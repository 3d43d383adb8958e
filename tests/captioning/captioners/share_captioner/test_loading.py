from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from captioning.captioners.share_captioner import ShareCaptioner, loading

Checkpoint = Callable[[dict[str, Tensor] | None], Path]
Tensors = Callable[[int], dict[str, Tensor]]
IDS = (torch.tensor([1, 5, 9]), torch.tensor([7, 3]))


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))


def test_shards_of_bin_give_the_logits_of_safetensors(
    tmp_path: Path, captioner: ShareCaptioner, tensors: Tensors, checkpoint: Checkpoint, pixels: Tensor
) -> None:
    state = tensors(404)
    names = sorted(state)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, part in shards.items():  # a layer's tensors lie in both, as in the published files
        torch.save({name: state[name] for name in part}, tmp_path / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in shards.items() for name in part}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_bytes((checkpoint(None) / "config.json").read_bytes())
    sharded = ShareCaptioner.load(tmp_path)
    assert torch.equal(sharded.logits(pixels, *IDS), captioner.logits(pixels, *IDS))
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(ValueError, match=r"pytorch_model-00002-of-00002\.bin is missing \(1 of 2 shards are\)"):
        ShareCaptioner.load(tmp_path)


def test_sizes_are_read_from_the_tensors(checkpoint: Checkpoint, tensors: Tensors, pixels: Tensor) -> None:
    captioner = ShareCaptioner.load(checkpoint(tensors(411)))
    assert captioner.image_size == 56
    assert captioner.encode_image(pixels).shape == (2, 4, 64)
    assert captioner.logits(pixels, *IDS).shape == (2, 3 + 1 + 4 + 1 + 2, 411)
    with pytest.raises(ValueError, match=r"pixel_values \[2, 3, 28, 28\]: expected \(B, 3, 56, 56\)"):
        captioner.encode_image(pixels[..., :28, :28])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.update({"Qformer.proj": torch.zeros(2)}), "no tensor of this model: Qformer.proj$"),
        (lambda state: state.pop("Qformer.ln_kv.bias"), "missing from the files: Qformer.ln_kv.bias$"),
        (
            lambda state: [state.pop(name) for name in list(state) if ".blocks.0.attn" in name],
            "missing from the files: visual_encoder.blocks.0.attn.proj.bias, .* and 2 more$",
        ),
        (lambda state: state.pop("visual_encoder.pos_embed"), "no tensor visual_encoder.pos_embed: a file"),
        (
            lambda state: state.update({"flag_image_end": torch.zeros(1, 1, 9)}),
            r"flag_image_end \[1, 1, 9\]: the model",
        ),
        (
            lambda state: state.update({"internlm_proj.bias": torch.zeros(64, dtype=torch.int64)}),
            "internlm_proj.bias is torch.int64, not a floating-point tensor",
        ),
        (
            lambda state: [state.pop(name) for name in list(state) if ".layers.1." in name],
            "config.json says num_hidden_layers=2, the tensors 1",
        ),
        (lambda state: state.clear() or state.update({"w": torch.zeros(1)}), "neither Share-Captioner nor"),
        (
            lambda state: state["internlm_model.model.layers.1.self_attn.rotary_emb.inv_freq"].mul_(2),
            "rotary_emb.inv_freq differs between layers",
        ),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(
    checkpoint: Checkpoint, tensors: Tensors, spoil: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    state = tensors(404)
    spoil(state)
    with pytest.raises(ValueError, match=message):
        ShareCaptioner.load(checkpoint(state))


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_cut_file_is_refused(tmp_path: Path, tensors: Tensors, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    if suffix == ".bin":
        torch.save(tensors(404), path)
    else:
        save_file(tensors(404), path)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(ValueError, match=rf"model\{suffix}: not a whole .*download it again"):
        ShareCaptioner.load(tmp_path)


def test_a_bin_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"flag_image_start": Path("x")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="not a whole torch file of tensors alone"):
        ShareCaptioner.load(tmp_path)


def test_folders_without_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no \.safetensors or \.bin weights in this folder"):
        ShareCaptioner.load(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        ShareCaptioner.load(tmp_path / "absent")


def test_rotary_frequencies_of_the_file_or_exact_ones(
    checkpoint: Checkpoint, tensors: Tensors, captioner: ShareCaptioner, pixels: Tensor
) -> None:
    folder = checkpoint(None)
    exact = ShareCaptioner.load(folder, rotary="exact")
    stored = tensors(404)["internlm_model.model.layers.0.self_attn.rotary_emb.inv_freq"]
    assert torch.equal(captioner.model.language.model.rotary_emb.inv_freq, stored)
    frequencies = exact.model.language.model.rotary_emb.inv_freq
    torch.testing.assert_close(frequencies, 10_000 ** (-torch.arange(0, 16, 2) / 16))
    assert not torch.equal(frequencies, stored)  # bfloat16 has moved some
    assert (exact.logits(pixels, *IDS) - captioner.logits(pixels, *IDS)).abs().max() > 1e-4
    bf16 = ShareCaptioner.load(folder, dtype="bf16")
    assert bf16.model.language.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.equal(bf16.model.language.model.rotary_emb.inv_freq, stored)
    assert {parameter.dtype for parameter in bf16.model.parameters()} == {torch.bfloat16}
    state = {name: tensor for name, tensor in tensors(404).items() if "inv_freq" not in name}
    with pytest.raises(ValueError, match=r"holds no rotary_emb\.inv_freq; load it with rotary=exact"):
        ShareCaptioner.load(checkpoint(state))
    assert torch.equal(
        ShareCaptioner.load(checkpoint(state), rotary="exact").logits(pixels, *IDS), exact.logits(pixels, *IDS)
    )


def test_lora_pairs_are_merged(checkpoint: Checkpoint, tensors: Tensors, pixels: Tensor) -> None:
    """As the v1 base holds them: weight + alpha / rank * B A, alpha and rank being alike where nothing is said."""
    name = "internlm_model.model.layers.1.mlp.up_proj."
    down, up = torch.randn(2, 64), torch.randn(96, 2)
    pair = tensors(404) | {f"{name}lora_A.weight": down, f"{name}lora_B.weight": up}
    merged = tensors(404)
    merged[f"{name}weight"] = merged[f"{name}weight"] + up @ down
    ours = ShareCaptioner.load(checkpoint(pair)).logits(pixels, *IDS)
    torch.testing.assert_close(ours, ShareCaptioner.load(checkpoint(merged)).logits(pixels, *IDS))
    half = ShareCaptioner.load(checkpoint(pair), overrides={"lora": {"lora_alpha": 4, "lora_r": 8}})
    assert not torch.allclose(half.logits(pixels, *IDS), ours)
    del pair[f"{name}lora_A.weight"]
    with pytest.raises(ValueError, match=r"missing from the files: .*up_proj\.lora_A\.weight$"):
        ShareCaptioner.load(checkpoint(pair))


def test_guesses_are_logged_once(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_SAID", set())
    folder = checkpoint(None)
    with caplog.at_level(logging.WARNING):
        ShareCaptioner.load(folder)
        assert not caplog.records  # config.json settles everything
        config = json.loads((folder / "config.json").read_text())
        del config["resampler_cls"], config["resampler_ln_eps"]
        (folder / "config.json").write_text(json.dumps(config))
        ShareCaptioner.load(folder)
        ShareCaptioner.load(folder)
    assert len(caplog.records) == 1
    assert "taken unproven: resampler_cls=keep, resampler_ln_eps=1e-06." in caplog.text
    assert "`sigma captioner validate` settles it" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"resampler_heads": 5}, "resampler_heads=5 does not divide the resampler's width, 64"),
        ({"resampler_heads": None}, "resampler_heads is missing, and there is no guess for a width of 64"),
        ({"resampler_cls": "maybe"}, "resampler_cls='maybe': one of keep, drop"),
        ({"resampler_key_pos": "patches"}, "resampler_key_pos='patches': true or false"),
        ({"resampler_ln_eps": 0.0}, "resampler_ln_eps=0.0: a number above 0"),
        ({"vision_heads": None}, "vision_heads=None does not divide a width of 32"),
    ],
)
def test_impossible_choices_are_refused(checkpoint: Checkpoint, overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShareCaptioner.load(checkpoint(None), overrides=overrides)
    with pytest.raises(ValueError, match="rotary='other': one of reference, exact"):
        ShareCaptioner.load(checkpoint(None), rotary="other")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dtype='int8': one of fp32, bf16, fp16"):
        ShareCaptioner.load(checkpoint(None), dtype="int8")
