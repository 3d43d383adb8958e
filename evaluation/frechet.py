"""The Fréchet distance between two sets of features, and the mean and covariance that it is made of. With the features
of the Inception network of 2015 it is the FID of Heusel et al. (arXiv 1706.08500)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from evaluation.arrays import Rows, as_array, as_finite, as_rows

BLOCK_BYTES = 2**25
"""About how much of the features is held in float64 at once."""
_EPS = float(np.finfo(np.float64).eps)
_ASYMMETRY = 1e-6
"""How far a covariance may be from symmetric, relative to its largest value; float32 leaves some 1e-7."""
_NEGATIVE = 1e-6
"""How far below zero an eigenvalue may be, relative to the trace; float32 leaves some 1e-7."""
_ACCURACY = 1e-12
"""How wrong the fast root may be, relative to the trace of both covariances."""


@dataclass(frozen=True)
class Moments:
    """What is kept of n rows of d features: enough for their covariance, and to be merged with other rows' moments."""

    num_rows: int
    mean: np.ndarray
    """(d,), float64."""
    scatter: np.ndarray
    """(d, d), float64: the sum of (x - mean)(x - mean)' over the rows."""

    @classmethod
    def of(cls, x: Rows, name: str = "x") -> Moments:
        """The moments of features (n, d), n of at least 1. Memory: two matrices d x d and a block of rows, which is
        centred before it is multiplied: sums of squares lose everything where the mean is large. Raises ValueError: as
        `as_finite`."""
        rows = as_rows(x, name)
        num, width = rows.shape
        step = max(1, BLOCK_BYTES // (8 * width))
        centre = as_finite(rows[:step], name).mean(axis=0)
        shifted, scatter = np.zeros(width), np.zeros((width, width))
        for begin in range(0, num, step):
            block = as_finite(rows[begin : begin + step], name, begin)
            block -= centre
            shifted += block.sum(axis=0)
            scatter += block.T @ block
        shifted /= num
        scatter -= num * np.outer(shifted, shifted)
        return cls(num, centre + shifted, scatter)

    @classmethod
    def merge(cls, parts: Iterable[Moments]) -> Moments:
        """The moments of all the parts' rows together. The order in which the parts are given changes no digit. Raises
        ValueError: there is no part, or their widths differ."""
        ordered = sorted(parts, key=lambda part: (part.num_rows, part.mean.tobytes(), part.scatter.tobytes()))
        if not ordered:
            raise ValueError("there are no moments to merge")
        if len({part.mean.shape for part in ordered}) > 1:
            raise ValueError("moments of different numbers of features cannot be merged")
        num = sum(part.num_rows for part in ordered)
        base = ordered[0].mean
        shift = sum((part.num_rows * (part.mean - base) for part in ordered), np.zeros_like(base)) / num
        apart = np.stack([part.num_rows**0.5 * (part.mean - base - shift) for part in ordered])
        scatter = apart.T @ apart
        for part in ordered:
            scatter += part.scatter
        return cls(num, base + shift, scatter)

    @property
    def covariance(self) -> np.ndarray:
        """(d, d), float64, with n - 1. Raises ValueError: there is one row alone, which has no covariance."""
        if self.num_rows < 2:
            raise ValueError(f"a covariance needs at least 2 rows, and there is {self.num_rows}")
        return self.scatter / (self.num_rows - 1)


def moments(x: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The mean (d,) and the covariance (d, d) with n - 1 of features (n, d), in float64 whatever their own type. Raises
    ValueError: x is not at least two rows of finite numbers."""
    found = Moments.of(x)
    return found.mean, found.covariance


def frechet_distance(mu1: Rows, sigma1: Rows, mu2: Rows, sigma2: Rows) -> float:
    """|mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)), never negative, and 0 for equal moments. The means
    are (d,); the covariances (d, d), symmetric, with no eigenvalue below zero by more than rounding, and may be
    singular: of few rows, or of features that do not vary. Raises ValueError: shapes differ, a value is NaN or
    infinite, or sigma1 or sigma2 is no covariance."""
    mean1, cov1 = _moments_of_use(mu1, sigma1, ("mu1", "sigma1"))
    mean2, cov2 = _moments_of_use(mu2, sigma2, ("mu2", "sigma2"))
    if mean1.shape != mean2.shape:
        raise ValueError(
            f"mu1 has {len(mean1)} features and mu2 has {len(mean2)}: features of two networks or layers do not compare"
        )
    return _distance(mean1, cov1, mean2, cov2)


def standard_error(left_out: np.ndarray) -> float:
    """The standard error, by the jackknife, of a distance or of a difference of two, of which (k,) values without one
    part of the pictures each are given. It is of which pictures were drawn; that a distance falls with the number of
    pictures is not in it."""
    return float(np.std(left_out) * (len(left_out) - 1) ** 0.5)


def jackknife(parts: Sequence[Moments], mu: Rows, sigma: Rows) -> np.ndarray:
    """The distances to a reference of all the parts' rows without one part each, (k,), for `standard_error`. Parts
    should be of about one size, and drawn by chance: at least two; ten are usual. `mu`, `sigma`: of the reference, as
    of `frechet_distance`. Raises ValueError: there are fewer parts, or as `frechet_distance`."""
    if len(parts) < 2:
        raise ValueError(f"a jackknife needs at least 2 parts, and there is {len(parts)}")
    mean, cov = _moments_of_use(mu, sigma, ("mu", "sigma"))
    if mean.shape != parts[0].mean.shape:
        raise ValueError(f"the parts have {len(parts[0].mean)} features and mu has {len(mean)}")
    values = []
    for out in range(len(parts)):
        rest = Moments.merge([part for place, part in enumerate(parts) if place != out])
        values.append(_distance(rest.mean, rest.covariance, mean, cov))
    return np.array(values)


def distance_of_few(x: Rows, y: Rows, groups: np.ndarray) -> tuple[float, np.ndarray]:
    """The distance of features x (n, d) to y (m, d), one with no more rows than features, and those without each group
    of x, for `standard_error`. The rows themselves are the factors of their covariances, so nothing of (d, d) is taken
    apart: what takes minutes by way of moments takes a second, and no rank is guessed. `groups`: (n,); where there is
    one alone, no value is without it. Raises ValueError: x or y is not at least two rows of finite numbers, or without
    a group fewer are left."""
    rows, other = as_finite(as_rows(x, "x"), "x"), _Factor.of(as_finite(as_rows(y, "y"), "y"))
    rests = [groups != group for group in np.unique(groups)]
    left_out = [_Factor.of(rows[rest]).distance(other) for rest in rests if rest.any()]
    return _Factor.of(rows).distance(other), np.array(left_out)


class _Factor(NamedTuple):
    """The mean of rows, and a factor A (k, d), k at most d, of their covariance A' A."""

    mean: np.ndarray
    factor: torch.Tensor

    @classmethod
    def of(cls, rows: np.ndarray) -> _Factor:
        if len(rows) < 2:
            raise ValueError(f"a covariance needs at least 2 rows, and there is {len(rows)}")
        mean = rows.mean(axis=0)
        centred = torch.from_numpy((rows - mean) / (len(rows) - 1) ** 0.5)
        return cls(mean, torch.linalg.qr(centred, mode="r").R if len(rows) > len(mean) else centred)

    def distance(self, other: _Factor) -> float:
        apart = self.mean - other.mean
        if self.factor.shape == other.factor.shape and torch.equal(self.factor, other.factor):
            return float(apart @ apart)
        traces = float((self.factor**2).sum() + (other.factor**2).sum())
        spread = traces - 2 * float(torch.linalg.svdvals(self.factor @ other.factor.T).sum())
        return float(apart @ apart) + (spread if spread > len(apart) * _EPS * traces else 0.0)


