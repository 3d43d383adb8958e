"""The offline codec and text encoder: inverse, scale, determinism."""

from __future__ import annotations

import pytest
import torch

from schemas.training import Latents, Text
from training.encoders.make import codec_for, text_encoder_for
from training.encoders.offline import BlockDCT, HashedText, cosine_basis


def smooth(batch: int, height: int, width: int) -> torch.Tensor:
    torch.manual_seed(0)
    coarse = torch.rand(batch, 3, 5, 5) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(-1, 1)


def test_all_coefficients_lose_nothing():
    codec = BlockDCT(192)
    pixels = torch.rand(2, 3, 16, 24) * 2 - 1
    assert codec.encode(pixels).shape == (2, 192, 2, 3)
    assert torch.allclose(codec.decode(codec.encode(pixels)), pixels, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4, 12, 30])
def test_decoding_is_the_inverse_on_what_is_kept(channels):
    codec = BlockDCT(channels)
    latents = torch.randn(2, channels, 3, 4)
    assert torch.allclose(codec.encode(codec.decode(latents)), latents, atol=1e-4)


def test_more_channels_lose_less_and_twelve_lose_little():
    pixels = smooth(2, 128, 128)
    errors = [(BlockDCT(n).decode(BlockDCT(n).encode(pixels)) - pixels).square().mean().sqrt() for n in (1, 3, 12, 64)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.03


def test_twelve_channels_are_six_of_luma_and_three_of_each_chroma():
    grey = torch.rand(1, 1, 16, 16).expand(1, 3, 16, 16) * 2 - 1
    used = BlockDCT(12).encode(grey).abs().amax(dim=(0, 2, 3)) > 1e-5
    assert used.sum() == 6


def test_the_basis_is_orthonormal():
    basis = cosine_basis()
    assert torch.allclose(basis @ basis.T, torch.eye(8, dtype=torch.float64), atol=1e-12)


def test_text_is_deterministic_unpadded_and_cut():
    first, second = HashedText(16, 10), text_encoder_for(Text(channels=16, max_tokens=10))
    text = "A red boat on a lake."
    assert torch.equal(first.encode(text), second.encode(text))
    assert first.encode(text).shape == (8, 16)  # six words, a full stop, the end
    assert first.encode("").shape == (1, 16)
    assert first.encode("word " * 50).shape == (10, 16)
    assert torch.equal(first.encode("word " * 50), first.encode("word " * 400))
    assert torch.allclose(first.encode(text).norm(dim=1), torch.tensor(HashedText.NORM))


def test_texts_are_told_apart_by_words_and_by_order():
    encoder = HashedText(64, 20)
    a, b, c = (encoder.encode(text) for text in ("dog bites man", "man bites dog", "dog bites men"))
    assert (a - b).norm(dim=1).max() > 10 and (a - c).norm(dim=1).max() > 10
    assert torch.equal(a[0], c[0])


def test_the_null_caption_is_the_padded_empty_one():
    encoder = HashedText(16, 10)
    assert encoder.null().shape == (10, 16)
    assert torch.equal(encoder.null()[:1], encoder.encode(""))


def test_a_recipe_names_its_codec():
    assert codec_for(Latents(channels=5)).channels == 5


def test_mixed_latents_decode_to_the_same_pictures_and_are_others():
    pixels = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    plain, mixed = BlockDCT(12), BlockDCT(12, mixed=True)
    one, other = plain.encode(pixels), mixed.encode(pixels)
    torch.testing.assert_close(mixed.decode(other), plain.decode(one), rtol=0, atol=1e-5)
    torch.testing.assert_close(other.norm(dim=1), one.norm(dim=1))  # a turn: lengths stay
    assert (other - one).norm() > one.norm()
