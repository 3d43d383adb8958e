"""Against numbers of the published code at tiny dimensions; skipped where they are absent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from captioning.captioners.share_captioner import Decoding, ShareCaptioner
from captioning.captioners.share_captioner.generation import generate_ids
from captioning.captioners.share_captioner.model import preprocess
from captioning.captioners.share_captioner.resampler import sincos_2d
from captioning.captioners.share_captioner.tokenizer import Tokenizer

FEATURES, LOGITS = 2e-5, 1e-4
"""Largest difference allowed."""


class Numbers:
    """One folder of them: the model, and what it should give."""

    def __init__(self, folder: Path, **overrides: object) -> None:
        self.captioner = ShareCaptioner.load(folder, overrides=overrides)
        with np.load(folder / "io.npz") as file:
            self.arrays = {name: torch.from_numpy(file[name]) for name in file.files}
        self.inputs = tuple(self.arrays[name] for name in ("pixel_values", "input_ids_before", "input_ids_after"))

    def close(self, ours: Tensor, name: str, tolerance: float) -> bool:
        return ours.shape == self.arrays[name].shape and bool((ours - self.arrays[name]).abs().max() <= tolerance)


@pytest.fixture(scope="module", params=["share_captioner", "xcomposer7b"])
def numbers(request: pytest.FixtureRequest, fixtures: Path) -> Numbers:
    return Numbers(fixtures / request.param)


def test_the_vision_tower_and_the_connector(numbers: Numbers) -> None:
    model, pixels = numbers.captioner.model, numbers.inputs[0]
    with torch.inference_mode():
        vision = model.vision(pixel_values=pixels).last_hidden_state
        read = model.connector(vision)
    v1 = "ln_vision_out" in numbers.arrays
    assert numbers.close(vision, "ln_vision_out" if v1 else "vision_features", FEATURES)
    assert numbers.close(read, "qformer_out" if v1 else "resampler_out", FEATURES)
    assert numbers.close(numbers.captioner.encode_image(pixels), "projected", FEATURES)


def test_the_prompt_and_its_logits(numbers: Numbers) -> None:
    prompt = numbers.captioner.prompt(*numbers.inputs)
    assert numbers.close(prompt, "inputs_embeds", FEATURES)
    image = prompt[:, 6 : 6 + numbers.arrays["image_embeds"].shape[1]]
    assert numbers.close(image, "image_embeds", FEATURES)
    assert numbers.close(numbers.captioner.logits(*numbers.inputs), "logits", LOGITS)


@pytest.mark.parametrize(("penalty", "name"), [(1.0, "greedy_ids"), (1.5, "greedy_ids_reppen1.5")])
def test_greedy_ids(numbers: Numbers, penalty: float, name: str) -> None:
    decoding = Decoding("greedy", max_new_tokens=16, repetition_penalty=penalty)
    prompt = numbers.captioner.prompt(*numbers.inputs)
    assert generate_ids(numbers.captioner.model.language, prompt, decoding, [0, 0], []) == numbers.arrays[name].tolist()


@pytest.mark.parametrize(
    ("overrides", "suffix"),
    [({"resampler_cls": "drop"}, "__cls_dropped"), ({"resampler_key_pos": False}, "__key_nopos")],
)
def test_the_other_readings_of_the_resampler(fixtures: Path, overrides: dict[str, object], suffix: str) -> None:
    numbers = Numbers(fixtures / "share_captioner", **overrides)
    assert numbers.close(numbers.captioner.encode_image(numbers.inputs[0]), f"projected{suffix}", FEATURES)
    assert numbers.close(numbers.captioner.logits(*numbers.inputs), f"logits{suffix}", LOGITS)


def test_another_head_count(fixtures: Path) -> None:
    numbers = Numbers(fixtures / "share_captioner", resampler_heads=2)
    with torch.inference_mode():
        read = numbers.captioner.model.connector(numbers.arrays["vision_features"])
    assert numbers.close(read, "resampler_out__heads2", FEATURES)
    assert not numbers.close(read, "resampler_out", 1.0)


def test_epsilons_that_the_tolerance_cannot_tell_apart(fixtures: Path) -> None:
    vision = Numbers(fixtures / "xcomposer7b").captioner.model.vision
    assert isinstance(vision.post_layernorm, torch.nn.LayerNorm) and vision.post_layernorm.eps == 1e-5
    assert vision.encoder.layers[0].layer_norm1.eps == 1e-6
    resampler = Numbers(fixtures / "share_captioner").captioner.model.connector
    assert resampler.ln_kv.eps == 1e-6


def test_the_positions_of_the_queries_are_the_fixed_grid(fixtures: Path) -> None:
    stored = Numbers(fixtures / "share_captioner").captioner.model.connector.pos_embed
    torch.testing.assert_close(stored.data, sincos_2d(64, 4), rtol=0, atol=1e-6)


def test_pixels_are_bit_equal(fixtures: Path) -> None:
    folder = fixtures / "share_captioner"
    with Image.open(folder / "image.png") as image, Image.open(folder / "image_rgba.png") as transparent:
        small, alpha = preprocess([image, transparent], 112).numpy()
        full = preprocess([image], 448)[0].numpy()
    with np.load(folder / "preprocess.npz") as expected:
        assert np.array_equal(small, expected["pixels_112"])
        assert np.array_equal(alpha, expected["rgba_pixels_112"])
        assert np.array_equal(full[:, ::8, ::8], expected["pixels_448_stride8"])
        assert np.array_equal(full.sum((1, 2), dtype=np.float64), expected["pixels_448_sum"])


def test_the_published_tokenizer(fixtures: Path) -> None:
    folder = fixtures / "share_captioner"
    cases = json.loads((folder / "tokenizer_cases.json").read_text())
    tokenizer = Tokenizer(folder)
    assert len(tokenizer) == cases["n_pieces"]
    assert tokenizer.end_of_answer == cases["eoa"][1]
    assert tokenizer.prompt() == (cases["prompt_before_ids"], cases["prompt_after_ids"])
    for row in cases["rows"]:
        assert tokenizer.encode(row["text"]) == row["ids"]
        assert tokenizer.decode(row["ids"]) == row["decoded"]
    for trap in cases["merge_order_traps"]:
        assert tokenizer.encode(trap["text"]) == trap["ids"] != trap["vocab_order_bpe_ids"]


def test_a_tokenizer_that_is_larger_than_the_model(fixtures: Path) -> None:
    captioner = ShareCaptioner.load(fixtures / "share_captioner")
    with pytest.raises(ValueError, match=r"tokenizer\.model has 103168 pieces, the model 128 embeddings"):
        captioner.generate([Image.new("RGB", (20, 20))], [0])