def _distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    apart = mean1 - mean2
    traces = float(np.trace(cov1) + np.trace(cov2))
    shift = float(apart @ apart)
    if np.array_equal(cov1, cov2):
        return shift
    spread = traces - 2 * _trace_of_root(cov1, cov2)
    return shift + (spread if spread > len(apart) * _EPS * traces else 0.0)


def _moments_of_use(mu: Rows, sigma: Rows, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    mean, cov = np.atleast_1d(as_array(mu)), np.atleast_2d(as_array(sigma))  # numpy has scalars for one feature
    if mean.ndim != 1 or cov.shape != (len(mean), len(mean)) or not len(mean):
        raise ValueError(f"{names[0]} must be (d,) and {names[1]} (d, d); they are {mean.shape} and {cov.shape}")
    if mean.dtype.kind not in "fiu" or cov.dtype.kind not in "fiu":
        raise ValueError(f"{names[0]} and {names[1]} must be real numbers; they are {mean.dtype} and {cov.dtype}")
    if not np.isfinite(mean).all() or not np.isfinite(cov).all():
        raise ValueError(f"{names[0]} or {names[1]} holds NaN or infinity; were the features of every picture finite?")
    mean, cov = mean.astype(np.float64), cov.astype(np.float64)
    apart = np.abs(cov - cov.T).max()
    if apart > _ASYMMETRY * np.abs(cov).max():
        raise ValueError(f"{names[1]} is no covariance: it is not symmetric, by {apart:.3g}")
    if apart:
        cov = (cov + cov.T) / 2
    if np.trace(cov) < 0 or np.diagonal(cov).min() < -_NEGATIVE * np.trace(cov):
        raise ValueError(f"{names[1]} is no covariance: a variance is negative, {np.diagonal(cov).min():.3g}")
    return mean, cov


def _trace_of_root(cov1: np.ndarray, cov2: np.ndarray) -> float:
    """tr (cov1 cov2)^(1/2). cov1 cov2 has the eigenvalues of L' cov2 L where cov1 = L L', which is symmetric: a
    Cholesky factor and eigenvalues alone, a tenth of what a square root of the product costs. Small eigenvalues come
    out with an error of the size of rounding of the largest, which the root makes larger: where that counts, the
    singular values of A' B are taken, with cov1 = A A' and cov2 = B B', which need no root."""
    factor, failed = torch.linalg.cholesky_ex(torch.from_numpy(cov1))
    if not failed:
        product = factor.T @ (torch.from_numpy(cov2) @ factor)
        values = torch.linalg.eigvalsh((product + product.T) / 2).numpy()
        if values[0] > 0:
            roots = np.sqrt(values)
            error = _EPS * values[-1] * (0.5 / roots).sum()
            if error < _ACCURACY * (np.trace(cov1) + np.trace(cov2)):
                return float(roots.sum())
    half1, half2 = _half(cov1, "sigma1"), _half(cov2, "sigma2")
    if not half1.shape[1] or not half2.shape[1]:
        return 0.0
    return float(torch.linalg.svdvals(half1.T @ half2).sum())


def _half(cov: np.ndarray, name: str) -> torch.Tensor:
    """A (d, r) with A A' = cov; r is the rank, without what rounding alone has added to it. Raises ValueError: an
    eigenvalue is below zero by more than rounding."""
    values, vectors = torch.linalg.eigh(torch.from_numpy(cov))
    if values[0] < -_NEGATIVE * np.trace(cov):
        raise ValueError(f"{name} is no covariance: an eigenvalue is negative, {float(values[0]):.3g}")
    kept = values > len(cov) * _EPS * values[-1].clamp(min=0)
    return vectors[:, kept] * values[kept].sqrt()
