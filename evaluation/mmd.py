"""Maximum mean discrepancies between two sets of features, as they are given: CMMD with its Gaussian kernel (Jayasumana
et al., arXiv 2401.09603), of CLIP ViT-L/14-336 embeddings of length 1, and KID with its cubic one (Binkowski et al.,
arXiv 1801.01401), of the Inception features that FID takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import factorial
from typing import Literal, NamedTuple

import numpy as np
import torch

from evaluation.arrays import Rows, as_finite, as_pair, check_finite

BLOCK_ROWS = 1024
_SERIES_TO = 0.1
"""The largest t for which 1 - exp(-t) is summed as a series."""
_SERIES_ERROR = 1e-8
"""What the series may leave out, relative to what it has from its third term on."""


class Kid(NamedTuple):
    """The unbiased discrepancy over subsets; slightly below zero is right for sets that are alike."""

    mean: float
    std: float
    """Over the subsets, with n."""


def kid(
    x: Rows,
    y: Rows,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
    protocol: Literal["torch-fidelity", "clean-fid"] = "torch-fidelity",
) -> Kid:
    """The Kernel Inception Distance of features x (n, d) and y (m, d), over subsets drawn without replacement. `seed`:
    of numpy's RandomState; 2020 is torch-fidelity's. `protocol`: torch-fidelity draws from x first, in float64 here.
    clean-fid draws from y first, and computes in the features' own precision, which costs float32 some 1e-7: for its
    own numbers alone. Raises ValueError: no rows of finite numbers, other widths, or a set smaller than a subset."""
    first, second = as_pair(x, y, ("x", "y"))
    if subsets < 1 or subset_size < 2:
        raise ValueError(f"KID needs at least 1 subset of at least 2 rows; these are {subsets} of {subset_size}")
    if min(len(first), len(second)) < subset_size:
        raise ValueError(
            f"x has {len(first)} rows and y has {len(second)}, which is less than a subset of {subset_size}: "
            "set subset_size, and compare only values of the same one"
        )
    check_finite(first, "x")
    check_finite(second, "y")
    random = np.random.RandomState(seed)
    values = np.empty(subsets)
    for number in range(subsets):
        if protocol == "torch-fidelity":
            of_x = random.choice(len(first), subset_size, replace=False)
            of_y = random.choice(len(second), subset_size, replace=False)
            values[number] = _cubic_mmd(first[of_x].astype(np.float64), second[of_y].astype(np.float64))
        else:
            of_y = random.choice(len(second), subset_size, replace=False)
            of_x = random.choice(len(first), subset_size, replace=False)
            values[number] = _cubic_mmd_of_clean_fid(second[of_y], first[of_x])
    return Kid(float(values.mean()), float(values.std()))


def _cubic_mmd_of_clean_fid(x: np.ndarray, y: np.ndarray) -> float:
    """As `cubic_mmd` of sets of one size, in their own precision and in clean-fid's order of sums."""
    num, width = x.shape
    within = (x @ x.T / width + 1) ** 3 + (y @ y.T / width + 1) ** 3
    across = (x @ y.T / width + 1) ** 3
    own: float = (within.sum() - np.diag(within).sum()) / (num - 1) - across.sum() * 2 / num
    return float(own) / num


def cubic_mmd(x: Rows, y: Rows) -> float:
    """The unbiased squared discrepancy of all of x (n, d) and y (m, d) under (a'b / d + 1)^3, in float64. Raises
    ValueError: x or y is not at least two rows of finite numbers, or their widths differ."""
    first, second = as_pair(x, y, ("x", "y"))
    if min(len(first), len(second)) < 2:
        raise ValueError("an unbiased discrepancy needs at least 2 rows a side")
    return _cubic_mmd(as_finite(first, "x"), as_finite(second, "y"))


