"""Pictures to the model's input, bit for bit as the published preprocessing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)
STD = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)


def preprocess(images: Sequence[Image.Image], size_px: int) -> Tensor:
    """(B, 3, size, size) float32: squashed to a square by bicubic resampling, without crop or padding, normalised.

    Alpha is dropped, as published, not composited: the colours under transparent pixels count.
    """
    return torch.stack([_normalised(image, size_px) for image in images])


def _normalised(image: Image.Image, size_px: int) -> Tensor:
    squashed = image.convert("RGB").resize((size_px, size_px), Image.Resampling.BICUBIC)
    pixels = (np.asarray(squashed, np.float32) / np.float32(255) - MEAN) / STD
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())
