"""Cropping never stretches; shapes are the bucket's; the range is exact both ways."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

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


def test_range_round_trip():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(from_unit_range(to_unit_range(levels)), levels)
    assert to_unit_range(levels).min() == -1 and to_unit_range(levels).max() == 1
    assert from_unit_range(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


def test_shapes_are_those_of_the_buckets():
    index = pa.table({"height": [1024, 600, 300], "width": [1024, 900, 1200]})
    assert list(shapes_of(index, 1024, 16, True)) == [(1024, 1024), (832, 1216), (512, 2048)]
    assert list(shapes_of(index, 256, 16, False)) == [(256, 256)] * 3
    toy = list(shapes_of(index, 64, 32, True))
    assert toy[0] == (64, 64) and all(side % 32 == 0 for shape in toy for side in shape)
    assert next(iter(shapes_of(index, 2880, 64, True))) == (2880, 2880)
