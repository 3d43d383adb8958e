"""CLIP: pictures and texts in one space, where the cosine says how well they fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.device import choose_device, coming_back, sent
from models.preprocessing import Pixels, Preprocessing
from models.weights import CLIP_L14, Weight, find_frozen, load_frozen, load_preprocessing, weights_name

if TYPE_CHECKING:  # imported where they are used: they take seconds
    from transformers import CLIPImageProcessorPil, CLIPTokenizer

Embeddings = NDArray[np.float32]


class Clip:
    """A CLIP model with its own preprocessing. Embeddings are as projected, not normalised; see `cosine`."""

    def __init__(self, model: Any, processor: CLIPImageProcessorPil, tokenizer: CLIPTokenizer, name: str) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.shown = Preprocessing(processor)
        self.name = name
        self.max_tokens: int = self._model.config.text_config.max_position_embeddings
        """Longest text, its begin and end included: 77 as published. Longer texts are cut."""

    @classmethod
    def load(
        cls,
        weights: str | None,
        key: str,
        device: str = "auto",
        published: Weight = CLIP_L14,
        *,
        half_on_gpu: bool = False,
    ) -> Clip:
        """The model that a recipe names; None is the published one. `key`: the knob, for the message. `half_on_gpu`:
        compute in float16 on a GPU, as OpenAI's own code does: many times as fast as in float32, and embeddings differ
        in their third digit; a CPU computes as the weights are stored. Raises ValueError: it or the device is not on
        this machine, or it is no CLIP model."""
        import torch
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        folder = find_frozen(weights, published, key)
        place = choose_device(device, f"{key.partition('.')[0]}.device")
        knobs = {"dtype": torch.float16} if half_on_gpu and place.type == "cuda" else {}
        model = load_frozen(CLIPModel.from_pretrained, folder, **knobs).to(place)
        processor = load_preprocessing(CLIPImageProcessorPil.from_pretrained, folder, "CLIP")
        tokenizer = load_preprocessing(CLIPTokenizer.from_pretrained, folder, "CLIP")
        return cls(model, processor, tokenizer, weights_name(weights, folder, published))

    @property
    def dim(self) -> int:
        """Numbers in an embedding: 768 as published."""
        return int(self._model.config.projection_dim)

    @property
    def side(self) -> int:
        """Side of the square that it sees, px: 224 or 336 as published."""
        return int(self._model.config.vision_config.image_size)

    def pixels(self, image: Image.Image) -> Pixels:
        """The model's input for an RGB picture, (3, side, side): work for the threads that decode."""
        return self.shown.pixels(image)

    def embed_pixels(self, pixels: Sequence[Pixels]) -> Embeddings:
        """Pictures as `pixels` gives them, or already normalised -> (n, dim) float32."""
        return self.embedding_pixels(pixels)()

    def embedding_pixels(self, pixels: Sequence[Pixels]) -> Callable[[], Embeddings]:
        """Begin with what `embed_pixels` does; the function that is returned waits for it."""
        import torch

        with torch.inference_mode():
            batch = self.shown.batch(pixels, self._model.device, self._model.dtype)
            return _numpy(self._model.get_image_features(pixel_values=batch))

    def embed_images(self, images: Sequence[Image.Image]) -> Embeddings:
        """RGB pictures -> (n, dim) float32."""
        return self.embed_pixels([self.pixels(image) for image in images])

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Texts -> (n, dim) float32; what is longer than `max_tokens` is cut."""
        return self.embedding_tokens([self.tokens(text) for text in texts])()

    def tokens(self, text: str) -> list[int]:
        """All tokens of a text, begin and end included: work for the threads that decode."""
        return self._tokenizer(text, verbose=False)["input_ids"]

    def embedding_tokens(self, texts: Sequence[list[int]]) -> Callable[[], Embeddings]:
        """Begin with texts as `tokens` gives them; the function that is returned gives (n, dim) float32."""
        import torch

        if not texts:
            return lambda: np.zeros((0, self.dim), np.float32)
        cut = [text if len(text) <= self.max_tokens else [*text[: self.max_tokens - 1], text[-1]] for text in texts]
        longest, pad = max(map(len, cut)), self._tokenizer.pad_token_id
        ids = [np.array(text + [pad] * (longest - len(text))) for text in cut]
        mask = [np.arange(longest) < len(text) for text in cut]
        with torch.inference_mode():
            batch = [sent(each, self._model.device) for each in (ids, mask)]
            return _numpy(self._model.get_text_features(batch[0], batch[1].long()))

    def num_tokens(self, text: str) -> int:
        """Tokens of a text before any cut, begin and end included."""
        return len(self.tokens(text))


def cosine(first: Embeddings, second: Embeddings) -> Embeddings:
    """Cosine of every row of (n, dim) with every row of (m, dim) -> (n, m)."""
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (first, second)]
    return np.asarray(unit[0] @ unit[1].T, np.float32)


def _numpy(features: Any) -> Callable[[], Embeddings]:
    get = coming_back(features.pooler_output.float())
    return lambda: get().numpy()
