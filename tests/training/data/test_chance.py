"""Chance is a function of what it is for: repeatable, independent, of the right shape."""

from __future__ import annotations

import torch

from training.data.chance import Chance, noise


def test_the_same_arguments_give_the_same_numbers():
    a, b = Chance(3, "stage"), Chance(3, "stage")
    assert a.coin("id", "drop", 4, 1) == b.coin("id", "drop", 4, 1)
    assert a.timestep("id", 4, 1) == b.timestep("id", 4, 1)
    assert a.noise_seed("id", 4, 1) == b.noise_seed("id", 4, 1)


def test_other_arguments_give_other_numbers():
    base = Chance(3, "stage").noise_seed("id", 4, 1)
    others = [
        Chance(2, "stage").noise_seed("id", 4, 1),
        Chance(3, "other").noise_seed("id", 4, 1),
        Chance(3, "stage").noise_seed("di", 4, 1),
        Chance(3, "stage").noise_seed("id", 5, 1),
        Chance(3, "stage").noise_seed("id", 4, 2),
    ]
    assert len({base, *others}) == 6


def test_timesteps_are_uniform():
    steps = torch.tensor([Chance(0, "s").timestep(str(i), 0, 0) for i in range(4000)])
    assert steps.min() >= 0 and steps.max() <= 999
    assert torch.histc(steps.float(), 10, 0, 1000).min() > 330


def test_a_row_of_noise_depends_on_its_own_seed_alone():
    together, alone = noise([5, 6, 7], (2, 3, 4)), noise([6], (2, 3, 4))
    assert together.shape == (3, 2, 3, 4)
    assert torch.equal(together[1], alone[0])
    many = noise(range(400), (4, 4, 4))
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02
