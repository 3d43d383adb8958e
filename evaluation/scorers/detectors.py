"""Mask2Former finds COCO's objects in a picture: a class, a score, a box and a mask for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.device import choose_device
from models.weights import load_frozen, load_preprocessing, read_json

LEAST_SCORE = 0.05
"""Detections below it are not kept; the rules count those above 0.3."""
MOST = 100
"""Detections of a picture, as mmdet keeps them."""
SIZE = {"shortest_edge": 800, "longest_edge": 1333}
"""px, as mmdet tests it. The files of the hub say 384 x 384, whatever the shape of the picture."""
SWIN_S = (96, [2, 2, 18, 2])
"""Width and depths of GenEval's network."""
OTHER_NAMES = {
    "motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch", "pottedplant": "potted plant",
    "diningtable": "dining table", "tvmonitor": "tv", "mouse": "computer mouse", "remote": "tv remote",
    "keyboard": "computer keyboard", "hair dryer": "hair drier",
}  # fmt: skip
"""What models call a class -> what GenEval calls it."""


@dataclass(frozen=True)
class Detection:
    name: str
    """As GenEval calls it."""
    score: float
    box: tuple[float, float, float, float]
    """left, top, right, bottom in px; the last column and row lie before right and bottom."""
    mask: NDArray[np.bool_] = field(repr=False, compare=False)
    """(height, width)"""


Detector = Callable[[Image.Image], list[Detection]]
"""An RGB picture -> what is in it, best first."""


def classes_of(folder: Path) -> list[str]:
    """The classes that a detector knows, in the order of their numbers. Raises ValueError: its config.json has none."""
    config = read_json(folder / "config.json")
    labels = config.get("id2label")
    if config.get("model_type") != "mask2former" or not isinstance(labels, dict):
        raise ValueError(f"{folder}: is no Mask2Former that names its classes, by its config.json")
    names = [str(labels[key]).strip().lower() for key in sorted(labels, key=int)]
    return [OTHER_NAMES.get(name, name) for name in names]


def is_original_network(folder: Path) -> bool:
    """Whether a Mask2Former is over Swin-S, as GenEval's."""
    backbone = read_json(folder / "config.json").get("backbone_config") or {}
    return (backbone.get("embed_dim"), backbone.get("depths")) == SWIN_S


def load_detector(folder: Path, device: str) -> Detector:
    """The detector in a folder. Pictures go through it one by one, so that none depends on another. Raises ValueError:
    the folder holds no detector, or a damaged one; or there is no such device."""
    import torch
    from transformers import AutoImageProcessor, Mask2FormerForUniversalSegmentation

    model = load_frozen(Mask2FormerForUniversalSegmentation.from_pretrained, folder).to(choose_device(device))
    # by Pillow: the other backend is torchvision's
    processor = load_preprocessing(AutoImageProcessor.from_pretrained, folder, "Mask2Former", backend="pil")
    classes = classes_of(folder)

    def detect(picture: Image.Image) -> list[Detection]:
        inputs = processor(picture, size=SIZE, return_tensors="pt")
        with torch.inference_mode():
            found = model(pixel_values=inputs["pixel_values"].to(model.device, model.dtype))
        return sorted(_instances(found, picture, classes), key=lambda each: -each.score)[:MOST]

    return detect


def _instances(found: Any, picture: Image.Image, classes: list[str]) -> list[Detection]:
    """What mmdet makes of Mask2Former's output: a class's score times the mean of its mask, and a box around the mask.
    transformers' own way reads masks off a grid of 384 x 384, which moves boxes by some pixels."""
    from torch.nn.functional import interpolate

    if not (found.class_queries_logits.isfinite().all() and found.masks_queries_logits.isfinite().all()):
        raise ValueError("the detector gives NaN or infinity")
    scores = found.class_queries_logits[0].float().softmax(-1)[:, :-1]  # (queries, classes)
    best = scores.flatten().topk(min(MOST, scores.numel()))
    wanted = best.indices[best.values > LEAST_SCORE]
    detections = []
    for place, score in zip(wanted.tolist(), best.values.tolist(), strict=False):
        query, number = divmod(place, scores.shape[1])
        logits = found.masks_queries_logits[0, query].float()[None, None]
        size = (picture.height, picture.width)
        mask = interpolate(logits, size=size, mode="bilinear", align_corners=False)[0, 0]
        inside = mask > 0
        if not inside.any():
            continue
        sure = float(score * mask.sigmoid()[inside].mean())
        rows, columns = inside.any(1).nonzero().flatten().tolist(), inside.any(0).nonzero().flatten().tolist()
        box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
        detections.append(Detection(classes[number], sure, box, inside.cpu().numpy()))
    return [each for each in detections if each.score > LEAST_SCORE]
