"""Frames, letterboxes and pillarboxes: bars of one colour that end in a straight edge."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageStat

EVEN = 4.0
"""A line is of one colour where its channels vary by no more than this (standard deviation, levels of 0 to 255)."""
SAME = 6.0
"""Lines belong to one bar while their mean colour is within this of the first."""
STEP = 24.0
"""A pixel behind the bar is another one where a channel differs by more than this."""
STRAIGHT = 0.3
"""Share of the pixels behind the bar that must be other ones: fewer, and the bar is a plain background."""
AHEAD_PX = 6
"""Largest distance of a bar's edge from its last line: compression and resizing blur it."""


class PictureBorder(NamedTuple):
    share: float
    """Share of the area, 0 to 1; 1 where the whole picture is one colour."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom of the picture inside, in px of the picture that was measured."""


def border(image: Image.Image) -> PictureBorder:
    """Find the bars on the four sides. A sky, a white background behind an object and a dark corner are no bars, since
    they do not end in a straight line. `image`: RGB, of any size."""
    image = image.convert("RGB")
    width, height = image.size
    if max(ImageStat.Stat(image).stddev) <= EVEN:
        return PictureBorder(1.0, (0, 0, 0, 0))
    pixels = np.asarray(image)
    top, bottom = _bar(pixels), _bar(pixels[::-1])
    inside = pixels[top : height - bottom].swapaxes(0, 1)
    left, right = _bar(inside), _bar(inside[::-1])
    box = (left, top, width - right, height - bottom)
    area = (box[2] - box[0]) * (box[3] - box[1])
    return PictureBorder(1 - area / (width * height), box)


def _bar(lines: NDArray[np.uint8]) -> int:
    """How many of the first lines (n, length, 3) are a bar; 0 where they are none."""
    colour = lines[0].mean(axis=0, dtype=np.float32)
    count = next((n for n, line in enumerate(lines) if not _belongs(line, colour)), len(lines))
    if count in (0, len(lines)):
        return 0
    behind = lines[count : count + AHEAD_PX].astype(np.float32)
    other = np.abs(behind - colour).max(axis=2) > STEP
    return count if float(other.mean(axis=1).max()) >= STRAIGHT else 0


def _belongs(line: NDArray[np.uint8], colour: NDArray[np.float32]) -> bool:
    """Whether a line (length, 3) is even and of this colour."""
    levels = line.astype(np.float32)
    same = float(np.abs(levels.mean(axis=0) - colour).max()) <= SAME
    return same and float(levels.std(axis=0).max()) <= EVEN
