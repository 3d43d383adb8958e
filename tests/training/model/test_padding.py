"""Packed captions: nothing valid is lost, nothing padded is read, and holes in a mask are allowed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.model import PixArt, PixArtConfig
from training.model.blocks import CrossAttention
from training.model.padding import Packing

CONFIG = PixArtConfig(depth=2, hidden_size=16, num_heads=2, caption_channels=8, max_caption_tokens=6, image_size=64)


@given(mask=st.lists(st.lists(st.booleans(), min_size=5, max_size=5).filter(any), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_padding_again_gives_every_row_its_valid_tokens(mask):
    valid = torch.tensor(mask)
    caption = torch.randn(*valid.shape, 3)
    packing = Packing.of(valid.long())
    padded = packing.pad(packing.pack(caption), len(valid))
    assert padded.shape[1] == packing.longest == valid.sum(dim=1).max()
    for row, (tokens, keep) in enumerate(zip(caption, valid, strict=True)):
        keys = torch.ones(packing.longest, dtype=torch.bool) if packing.keys is None else packing.keys[row]
        assert torch.equal(padded[row][keys], tokens[keep])
        assert padded[row][~keys].eq(0).all()


def test_equal_lengths_need_no_mask():
    assert Packing.of(torch.ones(2, 3)).keys is None
    assert Packing.of(torch.tensor([[1, 1, 0], [0, 1, 1]])).keys is None
    assert Packing.of(torch.tensor([[1, 1, 0], [0, 0, 1]])).keys is not None


def test_padding_has_no_influence():
    attention = CrossAttention(8, 2)
    x, caption = torch.randn(2, 4, 8), torch.randn(2, 5, 8)
    mask = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)
    packing = Packing.of(mask)
    answer = attention(x, packing.pack(caption), packing)
    changed = torch.where(mask[:, :, None], caption, 1e6)
    assert torch.equal(answer, attention(x, packing.pack(changed), packing))
    assert torch.allclose(answer[:1], attention(x[:1], caption[:1, [0, 1, 3]], None), atol=1e-6)


@pytest.mark.parametrize("drop", [None, torch.tensor([False, True])])
def test_gradients_are_those_of_captions_without_padding(drop):
    """A batch of two captions of other lengths against each by itself, unpadded and unmasked."""
    torch.manual_seed(0)
    model = PixArt(CONFIG).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    latents, caption = torch.randn(2, 4, 4, 8).double(), torch.randn(2, 6, 8).double()
    timestep, lengths = torch.tensor([10.0, 800.0]).double(), (2, 5)
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]

    def gradients(outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        model.zero_grad()
        sum(output.square().sum() for output in outputs).backward()
        return [p.grad.clone() for p in model.parameters()]

    together = model(latents, timestep, caption, mask, drop)
    apart = [
        model(latents[[i]], timestep[[i]], caption[[i], :n], None, None if drop is None else drop[[i]])
        for i, n in enumerate(lengths)
    ]
    assert torch.allclose(together, torch.cat(apart), atol=1e-6)
    for a, b in zip(gradients([together]), gradients(apart), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-6 * float(b.abs().max()))
