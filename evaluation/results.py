"""Results: what two sets of features say, in rows that name all that a number depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from evaluation.arrays import check_finite
from evaluation.clip_score import clip_score
from evaluation.features import Features
from evaluation.frechet import Moments, distance_of_few, frechet_distance, jackknife, moments, standard_error
from evaluation.manifold import precision_recall
from evaluation.mmd import kid
from evaluation.preference import Interval, bootstrap
from models.clip import Clip

FEWEST = 4
"""Pictures a side without which nothing is compared."""
NUM_GROUPS = 10
KID_ROWS = 1000
TEXT_BATCH = 256


@dataclass(frozen=True)
class Result:
    """One number. Rows compare where everything but `value` and `error` is equal."""

    metric: str
    value: float
    error: float | None
    """Its standard error; None where none is computed."""
    network: str
    protocol: str
    num_generated: int
    num_reference: int
    flags: tuple[str, ...] = ()
    """rank_deficient: fewer pictures than features; constant: all generated pictures have the same features."""


def compare(generated: Features, reference: Features, *, allow_missing: bool = False) -> list[Result]:
    """FID, KID, precision and recall of pictures against a reference. FID's error is that of the pictures that were
    drawn, by a jackknife over ten groups of prompts. KID is the mean over subsets of 1,000, or of as
    many as the smaller side has, which its name says. Raises ValueError: the networks or protocols differ, a picture
    could not be read, or a side has fewer than 4 pictures."""
    for what in ("network", "protocol"):
        one, two = getattr(generated, what), getattr(reference, what)
        if one != two:
            raise ValueError(f"features of the {what} {one} do not compare with those of {two}")
    for name, side in (("generated", generated), ("reference", reference)):
        _check_whole(name, side, allow_missing)
    x, y = generated.rows, reference.rows
    if min(len(x), len(y)) < FEWEST:
        raise ValueError(f"a comparison needs at least {FEWEST} pictures a side; there are {len(x)} and {len(y)}")
    flags = flags_of(x, y)
    measures = distances(x, y)
    return [Result(each.metric, each.value, each.error, generated.network, generated.protocol, len(x), len(y), flags)
            for each in measures]  # fmt: skip


def flags_of(x: np.ndarray, y: np.ndarray) -> tuple[str, ...]:
    """What numbers of these features suffer from; see `Result.flags`."""
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
    """FID, KID, precision and recall of features x (n, d) against y (m, d), at least `FEWEST` a side. `prompts`: of
    each row of x; None where each has another. Raises ValueError: a feature is NaN or infinite."""
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


@dataclass(frozen=True)
class Agreement:
    """How well pictures fit their texts, by one CLIP, and how much of the texts it has read."""

    cosines: np.ndarray
    """Of each picture that could be read."""
    mean: Interval
    """Of the cosines, with a bootstrap over pictures; others print it times 100."""
    network: str
    share_cut: float
    """Texts of which CLIP has read the beginning alone."""
    share_read: float
    """Tokens that CLIP has read, of all: the mean over the texts of each one's share."""


def agree(pictures: Features, texts: Sequence[str], clip: Clip, *, allow_missing: bool = False) -> Agreement:
    """CLIP-Score of pictures, as `clip_features` gives them, with their texts in order. Raises ValueError: the features
    are of another CLIP, a picture could not be read, or there is not one text a picture."""
    if (pictures.network, pictures.protocol) != (clip.name, "clip"):
        raise ValueError(
            f"features of {pictures.network} ({pictures.protocol}) do not compare with texts of {clip.name}"
        )
    _check_whole("generated", pictures, allow_missing)
    num = len(pictures.rows) + len(pictures.unreadable)
    if len(texts) != num:
        raise ValueError(f"there are {num} pictures and {len(texts)} texts: each picture needs one text")
    read = [text for number, text in enumerate(texts) if number not in pictures.unreadable]
    embedded = [clip.embed_texts(read[begin : begin + TEXT_BATCH]) for begin in range(0, len(read), TEXT_BATCH)]
    cosines = clip_score(pictures.rows, np.concatenate(embedded))
    shares = np.array([min(1.0, clip.max_tokens / clip.num_tokens(text)) for text in read])
    return Agreement(cosines, bootstrap(cosines), clip.name, float((shares < 1).mean()), float(shares.mean()))


def _check_whole(name: str, side: Features, allow_missing: bool) -> None:
    if side.unreadable and not allow_missing:
        number, why = next(iter(side.unreadable.items()))
        raise ValueError(
            f"{len(side.unreadable)} of the {name} pictures could not be read, first number {number}: {why}; "
            "mend them, or set allow_missing to measure the others"
        )
