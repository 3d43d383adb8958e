"""How many faces a picture shows, and how large they are, by CenterFace."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from models.opencv import Floats, Network
from models.weights import CENTERFACE

SMALLEST_PX, LONGEST_PX = 64, 1024
"""A smaller picture is enlarged to this longest side, and a larger one shrunk. At 32 px the network sees faces in a
picture of one colour."""
MULTIPLE_PX = 32
CELL_PX = 4
"""The network answers for cells of so many px."""
FACE = 0.5
"""A face has a score above this, the published code's threshold."""
SAME = 0.3
"""Of two boxes that overlap more, intersection over union, the better one is kept."""


class FacesFound(NamedTuple):
    boxes: Floats
    """(n, 4), the best first: left, top, right, bottom, 0 to 1 of the picture's width and height."""
    scores: Floats
    """(n,), 0 to 1."""

    @property
    def largest(self) -> float:
        """Share of the picture in the largest box, 0 to 1; 0 where there is none."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        return float(sides.prod(axis=1).max(initial=0.0))


class FaceDetector:
    """The network and what it is fed; threads share one."""

    def __init__(self) -> None:
        """Load it. Raises ValueError: it is not on this machine, or is damaged."""
        self._network = Network(CENTERFACE, ["537", "538", "539"])
        self.name = self._network.name

    def __call__(self, image: Image.Image) -> FacesFound:
        """Look at an RGB picture of any size."""
        size = network_size(*image.size)
        heat, log_sizes, offsets = self._network.run(np.asarray(image), size, 0, 1, bgr=False)
        return faces_in(heat[0, 0], log_sizes[0], offsets[0])


def network_size(width: int, height: int) -> tuple[int, int]:
    """Width and height in px at which the detector looks at a picture."""
    longest = max(width, height)
    factor = min(max(longest, SMALLEST_PX), LONGEST_PX) / longest
    new_width, new_height = (-(-max(1, round(side * factor)) // MULTIPLE_PX) * MULTIPLE_PX for side in (width, height))
    return new_width, new_height


def faces_in(heat: Floats, log_sizes: Floats, offsets: Floats) -> FacesFound:
    """The faces of the network's maps: the score of each cell (height, width); the logarithm of the face's height and
    width in cells, and the place of its middle in the cell, down and right (2, height, width each)."""
    rows, columns = np.nonzero(heat > FACE)
    scores = heat[rows, columns]
    middles = np.stack((columns, rows), axis=1) + 0.5 + offsets[::-1, rows, columns].T
    sides = np.exp(log_sizes[::-1, rows, columns].T)
    first = middles - sides / 2
    found = cv2.dnn.NMSBoxes(np.hstack((first, sides)).tolist(), scores.tolist(), FACE, SAME)
    kept = np.array(found, np.intp)
    edges = np.hstack((first, first + sides))[kept] / np.tile(heat.shape[::-1], 2)
    return FacesFound(edges.clip(0, 1).astype(np.float32), scores[kept].astype(np.float32))
