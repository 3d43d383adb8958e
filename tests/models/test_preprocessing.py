from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, Owlv2ImageProcessorPil, ViTImageProcessorPil

from models.preprocessing import Preprocessing, cover_of

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
SQUARE = {"height": 24, "width": 24}


@pytest.mark.parametrize(
    ("processor", "cover_px", "is_scaled_later"),
    [
        (CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size=SQUARE), (24, 24), True),
        (ViTImageProcessorPil(size={"height": 16, "width": 32}), (16, 32), True),
        (CLIPImageProcessorPil(do_resize=False, crop_size=SQUARE), None, True),
        (CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size=SQUARE, do_normalize=False), (24, 24), False),
        (CLIPImageProcessorPil(size={"shortest_edge": 24}, do_rescale=False, do_center_crop=False), (24, 24), False),
        (CLIPImageProcessorPil(size={"shortest_edge": 24, "longest_edge": 30}, do_center_crop=False), None, True),
        (Owlv2ImageProcessorPil(size=SQUARE), None, False),
    ],
)
def test_the_numbers_are_the_processor_s_own_to_the_bit(
    processor: Any, cover_px: tuple[int, int] | None, is_scaled_later: bool
) -> None:
    shown = Preprocessing(processor)
    expected = processor(PICTURE, return_tensors="np")["pixel_values"].astype(np.float32)
    pixels = shown.pixels(PICTURE)
    assert (pixels.dtype == np.uint8) == is_scaled_later and shown.cover_px == cover_px
    batch = shown.batch([pixels, pixels], torch.device("cpu"), torch.float32)
    assert batch.shape == (2, *expected.shape[1:]) and np.array_equal(batch[1].numpy(), expected[0])


def test_a_size_for_several_models_covers_each_and_one_that_needs_all_pixels_has_them() -> None:
    tall, wide, whole = (
        Preprocessing(ViTImageProcessorPil(size={"height": 64, "width": 16})),
        Preprocessing(ViTImageProcessorPil(size={"height": 16, "width": 48})),
        Preprocessing(ViTImageProcessorPil(do_resize=False)),
    )
    assert cover_of([tall, wide]) == (64, 48) and cover_of([tall]) == (64, 16)
    assert cover_of([tall, whole]) is cover_of([]) is None
