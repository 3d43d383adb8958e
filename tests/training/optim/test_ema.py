"""The average of the weights: its decay and what it does to a model."""

from __future__ import annotations

import torch

from schemas.training import Ema
from training.model import PixArt, PixArtConfig
from training.optim.ema import AveragedModel, decay_at


def tiny() -> PixArt:
    return PixArt(PixArtConfig(depth=1, hidden_size=8, num_heads=1, caption_channels=4, max_caption_tokens=3))


def test_decay_grows_to_its_limit():
    knobs = Ema(decay=0.99)
    decays = [decay_at(step, knobs) for step in (1, 10, 100, 10_000)]
    assert decays == sorted(decays)
    assert decays[0] == 2 / 11 and decays[-1] == 0.99
    assert decay_at(1, Ema(decay=0.99, warmup=False)) == 0.99


def test_the_average_of_constant_weights_follows_the_formula():
    model = tiny()
    average = AveragedModel(model, Ema(decay=0.5, warmup=False))
    start = model.t_block[1].weight.detach().clone()
    with torch.no_grad():
        model.t_block[1].weight.add_(1.0)
    for step in (1, 2, 3):
        average.update(model, step)
    assert torch.allclose(average.model.t_block[1].weight, start + 1 - 0.5**3, atol=1e-6)
    assert not any(p.requires_grad for p in average.model.parameters())


def test_without_an_average_it_is_the_model():
    model = tiny()
    average = AveragedModel(model, Ema(enabled=False))
    with torch.no_grad():
        model.t_block[1].weight.normal_()
    average.update(model, 1)
    assert torch.equal(average.model.t_block[1].weight, model.t_block[1].weight)
