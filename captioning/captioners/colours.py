"""Colour names: the nearest of 48 everyday words for a colour, in CIELAB."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PALETTE: dict[str, tuple[int, int, int]] = {
    "black": (12, 12, 12),
    "charcoal": (48, 48, 50),
    "dark grey": (82, 82, 84),
    "grey": (128, 128, 128),
    "light grey": (185, 185, 185),
    "white": (245, 245, 245),
    "cream": (246, 238, 213),
    "beige": (216, 200, 170),
    "tan": (196, 160, 115),
    "taupe": (138, 122, 108),
    "brown": (124, 82, 48),
    "dark brown": (62, 42, 28),
    "chestnut": (136, 66, 44),
    "rust": (176, 78, 36),
    "terracotta": (204, 110, 80),
    "dark red": (110, 18, 24),
    "red": (205, 32, 38),
    "salmon": (238, 140, 118),
    "peach": (248, 202, 168),
    "pink": (240, 170, 186),
    "hot pink": (236, 70, 150),
    "orange": (240, 132, 30),
    "amber": (226, 166, 40),
    "gold": (204, 168, 74),
    "yellow": (246, 220, 50),
    "pale yellow": (246, 236, 150),
    "olive": (112, 108, 42),
    "khaki": (172, 164, 108),
    "lime green": (150, 204, 44),
    "green": (58, 142, 62),
    "dark green": (24, 66, 36),
    "sage green": (146, 164, 128),
    "mint green": (166, 222, 186),
    "teal": (22, 118, 120),
    "turquoise": (64, 190, 186),
    "pale blue": (190, 214, 232),
    "sky blue": (120, 178, 226),
    "blue": (36, 92, 196),
    "navy blue": (20, 32, 82),
    "slate blue": (84, 104, 130),
    "steel blue": (96, 140, 180),
    "indigo": (62, 44, 134),
    "violet": (128, 82, 190),
    "purple": (98, 34, 108),
    "lavender": (196, 184, 228),
    "mauve": (172, 126, 152),
    "magenta": (196, 40, 150),
    "plum": (92, 50, 76),
}
"""Name -> sRGB, chosen to lie roughly evenly in CIELAB."""

NAMES = tuple(PALETTE)


def to_lab(rgb: NDArray[np.uint8]) -> Floats:
    """sRGB (..., 3) of 0 to 255 to CIELAB (..., 3), D65 white: L in 0 to 100 (IEC 61966-2-1 and CIE 15)."""
    scaled = rgb.astype(np.float64) / 255.0
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    red, green, blue = linear[..., 0], linear[..., 1], linear[..., 2]
    x = _lab_curve((0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.95047)
    y = _lab_curve(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    z = _lab_curve((0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.08883)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def nearest_names(lab: Floats) -> NDArray[np.intp]:
    """For CIELAB colours (..., 3), the index into `NAMES` of the nearest one (CIE76 distance)."""
    difference = lab[..., None, :] - _PALETTE_LAB
    return np.argmin((difference * difference).sum(axis=-1), axis=-1)


def _lab_curve(ratio: Floats) -> Floats:
    return np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)


_PALETTE_LAB = to_lab(np.array(list(PALETTE.values()), dtype=np.uint8))
PALETTE_CHROMA: Floats = np.hypot(_PALETTE_LAB[:, 1], _PALETTE_LAB[:, 2])
"""Distance from grey of each name's colour, in the order of `NAMES`."""