def _cubic_mmd(one: np.ndarray, two: np.ndarray) -> float:
    width = one.shape[1]

    def cubes(a: np.ndarray, b: np.ndarray) -> float:
        total = 0.0
        for i, j, times in _blocks(len(a), len(b), a is b):
            kernel = a[i] @ b[j].T
            kernel /= width
            kernel += 1
            total += times * float(np.vdot(kernel * kernel, kernel))
        return total

    total = -2 * cubes(one, two) / (len(one) * len(two))
    for rows in (one, two):
        own = ((np.einsum("nd,nd->n", rows, rows) / width + 1) ** 3).sum()
        total += (cubes(rows, rows) - float(own)) / (len(rows) * (len(rows) - 1))
    return float(total)


def cmmd(x: Rows, y: Rows, *, sigma: float = 10.0, scale: float = 1000.0, unbiased: bool = False) -> float:
    """`scale` times the squared discrepancy of x (n, d) and y (m, d) under k = exp(-|a - b|^2 / (2 sigma^2)). By
    default this is the published number, in which every row is compared with itself too: too large by some scale (1 -
    mean k) (1/n + 1/m), which counts for small sets. `unbiased` leaves these out, and may be below zero. Memory: x and
    y once more, and blocks; 1 - k is summed, for sums of k cancel. Raises ValueError: no rows of finite numbers, other
    widths, a kernel without width, or unbiased of one row."""
    first, second = as_pair(x, y, ("x", "y"))
    if not sigma > 0:
        raise ValueError(f"the width of the kernel must be above 0, and sigma={sigma}")
    if unbiased and min(len(first), len(second)) < 2:
        raise ValueError("an unbiased discrepancy needs at least 2 rows a side")
    centre = (_mean(first, "x") + _mean(second, "y")) / 2
    sides = [_Side.of(rows, centre, sigma) for rows in (first, second)]
    own_x, own_y, across = _means_of_one_minus_kernel(*sides)
    if unbiased:
        own_x, own_y = own_x * len(first) / (len(first) - 1), own_y * len(second) / (len(second) - 1)
    return float(scale * (2 * across - own_x - own_y))


def _means_of_one_minus_kernel(x: _Side, y: _Side) -> tuple[float, float, float]:
    """The means of 1 - k over the pairs inside x, inside y, and of one with the other. Of 1 - exp(-t) = t - t^2/2 +
    t^3/6 - ... the first two terms have means in closed form, in float64. The rest is some t^2/6 times as large: for
    embeddings of length 1, t is 0.02 at most, and float32 leaves over ten digits. Where t can be large, everything is
    float64."""
    reach = (x.longest + y.longest) ** 2 / 2
    small = reach <= _SERIES_TO
    term = _rest_of_series(reach) if small else _one_minus_kernel
    one, two = (side.tensors(np.float32 if small else np.float64) for side in (x, y))
    own_x, own_y, across = (_mean_over_pairs(*pair, term) for pair in ((one, one), (two, two), (one, two)))
    if not small:
        return own_x, own_y, across
    a, b = x.sums(), y.sums()
    return own_x + _first_two_terms(a, a), own_y + _first_two_terms(b, b), across + _first_two_terms(a, b)


def _mean(rows: np.ndarray, name: str) -> np.ndarray:
    """(d,), float64, of finite rows. Raises ValueError: a value is NaN or infinite."""
    total = np.zeros(rows.shape[1])
    for begin in range(0, len(rows), BLOCK_ROWS):
        total += as_finite(rows[begin : begin + BLOCK_ROWS], name, begin).sum(axis=0)
    return total / len(rows)


