"""The real encoders, tiny: shapes, scale, sampling, padding, and each way weights can fail to be there."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from schemas.training import Latents, Text
from training.encoders.make import codec_for, text_encoder_for
from training.encoders.pretrained import SCALING_FACTOR

CAPTION = "A red boat on the lake"


@pytest.fixture
def vae_knobs(real_components):
    return {"codec": "sdxl", "weights": str(real_components)}


@pytest.fixture
def encoder(real_components):
    values = {"encoder": "t5", "weights": str(real_components), "channels": 32, "precision": "fp32"}
    return text_encoder_for(Text.from_mapping(values))


def test_latents_are_scaled_and_come_back_in_shape(vae_knobs, real_components):
    from diffusers import AutoencoderKL

    codec = codec_for(Latents.from_mapping(vae_knobs))
    pixels = torch.rand(3, 3, 32, 48) * 2 - 1
    latents = codec.encode(pixels)
    assert latents.shape == (3, 4, 4, 6) and codec.channels == 4
    vae = AutoencoderKL.from_pretrained(real_components / "vae").eval()
    with torch.no_grad():
        assert torch.allclose(latents, vae.encode(pixels).latent_dist.mean * SCALING_FACTOR, atol=1e-6)
        assert torch.allclose(codec.decode(latents), vae.decode(latents / SCALING_FACTOR).sample, atol=1e-5)
    assert codec.decode(latents).shape == pixels.shape


def test_a_sampled_latent_depends_on_its_own_picture_and_seed_alone(vae_knobs):
    codec = codec_for(Latents.from_mapping(vae_knobs))
    mean = codec_for(Latents.from_mapping(vae_knobs | {"posterior": "mean"}))
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    both, alone = codec.encode(pixels, [5, 6]), codec.encode(pixels[1:], [6])
    assert torch.equal(both[1:], alone)
    assert not torch.equal(both, codec.encode(pixels, [5, 7]))
    assert torch.equal(mean.encode(pixels, [5, 6]), codec.encode(pixels))


@pytest.mark.slow
def test_latents_of_many_seeds_have_the_encoders_spread(vae_knobs, real_components):
    from diffusers import AutoencoderKL

    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    drawn = codec_for(Latents.from_mapping(vae_knobs)).encode(pixels.expand(200, -1, -1, -1), list(range(200)))
    with torch.no_grad():
        std = AutoencoderKL.from_pretrained(real_components / "vae").encode(pixels).latent_dist.std
    assert (drawn.std(0) / (std[0] * SCALING_FACTOR)).mean().item() == pytest.approx(1, abs=0.06)


def test_text_is_unpadded_and_equals_the_valid_tokens_of_the_padded(encoder, real_components):
    from transformers import T5EncoderModel, T5Tokenizer

    model = T5EncoderModel.from_pretrained(real_components / "text_encoder").eval()
    tokenizer = T5Tokenizer.from_pretrained(real_components / "tokenizer")

    def published(text):
        tokens = tokenizer(text, max_length=300, padding="max_length", truncation=True, return_tensors="pt")
        with torch.no_grad():
            answer = model(tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return answer.last_hidden_state[0], int(tokens["attention_mask"].sum())

    padded, length = published(CAPTION)
    mine = encoder.encode(CAPTION)
    assert mine.shape == (length, 32) and 2 < length < 60
    assert torch.allclose(mine, padded[:length], atol=1e-5)
    null, null_length = published("")
    assert null_length == 1  # the end of the text
    assert encoder.null().shape == (300, 32)
    assert torch.allclose(encoder.null(), null, atol=1e-5)
    assert encoder.encode("boat " * 900).shape == (300, 32)


def test_text_is_taken_as_it_is(encoder):
    assert not torch.equal(encoder.encode("at DAWN"), encoder.encode("at dawn"))


def test_missing_weights_name_the_id_the_size_and_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for given in (None, str(tmp_path), "./nowhere/at/all", "some/model"):
        size = "its page for the size" if given == "some/model" else " GB"
        with pytest.raises(
            ValueError, match=rf"weights missing: .*{size}\).*hf download .* then set latents\.weights="
        ):
            codec_for(Latents(codec="sdxl", channels=4, weights=given))
        with pytest.raises(ValueError, match=rf"weights missing: .*{size}\).*hf download .* then set text\.weights="):
            text_encoder_for(Text(encoder="t5", weights=given))


@pytest.mark.parametrize(("key", "value"), [("scaling_factor", 0.18215), ("latents_mean", [0.0] * 4)])
def test_another_vae_is_refused(tmp_path, real_components, key, value):
    shutil.copytree(real_components / "vae", tmp_path / "vae")
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    (tmp_path / "vae" / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(ValueError, match=f"is no SDXL VAE, {key} is"):
        codec_for(Latents(codec="sdxl", channels=4, weights=str(tmp_path)))


def test_a_text_encoder_of_another_width_is_refused(real_components):
    with pytest.raises(ValueError, match=r"gives 32 channels; set text\.channels=32"):
        text_encoder_for(Text.from_mapping({"encoder": "t5", "weights": str(real_components)}))


def test_damaged_weights_are_refused(tmp_path, real_components):
    from safetensors.torch import load_file, save_file

    shutil.copytree(real_components, tmp_path / "c")
    file = tmp_path / "c" / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["decoder.conv_out.bias"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks decoder\.conv_out\.bias|cannot be loaded"):
        codec_for(Latents(codec="sdxl", channels=4, weights=str(tmp_path / "c")))
    (tmp_path / "c" / "text_encoder" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match="cannot be loaded"):
        text_encoder_for(Text(encoder="t5", channels=32, weights=str(tmp_path / "c")))
