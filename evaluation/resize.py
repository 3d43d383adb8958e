"""The pixels that each published protocol shows its network: another resize gives the same network other numbers. Each
follows the code that it is named after: clean-fid 0.1.35 (`clean`), pytorch-fid 0.3.0 (`pytorch`), FID's original and
torch-fidelity 0.4.0 (`tensorflow`), torchmetrics 1.9, Sana's metrics (`sana-512`, `sana-1024`), edm2's for DINOv2,
cmmd-pytorch, and OpenAI's CLIP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

Pixels = NDArray[np.uint8]
"""(height, width, 3), RGB."""
Shown = NDArray[np.float32]
"""(side, side, 3), on the scale of 0 to 255."""

INCEPTION_PX = 299
MAX_ASPECT = 64
"""A longer strip would be resized to more memory than it is worth, where the short side is what counts."""
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Protocol:
    """A resize, and what is subtracted and divided before the network."""

    resize: Callable[[Pixels], Shown]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of the three channels, on the scale of 0 to 1."""

    def shown(self, pixels: Pixels) -> Shown:
        """The picture as the network sees it, not yet normalised. Raises ValueError: pixels is not (height, width, 3)
        of 8 bits, or is a strip longer than `MAX_ASPECT`."""
        if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape or pixels.dtype != np.uint8:
            raise ValueError(f"a picture must be (height, width, 3) of 8 bits; it is {pixels.shape} of {pixels.dtype}")
        if max(pixels.shape[:2]) > MAX_ASPECT * min(pixels.shape[:2]):
            raise ValueError(
                f"a strip of {pixels.shape[1]} x {pixels.shape[0]} px is over {MAX_ASPECT} times as long as wide"
            )
        return self.resize(pixels)

    def network_input(self, pixels: Pixels) -> torch.Tensor:
        """(3, side, side), float32, normalised. Raises ValueError: as `shown`."""
        mean, std = (255 * np.array(values, dtype=np.float32) for values in (self.mean, self.std))
        normal = (self.shown(pixels) - mean) / std
        return torch.from_numpy(np.ascontiguousarray(normal.transpose(2, 0, 1)))


def _clean(pixels: Pixels) -> Shown:
    """Pillow's bicubic in float32, each channel for itself, not rounded."""
    side = (INCEPTION_PX, INCEPTION_PX)
    channels = (Image.fromarray(pixels[..., c].astype(np.float32), "F") for c in range(3))
    planes = np.stack([np.asarray(channel.resize(side, Image.Resampling.BICUBIC)) for channel in channels])
    return planes.clip(0, 255, out=planes).transpose(1, 2, 0)  # a view: the network takes planes again


def _interpolated(pixels: Pixels, side: int, mode: str, antialias: bool) -> Shown:
    """Torch's interpolation in float32, pixels taken at their centres."""
    planes = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32))[None]
    found = functional.interpolate(planes, size=(side, side), mode=mode, align_corners=False, antialias=antialias)
    return found[0].permute(1, 2, 0).numpy()


def _tensorflow(pixels: Pixels) -> Shown:
    """TensorFlow 1's bilinear: between the two pixels nearest to i n / 299, with no antialiasing."""
    shown = pixels.astype(np.float32)
    for axis in (0, 1):
        num = shown.shape[axis]
        place = np.arange(INCEPTION_PX, dtype=np.float32) * np.float32(num / INCEPTION_PX)
        before = np.floor(place).astype(np.intp)
        low, high = shown.take(before, axis), shown.take(np.minimum(before + 1, num - 1), axis)
        part = np.expand_dims(place - before.astype(np.float32), (1, 2) if axis == 0 else (0, 2))
        shown = low + (high - low) * part
    return shown


def _short_side_and_crop(pixels: Pixels, side: int, resample: Image.Resampling) -> Pixels:
    """torchvision's Resize and CenterCrop of a Pillow picture."""
    height, width = pixels.shape[:2]
    size = (side, side * height // width) if width <= height else (side * width // height, side)
    left, top = (round((length - side) / 2) for length in size)
    picture = Image.fromarray(pixels).resize(size, resample)
    return np.asarray(picture.crop((left, top, left + side, top + side)))


def _sana(pixels: Pixels, side: int) -> Shown:
    """A square of 8 bits at the models' resolution, as both sides are stored, and pytorch-fid's resize of it."""
    square = _short_side_and_crop(pixels, side, Image.Resampling.BILINEAR)
    return _interpolated(square, INCEPTION_PX, "bilinear", antialias=False)


def _clip(pixels: Pixels) -> Shown:
    return _short_side_and_crop(pixels, 224, Image.Resampling.BICUBIC).astype(np.float32)


def _cmmd(pixels: Pixels, side: int) -> Shown:
    """The middle square, and Pillow's bicubic of it in 8 bits."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = Image.fromarray(np.ascontiguousarray(pixels[top : top + short, left : left + short]))
    return np.asarray(square.resize((side, side), Image.Resampling.BICUBIC)).astype(np.float32)


_TENSORFLOW_SCALE = (128 / 255,) * 3, (128 / 255,) * 3
_PYTORCH_SCALE = (0.5,) * 3, (0.5,) * 3

INCEPTION_PROTOCOLS = {
    "clean": Protocol(_clean, *_TENSORFLOW_SCALE),
    "pytorch": Protocol(partial(_interpolated, side=INCEPTION_PX, mode="bilinear", antialias=False), *_PYTORCH_SCALE),
    "tensorflow": Protocol(_tensorflow, *_TENSORFLOW_SCALE),
    "torchmetrics": Protocol(
        partial(_interpolated, side=INCEPTION_PX, mode="bilinear", antialias=True), *_TENSORFLOW_SCALE
    ),
    "sana-512": Protocol(partial(_sana, side=512), *_PYTORCH_SCALE),
    "sana-1024": Protocol(partial(_sana, side=1024), *_PYTORCH_SCALE),
}
"""The protocols of FID, KID, precision and recall, by the names under which values are compared."""

CLIP = Protocol(_clip, _CLIP_MEAN, _CLIP_STD)
"""Of CLIP-Score: 224 px."""


def cmmd_protocol(side: int) -> Protocol:
    """CMMD's, for a CLIP that sees squares of that many px: 336 as published."""
    return Protocol(partial(_cmmd, side=side), _CLIP_MEAN, _CLIP_STD)


CMMD = cmmd_protocol(336)
DINOV2 = Protocol(partial(_interpolated, side=224, mode="bicubic", antialias=True), _IMAGENET_MEAN, _IMAGENET_STD)
"""edm2's 224 px, for the Fréchet distance of DINOv2 features."""