@dataclass(frozen=True)
class _Side:
    """A set, moved and scaled so that t = |a - b|^2 / (2 sigma^2) is the sum of two halves less a product."""

    rows: np.ndarray
    centre: np.ndarray
    sigma: float
    halves: np.ndarray
    """|u|^2 / 2 of every u = (row - centre) / sigma; (n,), float64."""

    @classmethod
    def of(cls, rows: np.ndarray, centre: np.ndarray, sigma: float) -> _Side:
        side = cls(rows, centre, sigma, np.empty(len(rows)))
        for place, block in side.blocks():
            side.halves[place] = np.einsum("nd,nd->n", block, block) / 2
        return side

    @property
    def longest(self) -> float:
        return float(np.sqrt(2 * self.halves.max()))

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Blocks of u, in float64, and where each is among the rows."""
        for begin in range(0, len(self.rows), BLOCK_ROWS):
            place = slice(begin, begin + BLOCK_ROWS)
            yield place, (self.rows[place] - self.centre) / self.sigma

    def tensors(self, dtype: type) -> tuple[torch.Tensor, torch.Tensor]:
        """All of u, and the halves."""
        moved: np.ndarray = np.empty(self.rows.shape, dtype)
        for place, block in self.blocks():
            moved[place] = block
        return torch.from_numpy(moved), torch.from_numpy(self.halves.astype(dtype))

    def sums(self) -> _Means:
        """What the closed form of the first two terms needs."""
        width = self.rows.shape[1]
        found = _Means(self.halves.mean(), (self.halves**2).mean(), np.zeros(width), np.zeros(width),
                       np.zeros((width, width)))  # fmt: skip
        for place, block in self.blocks():
            found.u[:] += block.sum(axis=0)
            found.half_u[:] += self.halves[place] @ block
            found.products[:] += block.T @ block
        for total in (found.u, found.half_u, found.products):
            total /= len(self.rows)
        return found


class _Means(NamedTuple):
    """Means over the rows of a side, h being half of |u|^2."""

    half: float
    half_squared: float
    u: np.ndarray
    half_u: np.ndarray
    products: np.ndarray
    """(d, d), of u u'."""


def _first_two_terms(a: _Means, b: _Means) -> float:
    """The mean of t - t^2/2 over all pairs, where t = h + h' - u'v, in closed form."""
    first = a.half + b.half - float(a.u @ b.u)
    halves = a.half_squared + b.half_squared + 2 * a.half * b.half
    mixed = float(a.half_u @ b.u + a.u @ b.half_u)
    return first - (halves - 2 * mixed + float(np.vdot(a.products, b.products))) / 2


Term = Callable[[torch.Tensor], torch.Tensor]
"""A function of a block of t, which it may overwrite, to terms whose sum is wanted."""


def _mean_over_pairs(a: tuple[torch.Tensor, torch.Tensor], b: tuple[torch.Tensor, torch.Tensor], term: Term) -> float:
    """The mean of the term over all pairs; where a is b, over half of the blocks, twice."""
    (u, h), (v, g), total = a, b, 0.0
    for i, j, times in _blocks(len(u), len(v), a is b):
        t = torch.addmm(g[j], u[i], v[j].T, alpha=-1).add_(h[i, None])
        total += times * float(term(t).sum(dim=1).double().sum())
    return total / (len(u) * len(v))


def _blocks(num_a: int, num_b: int, same: bool) -> Iterator[tuple[slice, slice, int]]:
    """Blocks of pairs, each with how often it counts."""
    for i in range(0, num_a, BLOCK_ROWS):
        for j in range(i if same else 0, num_b, BLOCK_ROWS):
            yield slice(i, i + BLOCK_ROWS), slice(j, j + BLOCK_ROWS), 2 if same and j > i else 1


def _one_minus_kernel(t: torch.Tensor) -> torch.Tensor:
    return t.clamp_(min=0).neg_().expm1_().neg_()


def _rest_of_series(reach: float) -> Term:
    """1 - exp(-t) - t + t^2/2 = t^3 (1/3! - t/4! + ...), in as many terms as t up to `reach` need."""
    num = next(k for k in range(1, 12) if 6 * reach**k / factorial(k + 3) < _SERIES_ERROR)
    factors = [(-1.0) ** k / factorial(k + 3) for k in range(num)]

    def rest(t: torch.Tensor) -> torch.Tensor:
        found = torch.full_like(t, factors[-1])
        for factor in reversed(factors[:-1]):
            found.mul_(t).add_(factor)
        return found.mul_(t).mul_(t).mul_(t)

    return rest
