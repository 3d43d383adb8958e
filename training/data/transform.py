"""A picture to the shape of its bucket: scaled until it covers it, then cropped at the centre, never stretched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from schemas.buckets import TABLES, nearest, sizes
from training.data.order import Shape

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
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def shapes_of(index: pa.Table, resolution: int, multiple: int, multi_aspect: bool) -> Sequence[Shape]:
    """The training shape of every index row.

    Args:
        resolution: side of the square with as many px.
        multiple: sides are multiples of this where the resolution is no published one.
        multi_aspect: the nearest aspect bucket; false is the square for all.
    """
    if not multi_aspect:
        return [(resolution, resolution)] * index.num_rows
    table = sizes(resolution, multiple)
    labels = resolution if resolution in TABLES else 1024
    sides = zip(index["height"].to_pylist(), index["width"].to_pylist(), strict=True)
    known: dict[tuple[int, int], Shape] = {}
    shapes = []
    for side in sides:
        if side not in known:
            known[side] = table[nearest(*side, labels)]
        shapes.append(known[side])
    return shapes
