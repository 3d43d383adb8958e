"""What the screens that look for writing and faces cost, beside their networks alone on the same pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from benchmarks.screens_sheet import photo
from curation.scores import faces, text_area
from models.fetching import find_packaged, place_of
from models.weights import CENTERFACE, PPOCR_DETECTOR, Weight

PROXY_PX = (1024, 683)
PHOTOS = ("coffee.png", "astronaut.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "page.png")
ROUNDS = 3


def screens_speed(folder: Path) -> Iterator[str]:
    """Pictures per second and core at the size of a proxy, in CPU time, with one thread."""
    pictures = [photo(name).resize(PROXY_PX, Image.Resampling.BICUBIC) for name in PHOTOS]
    for name, weight, module, make in (
        ("text_area", PPOCR_DETECTOR, text_area, text_area.TextDetector),
        ("faces, face_area", CENTERFACE, faces, faces.FaceDetector),
    ):
        if place_of(weight) is None:
            yield f"| {name} | not measured: `sigma weights get {weight.name}` | | | |"
            continue
        size = module.network_size(*PROXY_PX)
        alone = _network_alone(weight, size)
        rounds = [(_cpu_seconds(make(), pictures), _cpu_seconds(alone, pictures)) for _ in range(ROUNDS)]
        ours, raw = (min(each) / len(pictures) for each in zip(*rounds, strict=True))
        at = f"{PROXY_PX[0]} x {PROXY_PX[1]} px, run at {size[0]} x {size[1]}"
        yield f"| {name}, {at} | {1 / ours:.1f} pictures/s | the network alone {1 / raw:.1f} | {raw / ours:.2f} | |"


def _network_alone(weight: Weight, size: tuple[int, int]) -> Callable[[Image.Image], Any]:
    """OpenCV's runner on an input that is ready, with its layers merged: the size is always the same."""
    network = cv2.dnn.readNetFromONNX(str(find_packaged(weight)))
    ready = np.zeros((1, 3, size[1], size[0]), np.float32)

    def run(picture: Image.Image) -> Any:
        network.setInput(ready)
        return network.forward(network.getUnconnectedOutLayersNames())

    return run


def _cpu_seconds(look: Callable[[Image.Image], Any], pictures: Sequence[Image.Image]) -> float:
    look(pictures[0])
    begun = time.process_time()
    for picture in pictures:
        look(picture)
    return time.process_time() - begun


BENCHMARKS = (screens_speed,)
