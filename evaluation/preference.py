"""Preferences between models: intervals of a share and of a mean, a judge's verdicts, and Bradley-Terry strengths."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

Verdict = Literal["first", "second", "tie", "unparsed", "refused"]
"""What a judge said of two pictures in the order in which it saw them; the last two are no answer."""
Outcome = Literal["win", "half_win", "tie", "half_loss", "loss", "position", "unanswered"]
"""Of two orders, seen from the first model. position: the judge chose by the order. A half: one order is a tie."""

_SCORES: dict[str, float] = {"first": 1.0, "tie": 0.5, "second": 0.0}


class Interval(NamedTuple):
    """A value, and the limits around it at the confidence that was wanted."""

    value: float
    low: float
    high: float


class Preference(NamedTuple):
    """What a judge says of two models, over pairs of pictures of the same prompts."""

    win_rate: Interval
    """(wins + half of all that is undecided) / answered, with a bootstrap over prompts."""
    decided: Interval
    """Wins / (wins + losses), by Wilson; a half win or loss is not among them."""
    share_tied: float
    """Of the answered pairs: both orders are a tie."""
    share_position: float
    """Of the answered pairs: the two orders contradict each other."""
    share_unanswered: float
    """Of all pairs: an order is unparsed or refused. Neither a tie nor a loss."""
    share_unparsed: float
    """Of all verdicts."""
    share_refused: float
    """Of all verdicts."""
    lean: Interval
    """By how much more than half the judge chooses the first picture, -0.5 to 0.5, where it chooses; by Wilson."""
    num_pairs: int
    num_answered: int
    wins: int
    losses: int


def wilson(wins: float, losses: float, confidence: float = 0.95) -> Interval:
    """The share of wins with Wilson's score interval (1927). Raises ValueError: there is no game, a count is negative,
    or confidence is not between 0 and 1."""
    total = wins + losses
    if not (wins >= 0 and losses >= 0 and total > 0):
        raise ValueError(f"an interval needs games that were won or lost; these are {wins} and {losses}")
    z = _normal_quantile(confidence)
    share, square = wins / total, z * z / total
    middle = (share + square / 2) / (1 + square)
    half = (square * share * (1 - share) + (square / 2) ** 2) ** 0.5 / (1 + square)
    return Interval(share, 0.0 if not wins else middle - half, 1.0 if not losses else middle + half)


def bootstrap(values: np.ndarray, draws: int = 10_000, seed: int = 0, confidence: float = 0.95) -> Interval:
    """The mean of values (n,) with the percentile interval over seeded draws of n values with replacement. Raises
    ValueError: values is not a row of finite numbers, there is no draw, or confidence is not between 0 and 1."""
    return bootstrap_of_groups([values], draws, seed, confidence)


def bootstrap_of_groups(
    groups: Sequence[np.ndarray], draws: int = 10_000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """The mean over groups of each one's mean, where each draw takes as many values of a group as it has. Raises
    ValueError: as `bootstrap`, of any group; or there is none."""
    _normal_quantile(confidence)
    random, found, drawn = np.random.default_rng(seed), list[float](), list[np.ndarray]()
    for values in groups:
        row = np.asarray(values, dtype=np.float64)
        if row.ndim != 1 or not len(row) or not np.isfinite(row).all() or draws < 1:
            raise ValueError("a bootstrap needs finite values, (n,) with n of at least 1, and at least one draw")
        step = max(1, 2**20 // len(row))
        means = [row[random.integers(0, len(row), (min(step, draws - begin), len(row)))].mean(axis=1)
                 for begin in range(0, draws, step)]  # fmt: skip
        found.append(float(row.mean()))
        drawn.append(np.concatenate(means))
    low, high = np.quantile(np.mean(drawn, axis=0), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(np.mean(found)), float(low), float(high))


def outcome(first_model_first: Verdict | None, second_model_first: Verdict | None) -> Outcome:
    """What two verdicts on one pair say of the first model, which is shown first in one and second in the other. None
    is an order in which nobody was asked, as of people, who see a pair once: the other order then says it all."""
    worth = [
        _SCORES.get(first_model_first or ""),
        None if second_model_first not in _SCORES else 1 - _SCORES[second_model_first],
    ]
    asked = [score for score, said in zip(worth, (first_model_first, second_model_first), strict=True) if said]
    if not asked or None in asked:
        return "unanswered"
    scores = asked[0], asked[-1]
    if scores == (0.5, 0.5):
        return "tie"
    if 0.5 in scores:
        return "half_win" if 1 in scores else "half_loss"
    if scores[0] != scores[1]:
        return "position"
    return "win" if scores[0] else "loss"


def summarise(
    pairs: Iterable[tuple[Verdict | None, Verdict | None]],
    draws: int = 10_000,
    seed: int = 0,
    prompts: Sequence[Hashable] | None = None,
) -> Preference:
    """What the verdicts of both orders say of two models; see `outcome`. `draws`, `seed`: of the bootstrap. `prompts`:
    of each pair, where several pairs are of one prompt: its mean then counts once, since its pictures are no
    independent draws. None takes each pair for a prompt. Raises ValueError: no pair is answered, and so there is no win
    rate."""
    verdicts = list(pairs)
    outcomes = [outcome(*pair) for pair in verdicts]
    worth = {"win": 1.0, "half_win": 0.75, "half_loss": 0.25, "loss": 0.0}
    by_prompt: dict[Hashable, list[float]] = {}
    for name, prompt in zip(outcomes, range(len(verdicts)) if prompts is None else prompts, strict=True):
        if name != "unanswered":
            by_prompt.setdefault(prompt, []).append(worth.get(name, 0.5))
    num_answered = sum(map(len, by_prompt.values()))
    if not num_answered:
        raise ValueError(f"none of {len(verdicts)} pairs is answered in both orders, so there is no win rate")
    nothing = Interval(float("nan"), 0.0, 1.0)
    wins, losses = outcomes.count("win"), outcomes.count("loss")
    said = [verdict for pair in verdicts for verdict in pair if verdict]
    first, second = said.count("first"), said.count("second")
    lean = wilson(first, second) if first + second else nothing
    return Preference(
        win_rate=bootstrap(np.array([np.mean(scores) for scores in by_prompt.values()]), draws, seed),
        decided=wilson(wins, losses) if wins + losses else nothing,
        share_tied=outcomes.count("tie") / num_answered,
        share_position=outcomes.count("position") / num_answered,
        share_unanswered=1 - num_answered / len(verdicts),
        share_unparsed=said.count("unparsed") / len(said),
        share_refused=said.count("refused") / len(said),
        lean=Interval(*(limit - 0.5 for limit in lean)),
        num_pairs=len(verdicts),
        num_answered=num_answered,
        wins=wins,
        losses=losses,
    )


def bradley_terry(wins: np.ndarray, names: Sequence[str] | None = None) -> np.ndarray:
    """The log strengths (m,) of m models, mean 0, at maximum likelihood: i beats j by 1 / (1 + exp(s_j - s_i)).

    Args:
        wins: (m, m), how often the model of the row has beaten that of the column; a tie is half a win for both.
        names: of the models, for the message; None is their numbers from 0.

    Raises:
        ValueError: wins is not a square of counts; or some models have never lost to the others, or never met them,
            which makes strengths infinite.
    """
    counts = np.array(wins, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not len(counts):
        raise ValueError(f"wins must be one row and one column per model; its shape is {counts.shape}")
    if not np.isfinite(counts).all() or (counts < 0).any() or np.diagonal(counts).any():
        raise ValueError("wins must be counts, at least 0, and 0 of a model against itself")
    size = len(counts)
    reached = np.linalg.matrix_power((counts > 0) | np.eye(size, dtype=bool), size)
    if not reached.all():
        row = int(np.argmin(reached.all(axis=1)))
        beyond = np.flatnonzero(~reached[row]).tolist()
        others = f"{beyond} (from 0)" if names is None else ", ".join(names[other] for other in beyond)
        model = row if names is None else names[row]
        raise ValueError(
            f"strengths are infinite: model {model} has no win, direct or through others, over {others}; "
            "more games are needed, or compare fewer models"
        )
    games, won, strengths = counts + counts.T, counts.sum(axis=1), np.zeros(size)
    for _ in range(1000):
        chance = 1 / (1 + np.exp(strengths[None] - strengths[:, None]))
        slope = won - (games * chance).sum(axis=1)
        weight = games * chance * chance.T
        bend = np.diag(weight.sum(axis=1)) - weight + 1 / size  # the added constant holds the mean where it is
        step = np.linalg.solve(bend, slope)
        strengths += step / max(1.0, np.abs(step).max())
        if np.abs(step).max() < 1e-12:
            break
    return strengths - strengths.mean()


def _normal_quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, and is {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)
