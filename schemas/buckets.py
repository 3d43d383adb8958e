"""Aspect-ratio buckets: the five published tables of 40 (height, width) sizes, and the nearest one to a picture.
Source: PixArt-Σ's `ASPECT_RATIO_256/512/1024/2048/2880`. A label is height / width as the tables print it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]
"""(height, width) in pixels."""

# fmt: off
_1024: dict[str, Size] = {
    "0.25": (512, 2048), "0.26": (512, 1984), "0.27": (512, 1920), "0.28": (512, 1856), "0.32": (576, 1792),
    "0.33": (576, 1728), "0.35": (576, 1664), "0.4": (640, 1600), "0.42": (640, 1536), "0.48": (704, 1472),
    "0.5": (704, 1408), "0.52": (704, 1344), "0.57": (768, 1344), "0.6": (768, 1280), "0.68": (832, 1216),
    "0.72": (832, 1152), "0.78": (896, 1152), "0.82": (896, 1088), "0.88": (960, 1088), "0.94": (960, 1024),
    "1.0": (1024, 1024), "1.07": (1024, 960), "1.13": (1088, 960), "1.21": (1088, 896), "1.29": (1152, 896),
    "1.38": (1152, 832), "1.46": (1216, 832), "1.67": (1280, 768), "1.75": (1344, 768), "2.0": (1408, 704),
    "2.09": (1472, 704), "2.4": (1536, 640), "2.5": (1600, 640), "2.89": (1664, 576), "3.0": (1728, 576),
    "3.11": (1792, 576), "3.62": (1856, 512), "3.75": (1920, 512), "3.88": (1984, 512), "4.0": (2048, 512),
}
_2880: dict[str, Size] = {
    "0.25": (1408, 5760), "0.26": (1408, 5568), "0.27": (1408, 5376), "0.28": (1408, 5184), "0.32": (1600, 4992),
    "0.33": (1600, 4800), "0.34": (1600, 4672), "0.4": (1792, 4480), "0.42": (1792, 4288), "0.47": (1920, 4096),
    "0.49": (1920, 3904), "0.51": (1920, 3776), "0.55": (2112, 3840), "0.59": (2112, 3584), "0.68": (2304, 3392),
    "0.72": (2304, 3200), "0.78": (2496, 3200), "0.83": (2496, 3008), "0.89": (2688, 3008), "0.93": (2688, 2880),
    "1.0": (2880, 2880), "1.07": (2880, 2688), "1.12": (3008, 2688), "1.21": (3008, 2496), "1.28": (3200, 2496),
    "1.39": (3200, 2304), "1.47": (3392, 2304), "1.7": (3584, 2112), "1.82": (3840, 2112), "2.03": (3904, 1920),
    "2.13": (4096, 1920), "2.39": (4288, 1792), "2.5": (4480, 1792), "2.92": (4672, 1600), "3.0": (4800, 1600),
    "3.12": (4992, 1600), "3.68": (5184, 1408), "3.82": (5376, 1408), "3.95": (5568, 1408), "4.0": (5760, 1408),
}
# fmt: on


def _scaled(table: dict[str, Size], numerator: int, denominator: int) -> dict[str, Size]:
    return {label: (h * numerator // denominator, w * numerator // denominator) for label, (h, w) in table.items()}


TABLES: dict[int, dict[str, Size]] = {
    256: _scaled(_1024, 1, 4),
    512: _scaled(_1024, 1, 2),
    1024: _1024,
    2048: _scaled(_1024, 2, 1),
    2880: _2880,
}
"""Resolution -> label -> (height, width). 256, 512 and 2048 are the 1024 table scaled; 2880 ("4K") is its own."""

LABELS: tuple[str, ...] = tuple(_1024)
"""The 40 labels that the 256, 512, 1024 and 2048 tables share, from widest to tallest."""


def nearest_codes(aspects: NDArray[np.float64], labels: Sequence[str] = LABELS) -> NDArray[np.uint8]:
    """The index into `labels` of the bucket nearest to each height / width, on a linear scale as PixArt-Σ assigns it.
    Of two buckets that are equally near, the lower one is taken. `aspects`: height / width. `labels`: ascending."""
    ratios = np.array([float(label) for label in labels])
    above = np.searchsorted(ratios, aspects).clip(1, len(ratios) - 1)
    lower_is_nearer = np.abs(ratios[above - 1] - aspects) <= np.abs(ratios[above] - aspects)
    return (above - lower_is_nearer).astype(np.uint8)


def nearest_sql(aspect: str) -> str:
    """An SQL expression with the label of the bucket nearest to `aspect`; it agrees with `nearest_codes` to the bit.
    `aspect`: an SQL expression with height / width as a DOUBLE, such as `height::DOUBLE / width`."""
    cases = " ".join(
        f"WHEN abs({lower}::DOUBLE - ({aspect})) <= abs({upper}::DOUBLE - ({aspect})) THEN '{lower}'"
        for lower, upper in pairwise(LABELS)
    )
    return f"CASE {cases} ELSE '{LABELS[-1]}' END"


@lru_cache(maxsize=64)
def sizes(resolution: int, multiple: int = 32) -> dict[str, Size]:
    """Label -> (height, width) at any resolution. A published resolution gives its table. Any other gives the 1024
    table scaled to it, sides rounded to at least one `multiple` px, for training at toy scale with the same labels."""
    if resolution in TABLES:
        return TABLES[resolution]
    return {
        label: (_rounded(h * resolution / 1024, multiple), _rounded(w * resolution / 1024, multiple))
        for label, (h, w) in _1024.items()
    }


def _rounded(side: float, multiple: int) -> int:
    return max(1, round(side / multiple)) * multiple
