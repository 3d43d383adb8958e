"""Draws the tokens of a caption with noise that depends on its seed, the step and the token, but not on its batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

GOLDEN = -7046029254386353131
"""2^64 divided by the golden ratio, as a signed integer: the step of splitmix64."""
ROUNDS = ((30, -4658895280553007687), (27, -7723592293110705685), (31, 1))
"""Shift and factor of each round of splitmix64's finaliser (Steele, Lea, Flood 2014), as signed integers."""


class GumbelDice:
    """Standard Gumbel noise for a batch of captions, one row per seed. The largest of `score + noise` is a draw from
    softmax(score), and the k largest are k draws without replacement (Gumbel-max; Kool, van Hoof, Welling 2019). It is
    a hash, computed on the device: a caption comes out the same in any batch, on any worker."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self._state = _mixed(torch.tensor([seed % 2**63 for seed in seeds], dtype=torch.int64, device=device) + GOLDEN)

    def noise(self, step: int, choices: Tensor) -> Tensor:
        """Float64 noise of the shape of `choices`, (rows, k) integers that name what is drawn from."""
        state = _mixed(self._state + (step + 1) * 0x9E3779B1)  # (rows,)
        bits = _mixed(_mixed(state[:, None] + choices * GOLDEN) + GOLDEN)
        uniform = (((bits >> 11) & (2**53 - 1)).double() + 0.5) / 2**53
        return -(-uniform.log()).log()


class DrawOneToken(LogitsProcessor):
    """Turns greedy search into sampling: only the token that the dice draw keeps a finite score."""

    def __init__(self, dice: GumbelDice, top_k: int) -> None:
        self._dice = dice
        self._top_k = top_k

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Args: input_ids (B, step), generated so far; scores (B, V)."""
        likeliest, tokens = scores.topk(min(self._top_k, scores.shape[1]), dim=1)
        place = draw_without_replacement(likeliest, tokens, self._dice, input_ids.shape[1], 1)
        drawn = tokens.gather(1, place)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)


def draw_without_replacement(log_probs: Tensor, names: Tensor, dice: GumbelDice, step: int, num_draws: int) -> Tensor:
    """(B, num_draws) columns of `log_probs` (B, N), drawn one after the other from its softmax. `names`: (B, N), the
    integers that name the columns for the dice."""
    return (log_probs.double() + dice.noise(step, names)).topk(num_draws, dim=1).indices


def _mixed(bits: Tensor) -> Tensor:
    """Mix every bit of an int64 into every other; multiplication wraps around."""
    for shift, factor in ROUNDS:
        bits = (bits ^ ((bits >> shift) & (2 ** (64 - shift) - 1))) * factor
    return bits
