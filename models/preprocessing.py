"""What a model's own image processor does to a picture, in two halves: shaping on threads, scaling on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.device import sent

if TYPE_CHECKING:  # imported where it is used: it takes seconds
    import torch

Pixels = NDArray[Any]
"""(3, height, width), resized and cropped as the model wants it. Those of 8 bits are scaled and normalised with their
batch; a processor that does not end with that gives float32."""


Size = tuple[int, int]
"""(height, width) in px."""


class Preprocessing:
    """The image processor of a model of transformers. Its numbers are the processor's own, to the bit."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        scales, normalises, pads = (getattr(processor, f"do_{step}", None) for step in ("rescale", "normalize", "pad"))
        self._ends_with_scaling = scales and normalises and not pads
        self._resizes = getattr(processor, "do_resize", None) and not pads

    @property
    def cover_px(self) -> Size | None:
        """The size that it shrinks pictures to, which a decoder need not exceed; None where it needs them
        whole. As of `schemas.pixels.open_rgb`."""
        size = self._processor.size if self._resizes else None
        if size and size.get("shortest_edge") and not size.get("longest_edge"):
            return size["shortest_edge"], size["shortest_edge"]
        return (size["height"], size["width"]) if size and size.get("height") and size.get("width") else None

    def pixels(self, image: Image.Image) -> Pixels:
        """The input for an RGB picture: work for the threads that decode."""
        less = {"do_rescale": False, "do_normalize": False} if self._ends_with_scaling else {}
        return self._processor(image, return_tensors="np", **less)["pixel_values"][0]

    def batch(self, pixels: Sequence[Pixels], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """Pictures as `pixels` gives them -> (n, 3, height, width) on the device."""
        batch = sent(pixels, device)
        if pixels[0].dtype == np.uint8:
            import torch

            mean, std = (
                torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
                for values in (self._processor.image_mean, self._processor.image_std)
            )
            # in the types of the processor's own sum
            batch = ((batch.double() * self._processor.rescale_factor).float() - mean) / std
        return batch.to(dtype)


def cover_of(shown: Iterable[Preprocessing]) -> Size | None:
    """The size that covers what each of some models needs; None where one needs pictures whole, or there is none."""
    sizes = [each.cover_px for each in shown]
    known = [size for size in sizes if size is not None]
    if not known or len(known) < len(sizes):
        return None
    return max(height for height, _ in known), max(width for _, width in known)
