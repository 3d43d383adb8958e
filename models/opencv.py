"""Runs small ONNX networks on the CPU with OpenCV, which img2dataset brings: no further runtime is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.fetching import find_packaged
from models.weights import Weight, one_line

Floats = NDArray[np.float32]


class Network:
    """A network that any number of threads may run at once: OpenCV's own may not be shared, so each has a copy."""

    def __init__(self, weight: Weight, outputs: Sequence[str]) -> None:
        """Load it; OpenCV uses one thread in this process, as pictures run on the caller's. `outputs`: the names of
        what `run` gives. Raises ValueError: it is not on this machine, or OpenCV cannot read it."""
        self.name = f"{weight.name}@{weight.sha256[:12]}"
        self._bytes = np.fromfile(find_packaged(weight), np.uint8)
        self._outputs = list(outputs)
        cv2.setNumThreads(1)
        try:
            self._idle = [self._copy()]
        except cv2.error as error:
            raise ValueError(f"{weight.name}: OpenCV {cv2.__version__} cannot read it ({one_line(error)})") from None

    def run(self, pixels: NDArray[np.uint8], size: tuple[int, int], mean: float, scale: float, bgr: bool) -> list[Any]:
        """The outputs for one RGB picture (height, width, 3), as float32 arrays with a batch of one in front. `size`:
        width and height that it is resized to, px, multiples of what the network shrinks by. `mean` is taken off each
        level, which is then multiplied by `scale`. `bgr`: the network was trained on blue, green, red."""
        try:
            network = self._idle.pop()
        except IndexError:
            network = self._copy()
        resized = cv2.resize(pixels, size)
        network.setInput(cv2.dnn.blobFromImage(resized, scale, mean=(mean, mean, mean), swapRB=bgr))
        outputs = list(network.forward(self._outputs))
        self._idle.append(network)
        return outputs

    def _copy(self) -> Any:
        network = cv2.dnn.readNetFromONNX(self._bytes)
        # For each new size of picture OpenCV merges the layers anew, and a batch norm into the bias of a transposed
        # convolution that has it already: from the second size on it would give other numbers.
        network.enableFusion(False)
        return network
