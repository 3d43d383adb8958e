from __future__ import annotations

import torch

from captioning.captioners.share_captioner.sampling import GumbelDice

CPU = torch.device("cpu")
NUM_SEEDS = 100_000


def test_noise_is_gumbel_and_independent() -> None:
    """Mean Euler's constant, variance pi² / 6; no correlation between seeds, steps or tokens."""
    tokens = torch.arange(3).expand(NUM_SEEDS, -1)
    dice = GumbelDice(range(NUM_SEEDS), CPU)
    noise = torch.cat((dice.noise(0, tokens), dice.noise(1, tokens), dice.noise(499, tokens)), dim=1)
    noise = torch.cat((noise, noise[:, :1].roll(1, 0)), dim=1)  # the neighbouring seed
    torch.testing.assert_close(noise.mean(dim=0), torch.full((10,), 0.57722).double(), rtol=0, atol=0.02)
    torch.testing.assert_close(noise.var(dim=0), torch.full((10,), 1.64493).double(), rtol=0, atol=0.06)
    assert (torch.corrcoef(noise.T) - torch.eye(10)).abs().max() < 0.015  # 4.7 standard deviations


def test_noise_depends_on_seed_step_and_token_alone() -> None:
    tokens = torch.tensor([[5, 900, 103_171]])
    alone = GumbelDice([2**53 - 1], CPU).noise(7, tokens)
    among = GumbelDice([3, 2**53 - 1, -4], CPU).noise(7, tokens.flip(1).expand(3, -1))
    assert torch.equal(among[1:2].flip(1), alone)
    assert not torch.equal(GumbelDice([2**53 - 1], CPU).noise(8, tokens), alone)


def test_the_hash_has_not_changed() -> None:
    """Captions already written were drawn with these very numbers."""
    noise = GumbelDice([0, 1], CPU).noise(0, torch.tensor([[0, 1], [0, 1]]))
    expected = [[1.8541784489807358, 0.4106512357834483], [-0.29565352675790346, 0.018116704273056835]]
    torch.testing.assert_close(noise, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
