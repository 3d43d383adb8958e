"""FID, KID, precision and recall of two sets of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evaluation.arrays import check_finite
from evaluation.frechet import Moments, distance_of_few, frechet_distance, jackknife, moments, standard_error
from evaluation.manifold import precision_recall
from evaluation.mmd import kid

FEWEST = 4
"""Pictures a side without which nothing is compared."""
NUM_GROUPS = 10
KID_ROWS = 1000


def flags_of(x: np.ndarray, y: np.ndarray) -> tuple[str, ...]:
    """What numbers of these features suffer from. rank_deficient: fewer pictures than features; constant: all pictures
    of x have the same features."""
    return ("rank_deficient",) * (min(len(x), len(y)) <= x.shape[1]) + ("constant",) * bool((x == x[0]).all())


class Measure(NamedTuple):
    """A number, and where an error is computed the values without each group of the pictures."""

    metric: str
    value: float
    left_out: np.ndarray = np.empty(0)

    @property
    def error(self) -> float | None:
        return standard_error(self.left_out) if len(self.left_out) else None


def groups_of(prompts: Sequence[str]) -> np.ndarray:
    """The group of each picture, (n,): ten, or fewer so that each has two prompts. Prompts go to groups in turn, and
    all pictures of a prompt to one, so that the pictures of any two models are cut alike."""
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    return np.array([places[prompt] for prompt in prompts]) % min(NUM_GROUPS, max(1, len(places) // 2))


def distance_of_many(x: np.ndarray, groups: np.ndarray, mu: np.ndarray, sigma: np.ndarray) -> tuple[float, np.ndarray]:
    """The Fréchet distance of features x (n, d) to a reference's moments, and those without each group of x."""
    parts = [Moments.of(x[groups == group], "generated") for group in np.unique(groups)]
    whole = Moments.merge(parts)
    left_out = jackknife(parts, mu, sigma) if len(parts) > 1 else np.empty(0)
    return frechet_distance(whole.mean, whole.covariance, mu, sigma), left_out


def distances(x: np.ndarray, y: np.ndarray, prompts: Sequence[str] | None = None) -> list[Measure]:
    """FID, KID, precision and recall of features x (n, d) against y (m, d), at least `FEWEST` a side. FID's error is
    that of the pictures that were drawn, by a jackknife over ten groups of prompts. KID is the mean over subsets of
    1,000, or of as many as the smaller side has, which its name says. `prompts`: of each row of x; None where each has
    another. Raises ValueError: a feature is NaN or infinite."""
    check_finite(x, "generated")
    groups = groups_of([str(place) for place in range(len(x))] if prompts is None else prompts)
    if min(len(x), len(y)) <= x.shape[1]:
        fid, left_out = distance_of_few(x, y, groups)
    else:
        fid, left_out = distance_of_many(x, groups, *moments(y))
    size = min(KID_ROWS, len(x), len(y))
    shares = precision_recall(x, y)
    return [
        Measure("fid", fid, left_out),
        Measure(f"kid of {size}", kid(x, y, subset_size=size).mean),
        Measure("precision", shares.precision),
        Measure("recall", shares.recall),
    ]
