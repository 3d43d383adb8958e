"""Any image classifier of transformers as a screen: how sure it is that a picture has one of its labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.device import choose_device, coming_back
from models.preprocessing import Pixels, Preprocessing
from models.weights import (
    NSFW,
    WATERMARK,
    find_frozen,
    load_frozen,
    load_preprocessing,
    missing_weights,
    of_hub,
    weights_name,
)
from schemas.scores import Classifier

PUBLISHED = {"nsfw": NSFW, "watermark": WATERMARK}
"""The model of each column that may name none: `schemas.scores.PUBLISHED`."""


class ImageClassifier:
    """A classifier with its own preprocessing, and the label that is read of it."""

    def __init__(self, model: Any, processor: Any, label: int, name: str) -> None:
        self._model, self._label, self.name = model, label, name
        self.shown = Preprocessing(processor)

    @classmethod
    def load(cls, column: str, section: Classifier, device: str = "auto") -> ImageClassifier:
        """The classifier of a column of the recipe. Raises ValueError: it or the device is not on this machine, or it
        is no image classifier, or has no such label."""
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        folder = find_classifier(column, section)
        place = choose_device(device, "screen.device")
        model = load_frozen(AutoModelForImageClassification.from_pretrained, folder).to(place)
        # by Pillow: the other backend is torchvision's
        processor = load_preprocessing(AutoImageProcessor.from_pretrained, folder, "image", backend="pil")
        wanted = section.label or column
        labels = {str(word).lower(): int(number) for number, word in model.config.id2label.items()}
        if wanted.lower() not in labels:
            there = ", ".join(str(word) for word in model.config.id2label.values())
            raise ValueError(f"screen.classifiers.{column}.label={wanted}: the labels of {folder.name} are {there}")
        return cls(model, processor, labels[wanted.lower()], weights_name(section.model, folder, PUBLISHED.get(column)))

    def pixels(self, image: Image.Image) -> Pixels:
        """The model's input for an RGB picture, (3, height, width); threads that decode call this."""
        return self.shown.pixels(image)

    def scores(self, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
        """Pictures as `pixels` gives them -> (n,) probabilities of the label; see `scoring`."""
        return self.scoring(pixels)()

    def scoring(self, pixels: Sequence[Pixels]) -> Callable[[], NDArray[np.float32]]:
        """Begin to score pictures; the function that is returned waits for (n,) probabilities of the label. By softmax
        over the labels; where they do not exclude each other (a multi-label model, or one label), by the sigmoid of
        this one."""
        import torch

        config = self._model.config
        alone = config.problem_type == "multi_label_classification" or config.num_labels == 1
        with torch.inference_mode():
            batch = self.shown.batch(pixels, self._model.device, self._model.dtype)
            logits = self._model(pixel_values=batch).logits.float()
            probabilities = logits.sigmoid() if alone else logits.softmax(dim=1)
            get = coming_back(probabilities[:, self._label])
        return lambda: get().numpy()


def find_classifier(column: str, section: Classifier) -> Path:
    """The folder of the classifier of a column; nothing is loaded. Raises ValueError: it is not on this machine."""
    key = f"screen.classifiers.{column}.model"
    if column in PUBLISHED:
        return find_frozen(section.model, PUBLISHED[column], key)
    assert section.model is not None, key  # the recipe refuses a column without a published model that names none
    own = of_hub(section.model, "an image classifier")
    try:
        return find_frozen(section.model, own, key)
    except ValueError:
        raise missing_weights(own, key, section.model) from None
