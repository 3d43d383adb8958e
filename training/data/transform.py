"""A picture to the shape of its bucket: scaled until it covers it, then cropped at the centre, never stretched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.buckets import TABLES, nearest_codes, sizes
from training.data.order import Shape, Shapes
from training.data.selection import Selection

if TYPE_CHECKING:  # samples are read without torch, which takes a second
    from torch import Tensor

Pixels = NDArray[np.uint8]
"""(3, height, width)."""

LANCZOS_FROM_PX = 2048
"""PixArt-Σ resizes with Lanczos from this resolution on, bicubically below."""


def crop_to(image: Image.Image, shape: Shape) -> Pixels:
    """Scale an RGB picture so that it just covers `shape` and crop it at the centre, (3, height, width) uint8."""
    height, width = shape
    scale = max(height / image.height, width / image.width)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    filter_ = Image.Resampling.LANCZOS if min(shape) >= LANCZOS_FROM_PX / 2 else Image.Resampling.BICUBIC
    resized = image.resize(size, filter_, reducing_gap=3.0) if size != image.size else image
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    cropped = resized.crop((left, top, left + width, top + height))
    return np.ascontiguousarray(np.asarray(cropped).transpose(2, 0, 1))


def to_unit_range(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def from_unit_range(pixels: Tensor) -> Tensor:
    """[-1, 1], clipped -> uint8; the inverse of `to_unit_range`."""
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte()


def shapes_of(rows: Selection, resolution: int, multiple: int, multi_aspect: bool) -> Shapes:
    """The training shape of every selected row. `resolution`: side of the square with as many px. `multiple`: of px, of
    sides without a published table. `multi_aspect`: the nearest aspect bucket; false is the square for all."""
    if not multi_aspect:
        return Shapes([(resolution, resolution)], np.zeros(rows.num_rows, np.uint8))
    labels = list(TABLES.get(resolution, TABLES[1024]))
    sides = rows.parts(("height", "width"))
    codes = [nearest_codes(_aspects(part["height"].to_numpy(), part["width"].to_numpy()), labels) for part in sides]
    table = sizes(resolution, multiple)
    return Shapes([table[label] for label in labels], np.concatenate(codes))


def _aspects(height: NDArray[np.int32], width: NDArray[np.int32]) -> NDArray[np.float64]:
    """Height / width. Raises ValueError: a side is not positive."""
    if len(height) and min(height.min(), width.min()) <= 0:
        raise ValueError("the index holds a picture without height or width; rebuild the shards")
    return height / width
