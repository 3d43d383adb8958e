"""Precision and recall of generated pictures: how many look real, and how much of what is real they reach. Kynkäänniemi
et al., arXiv 1904.06991: a set's manifold is the union of balls around its features, each as wide as the distance to
the k-th nearest other feature of the set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from evaluation.arrays import Rows, as_pair, check_finite

BLOCK_ROWS = 2048
_ROUNDING = 16 * float(np.finfo(np.float64).eps)
"""How far apart two equal squared distances may come out, relative to the largest square of a row."""


class PrecisionRecall(NamedTuple):
    """Shares, 0 to 1."""

    precision: float
    """Generated pictures inside the manifold of the real ones."""
    recall: float
    """Real pictures inside the manifold of the generated ones."""
    f_score: float
    """The harmonic mean of both; 0 where both are."""


def precision_recall(generated: Rows, real: Rows, k: int = 3) -> PrecisionRecall:
    """Precision and recall of features (n, d) and (m, d), in float64 and in blocks. A feature is not its own neighbour,
    a copy of it is; one at just the radius is inside. Raises ValueError: either is not rows of finite numbers, their
    widths differ, or a set has no k-th neighbour."""
    first, second = as_pair(generated, real, ("generated", "real"))
    if k < 1 or min(len(first), len(second)) <= k:
        raise ValueError(
            f"a {k}-th nearest neighbour needs k of at least 1 and more than k rows a side; "
            f"generated has {len(first)} and real has {len(second)}"
        )
    check_finite(first, "generated")
    check_finite(second, "real")
    centre = second.mean(axis=0, dtype=np.float64)
    one, two = (torch.from_numpy(rows.astype(np.float64) - centre) for rows in (first, second))
    slack = _ROUNDING * max(float((rows * rows).sum(dim=1).max()) for rows in (one, two))
    precision = _share_inside(one, two, _radii(two, k) + slack)
    recall = _share_inside(two, one, _radii(one, k) + slack)
    both = precision + recall
    return PrecisionRecall(precision, recall, 2 * precision * recall / both if both else 0.0)


def _squares(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """|a - b|^2 of all pairs."""
    return torch.addmm((b * b).sum(dim=1), a, b.T, alpha=-2).add_((a * a).sum(dim=1)[:, None])


def _radii(rows: torch.Tensor, k: int) -> torch.Tensor:
    """The squared distance of each row to its k-th nearest other row."""
    radii = []
    for i in range(0, len(rows), BLOCK_ROWS):
        block = rows[i : i + BLOCK_ROWS]
        nearest = torch.full((len(block), k), torch.inf, dtype=rows.dtype)
        for j in range(0, len(rows), BLOCK_ROWS):
            squares = _squares(block, rows[j : j + BLOCK_ROWS])
            if i == j:
                squares.fill_diagonal_(torch.inf)
            nearest = torch.cat([nearest, squares], dim=1).topk(k, largest=False).values
        radii.append(nearest[:, -1])
    return torch.cat(radii)


def _share_inside(points: torch.Tensor, centres: torch.Tensor, radii: torch.Tensor) -> float:
    """The share of points inside at least one ball; radii are squared."""
    inside = 0
    for i in range(0, len(points), BLOCK_ROWS):
        block = points[i : i + BLOCK_ROWS]
        found = torch.zeros(len(block), dtype=torch.bool)
        for j in range(0, len(centres), BLOCK_ROWS):
            found |= (_squares(block, centres[j : j + BLOCK_ROWS]) <= radii[j : j + BLOCK_ROWS]).any(dim=1)
        inside += int(found.sum())
    return inside / len(points)
