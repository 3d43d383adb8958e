"""Sharpness of the sharpest tenth of a picture: an open aperture is no fault, a shaken camera is."""

from __future__ import annotations

import numpy as np
from PIL import Image

from schemas.pixels import shrunk_size

MEASURED_PX = 1024
"""Larger pictures are shrunk to this longest side; smaller ones are measured as they are."""
TILES = 10
"""The picture is cut into TILES x TILES, and the sharpest tenth of them counts."""


def sharpness(image: Image.Image) -> float:
    """Root mean square of the Laplacian of the luminance, in grey levels of 0 to 255, at the 90th percentile of 10 x 10
    tiles. 0 for an even area; a sharp photograph is some 10 to 60. `image`: RGB or L, of any size."""
    size = shrunk_size(image.size, MEASURED_PX)
    grey = image.convert("L")
    if size != grey.size:
        grey = grey.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    levels = np.asarray(grey, np.float32)
    if min(levels.shape) < 3:
        return 0.0
    inner = levels[1:-1, 1:-1]
    laplacian = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:] - 4 * inner
    rows, columns = (min(TILES, side) for side in laplacian.shape)
    tiles = [
        float(np.sqrt(np.square(tile).mean()))
        for band in np.array_split(laplacian, rows, axis=0)
        for tile in np.array_split(band, columns, axis=1)
    ]
    return float(np.percentile(tiles, 90))
