"""Features as arrays of rows: what every measure accepts, and what it refuses by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

Rows = np.ndarray | torch.Tensor
"""Features (n, d), one picture or text a row, of any type of number."""


def as_rows(values: Rows, name: str) -> np.ndarray:
    """The rows as an array (n, d) without a copy where that is possible, so that a memory map stays one. Raises
    ValueError: they are not (n, d) with n and d of at least 1, or not real numbers."""
    rows = as_array(values)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"{name} must be rows of features, (n, d), and has the shape {rows.shape}")
    if rows.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be real numbers, and is {rows.dtype}")
    return rows


def as_array(values: Any) -> np.ndarray:
    """A tensor of any device and precision, or what numpy takes, as an array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


def as_pair(x: Rows, y: Rows, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of rows with features of one width. Raises ValueError: as `as_rows`, or the widths differ."""
    first, second = as_rows(x, names[0]), as_rows(y, names[1])
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{names[0]} has {first.shape[1]} features a row and {names[1]} has {second.shape[1]}: "
            "features of two networks or layers do not compare"
        )
    return first, second


def as_finite(rows: np.ndarray, name: str, first_row: int = 0, dtype: type = np.float64) -> np.ndarray:
    """A block of rows as a fresh array of floats. `first_row`: the number of the block's first row in the whole, for
    the message. Raises ValueError: a value is NaN or infinite; the message names the first such row."""
    block: np.ndarray = rows.astype(dtype)
    whole = np.isfinite(block).all(axis=1)
    if not whole.all():
        raise ValueError(f"{name} holds NaN or infinity in row {first_row + int(np.argmin(whole))} (from 0)")
    return block


def check_finite(rows: np.ndarray, name: str) -> None:
    """Raise ValueError for rows with NaN or infinity, as `as_finite` does, without a copy of them all."""
    for begin in range(0, len(rows), 1024):
        as_finite(rows[begin : begin + 1024], name, begin)
