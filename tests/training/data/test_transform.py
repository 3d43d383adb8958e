"""Cropping never stretches; shapes are the bucket's; the range is exact both ways."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from schemas.shard_index import INDEX_SCHEMA, ShardIndex
from training.data.selection import Selection
from training.data.transform import crop_to, from_unit_range, shapes_of, to_unit_range


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_any_picture_fills_any_shape(width, height, rows, columns):
    pixels = crop_to(Image.new("RGB", (width, height), (10, 200, 30)), (16 * rows, 16 * columns))
    assert pixels.shape == (3, 16 * rows, 16 * columns)
    assert (pixels == np.array([10, 200, 30]).reshape(3, 1, 1)).all()


def test_the_crop_is_central_and_keeps_proportions():
    image = Image.new("RGB", (300, 100), "black")
    image.paste((255, 255, 255), (100, 0, 200, 100))  # the middle third is white
    assert crop_to(image, (100, 100)).min() == 255
    wide = crop_to(image, (32, 96))[0] > 127
    assert wide.sum() == 32 * 32


def test_the_unit_range_maps_back_to_bytes():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(from_unit_range(to_unit_range(levels)), levels)
    assert to_unit_range(levels).min() == -1 and to_unit_range(levels).max() == 1
    assert from_unit_range(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


def selection_of(sides: list[tuple[int, int]]) -> Selection:
    """Rows of (height, width)."""
    values = {"string": "a", "int32": 1, "int64": 1, "float": 1.0}
    columns = {f.name: pa.array([values.get(str(f.type))] * len(sides), f.type) for f in INDEX_SCHEMA}
    columns |= {"height": [height for height, _ in sides], "width": [width for _, width in sides]}
    return Selection(ShardIndex.of(pa.table(columns, schema=INDEX_SCHEMA), part_rows=2))


def test_shapes_are_those_of_the_buckets():
    rows = selection_of([(1024, 1024), (600, 900), (300, 1200)])
    assert list(shapes_of(rows, 1024, 16, True)) == [(1024, 1024), (832, 1216), (512, 2048)]
    assert list(shapes_of(rows, 256, 16, False)) == [(256, 256)] * 3
    toy = list(shapes_of(rows, 64, 32, True))
    assert toy[0] == (64, 64) and all(side % 32 == 0 for shape in toy for side in shape)
    assert next(iter(shapes_of(rows, 2880, 64, True))) == (2880, 2880)


def test_a_picture_without_a_side_is_refused():
    with pytest.raises(ValueError, match="a picture without height or width; rebuild the shards"):
        shapes_of(selection_of([(3, 4), (0, 2)]), 1024, 16, True)
