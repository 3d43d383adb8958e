"""CLIP-Score: how well pictures agree with their texts, as the cosine of their CLIP embeddings. A value compares only
with one of the same CLIP and scale: others print the mean cosine times 100, Hessel et al. (arXiv 2104.08718) 2.5 times
the mean with 0 for negative ones, torchmetrics 100 times the mean, or 0 where that is negative. CLIP reads 77 tokens,
so the score of a long caption is one of its beginning."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from evaluation.arrays import Rows, as_finite, as_pair

BLOCK_ROWS = 4096


class ClipScore(NamedTuple):
    """The mean over pictures, in the three ways in which it is printed."""

    cosine: float
    times_100: float
    hessel: float
    num_pictures: int


def clip_score(images: Rows, texts: Rows) -> np.ndarray:
    """The cosine of each picture (n, d) with its text (n, d); (n,), float64, -1 to 1, not clamped at 0. Embeddings may
    have any length: they are normalised here. Raises ValueError: there is not one text per picture, widths differ, a
    value is not finite, or an embedding is all zeros, which has no direction; the message names the row."""
    first, second = as_pair(images, texts, ("images", "texts"))
    if len(first) != len(second):
        raise ValueError(f"there are {len(first)} images and {len(second)} texts: each image needs one text")
    cosines = np.empty(len(first))
    for begin in range(0, len(first), BLOCK_ROWS):
        place = slice(begin, begin + BLOCK_ROWS)
        units = _unit(first[place], "images", begin), _unit(second[place], "texts", begin)
        cosines[place] = np.einsum("nd,nd->n", *units)
    return np.clip(cosines, -1, 1)


def summarise(cosines: np.ndarray) -> ClipScore:
    """The mean of cosines (n,), n of at least 1. Raises ValueError: there are none."""
    if not len(cosines):
        raise ValueError("a CLIP-Score needs at least one picture with its text")
    mean = float(np.mean(cosines))
    return ClipScore(mean, 100 * mean, 2.5 * float(np.maximum(cosines, 0).mean()), len(cosines))


def _unit(rows: np.ndarray, name: str, first_row: int) -> np.ndarray:
    """Rows of length 1, whatever theirs is: the largest value is divided out first, so that no square overflows."""
    block = as_finite(rows, name, first_row)
    largest = np.abs(block).max(axis=1, keepdims=True)
    if not largest.all():
        raise ValueError(f"{name} holds zeros alone in row {first_row + int(np.argmin(largest))} (from 0)")
    block /= largest
    return block / np.linalg.norm(block, axis=1, keepdims=True)
