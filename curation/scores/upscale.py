"""The factor by which a picture was enlarged: the spectrum of an enlarged picture ends early."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TILE_PX = 256
"""Side of the tiles whose spectra are averaged; a picture must be this large to be measured."""
MAX_TILES = 5
"""Along each side: tiles are spread evenly, over a large picture with gaps."""
FLOOR = 0.02
"""A band of frequencies counts as present while it holds this share of what the low ones hold, both flattened."""

EMPTY = 2.0
"""Grey levels squared: with less at low frequencies, `FLOOR` of it drowns in the rounding of a JPEG."""


def upscale(image: Image.Image) -> float | None:
    """Estimate by what factor a picture was enlarged: 1.0 for one that shows detail up to its last pixel, 4.0 for one
    that shows no more than a quarter of its width could. A picture out of focus measures the same, and is as little use
    at that size. None for a picture under 256 px, or with too little contrast to say. The power of photographs falls as
    1 / f^2, so f^2 P(f) is flat for a native one. It is averaged over tiles (the half with most detail: sky says
    nothing of the lens) and over directions; the estimate is 0.5 / f, with f the frequency (cycles per pixel) above
    which it stays under `FLOOR` of its level at low frequencies. `image`: RGB or L, at its own size: shrinking would
    hide what is looked for."""
    if min(image.size) < TILE_PX:
        return None
    levels = np.asarray(image.convert("L"))
    tops, lefts = (_spread(side) for side in levels.shape)
    spectra = [_spectrum(levels[top : top + TILE_PX, left : left + TILE_PX]) for top in tops for left in lefts]
    spectra.sort(key=lambda spectrum: -float(spectrum[_LOW].mean()))
    flat = np.mean(_half(spectra), axis=0)
    low = float(flat[_LOW].mean())
    if low < EMPTY:
        return None
    there = np.flatnonzero(flat >= FLOOR * low)
    last = int(there[-1]) if len(there) else 0
    return float(max(1.0, 0.5 / _CENTRES[last]))


_BINS = TILE_PX // 4
_WINDOW = np.outer(np.hanning(TILE_PX), np.hanning(TILE_PX)).astype(np.float32)
_RADIUS = np.hypot(np.fft.fftfreq(TILE_PX)[:, None], np.fft.rfftfreq(TILE_PX)[None, :])
_BIN = np.minimum((_RADIUS / 0.5 * _BINS).astype(int), _BINS)  # the corners beyond 0.5 share the last, unused bin
_COUNTS = np.bincount(_BIN.ravel(), minlength=_BINS + 1)[:_BINS]
_CENTRES = (np.arange(_BINS) + 1) * 0.5 / _BINS
_LOW = slice(3, 8)
"""Bands of the lowest frequencies that a tile holds several periods of: 1/40 to 1/16 of a cycle per pixel."""


def _spectrum(tile: NDArray[np.uint8]) -> NDArray[np.float64]:
    """f^2 P(f) of a tile in rings of equal width up to 0.5 cycles per pixel."""
    levels = tile.astype(np.float32)
    power = np.abs(np.fft.rfft2((levels - levels.mean()) * _WINDOW)) ** 2 / TILE_PX**2
    rings = np.bincount(_BIN.ravel(), weights=power.ravel(), minlength=_BINS + 1)[:_BINS] / _COUNTS
    return np.asarray(rings * _CENTRES**2)


def _spread(side: int) -> NDArray[np.int64]:
    """The first pixels of the tiles along a side."""
    count = min(MAX_TILES, -(-side // TILE_PX))
    return np.linspace(0, side - TILE_PX, count).round().astype(np.int64)


def _half(spectra: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    return spectra[: (len(spectra) + 1) // 2]
