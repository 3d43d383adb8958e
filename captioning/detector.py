"""OWLv2 looks in a picture for things that are named in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.device import choose_device, coming_back, sent
from models.weights import OWLV2, find_frozen, load_frozen, load_preprocessing, weights_name

if TYPE_CHECKING:  # imported where they are used: they take seconds
    from transformers import Owlv2Processor

QUERIES_AT_ONCE = 32
"""Words that are looked for in one pass."""


class NounDetector:
    """Scores how sure an open-vocabulary detector is that a picture shows a thing."""

    def __init__(self, model: Any, processor: Owlv2Processor, name: str) -> None:
        self._model, self._processor, self.name = model, processor, name

    @classmethod
    def load(cls, weights: str | None, key: str, device: str = "auto") -> NounDetector:
        """The detector that a recipe names; None is OWLv2 base. Raises ValueError: it or the device is not on this
        machine, or it is no OWLv2 model."""
        from transformers import Owlv2ForObjectDetection, Owlv2Processor

        folder = find_frozen(weights, OWLV2, key)
        place = choose_device(device, "ground.device")
        model = load_frozen(Owlv2ForObjectDetection.from_pretrained, folder).to(place)
        processor = load_preprocessing(Owlv2Processor.from_pretrained, folder, "OWLv2")
        return cls(model, processor, weights_name(weights, folder, OWLV2))

    def pixels(self, image: Image.Image) -> NDArray[np.float32]:
        """The detector's input for an RGB picture: work for the threads that decode."""
        return self._processor.image_processor(image, return_tensors="np")["pixel_values"][0]

    def queries(self, nouns: Sequence[str]) -> list[NDArray[np.int64]]:
        """Nouns as tokens and their mask, (2, n, tokens), at most `QUERIES_AT_ONCE` of them each: the same."""
        found = []
        for begin in range(0, len(nouns), QUERIES_AT_ONCE):
            tokens = self._processor.tokenizer(
                [f"a photo of a {noun}" for noun in nouns[begin : begin + QUERIES_AT_ONCE]],
                padding="max_length",
                truncation=True,
                max_length=self._model.config.text_config.max_position_embeddings,
                return_tensors="np",
            )
            found.append(np.stack([tokens["input_ids"], tokens["attention_mask"]]))
        return found

    def scoring(self, pixels: NDArray[np.float32], queries: Sequence[NDArray[np.int64]]) -> Callable[[], list[float]]:
        """Begin to look for nouns in a picture; the function that is returned waits for the scores of `scores`."""
        import torch

        found = []
        with torch.inference_mode():
            picture = sent([pixels], self._model.device) if queries else None
            for query in queries:
                tokens, mask = sent(list(query), self._model.device)
                answer = self._model(pixel_values=picture, input_ids=tokens, attention_mask=mask)
                found.append(coming_back(answer.logits[0].float().sigmoid().amax(dim=0)))  # (boxes, queries)
        return lambda: [score for get in found for score in get().tolist()]

    def scores(self, image: Image.Image, nouns: Sequence[str]) -> list[float]:
        """For each noun the score, 0 to 1, of the box that fits "a photo of a NOUN" best."""
        return self.scoring(self.pixels(image), self.queries(nouns))()
