"""How much of a picture is writing, by PP-OCRv4's detector: sizes and thresholds are those of the published code."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.opencv import Floats, Network
from models.weights import PPOCR_DETECTOR

SHORT_SIDE_PX, LONG_SIDE_PX = 736, 2000
"""The picture is enlarged until its short side has so many px, unless its long side would have more than it may."""
MULTIPLE_PX = 32
TEXT = 0.3
"""A pixel of a higher probability is text."""
BOX = 0.5
"""A box of less mean probability is dropped."""
MOST_BOXES = 1000
SMALLEST_PX = 3
"""A thinner spot is no text."""
GROWTH = 1.6
"""The network marks the core of a line. A box grows on every side by this times its area over its perimeter."""

Box = tuple[tuple[float, float], tuple[float, float], float]
"""Centre, size and angle in degrees, as OpenCV has rectangles; px of the network's picture."""


class TextFound(NamedTuple):
    share: float
    """Share of the picture inside boxes, 0 to 1."""
    corners: list[NDArray[np.float32]]
    """Of each box, (4, 2) as x and y, 0 to 1 of the picture's width and height; those at its edge may be beyond."""


class TextDetector:
    """The network and what it is fed; threads share one."""

    def __init__(self) -> None:
        """Load it. Raises ValueError: it is not on this machine, or is damaged."""
        self._network = Network(PPOCR_DETECTOR, ["sigmoid_0.tmp_0"])
        self.name = self._network.name

    def __call__(self, image: Image.Image) -> TextFound:
        """Look at an RGB picture of any size."""
        (probability,) = self._network.run(np.asarray(image), network_size(*image.size), 127.5, 1 / 127.5, bgr=True)
        return text_in(probability[0, 0])


def network_size(width: int, height: int) -> tuple[int, int]:
    """Width and height in px at which the detector looks at a picture."""
    factor = max(1.0, SHORT_SIDE_PX / min(width, height))
    factor = min(factor, LONG_SIDE_PX / max(width, height))
    new_width, new_height = (
        max(MULTIPLE_PX, round(int(side * factor) / MULTIPLE_PX) * MULTIPLE_PX) for side in (width, height)
    )
    return new_width, new_height


def text_in(probability: Floats) -> TextFound:
    """The boxes of a map (height, width) of the probability that a pixel is text."""
    height, width = probability.shape
    spots = cv2.dilate((probability > TEXT).astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(spots, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    covered = np.zeros((height, width), np.uint8)
    corners = []
    for contour in contours[:MOST_BOXES]:
        if (box := _grown(contour, probability)) is not None:
            points = cv2.boxPoints(box)
            cv2.fillPoly(covered, [points.round().astype(np.int32)], 1)
            corners.append((points / (width, height)).astype(np.float32))
    return TextFound(float(covered.mean()), corners)


def _grown(contour: NDArray[Any], probability: Floats) -> Box | None:
    """The box of a spot, grown to the whole line; None where it is no text."""
    centre, (width, height), angle = cv2.minAreaRect(contour)
    if min(width, height) < SMALLEST_PX:
        return None
    points = cv2.boxPoints((centre, (width, height), angle)).astype(np.int32)
    left, top = points.min(axis=0).clip(0)
    right, bottom = points.max(axis=0) + 1
    near = np.ascontiguousarray(probability[top:bottom, left:right])
    inside = np.zeros(near.shape, np.uint8)
    cv2.fillPoly(inside, [points - (left, top)], 1)
    if cv2.mean(near, inside)[0] < BOX:
        return None
    more = GROWTH * width * height / (width + height)  # both sides of an axis: the perimeter is twice the sum
    return (centre[0], centre[1]), (width + more, height + more), angle
