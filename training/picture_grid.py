"""Writes drawn pictures as PNG: alone, and in a grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from schemas.commit import atomic_write

GAP_PX = 6
"""White between the pictures of a grid."""
CELL_PX = 144
"""Height up to which small pictures of a grid are enlarged."""


def write_pictures(drawn: Sequence[np.ndarray], out: Path) -> None:
    """Write one picture as `out`; several side by side, and each also by itself, numbered."""
    if len(drawn) > 1:
        write_grid([[picture] for picture in drawn], out)
    for number, picture in enumerate(drawn, 1):
        itself = out if len(drawn) == 1 else out.with_name(f"{out.stem}-{number}{out.suffix}")
        write_png(Image.fromarray(picture.transpose(1, 2, 0)), itself)


def write_grid(columns: Sequence[Sequence[np.ndarray]], out: Path, per_row: int = 6) -> None:
    """Write columns of pictures, `per_row` columns in a row, as a PNG on white; small ones are enlarged by a whole
    number, pixel by pixel."""
    zoom = max(1, CELL_PX // max(picture.shape[1] for column in columns for picture in column))
    columns = [[picture.repeat(zoom, axis=1).repeat(zoom, axis=2) for picture in column] for column in columns]
    cell_height = max(picture.shape[1] for column in columns for picture in column) + GAP_PX
    cell_width = max(picture.shape[2] for column in columns for picture in column) + GAP_PX
    depth = max(len(column) for column in columns)
    bands = -(-len(columns) // per_row)
    width = min(per_row, len(columns)) * cell_width + GAP_PX
    canvas = Image.new("RGB", (width, bands * (depth * cell_height + GAP_PX) + GAP_PX), "white")
    for number, column in enumerate(columns):
        band, place = divmod(number, per_row)
        for line, picture in enumerate(column):
            image = Image.fromarray(picture.transpose(1, 2, 0))
            left = GAP_PX + place * cell_width + (cell_width - GAP_PX - image.width) // 2
            top = GAP_PX + band * (depth * cell_height + GAP_PX) + line * cell_height
            canvas.paste(image, (left, top + (cell_height - GAP_PX - image.height) // 2))
    write_png(canvas, out)


def write_png(image: Image.Image, out: Path) -> None:
    with atomic_write(out) as file:
        image.save(file, format="PNG")
