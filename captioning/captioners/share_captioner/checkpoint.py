"""A folder of Share-Captioner's published files as an object that captions pictures, without a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from captioning.captioners.base import Generated
from captioning.captioners.share_captioner.files import WeightFiles
from captioning.captioners.share_captioner.generation import Decoding, generate_ids
from captioning.captioners.share_captioner.language import EOS
from captioning.captioners.share_captioner.loading import Rotary, load_model
from captioning.captioners.share_captioner.model import ShareCaptionerModel, preprocess
from captioning.captioners.share_captioner.tokenizer import QUESTION, Tokenizer


class ShareCaptioner:
    """Share-Captioner, or its v1 base InternLM-XComposer-7B, from the published tensors; no remote code."""

    def __init__(self, model: ShareCaptionerModel, tokenizer: Tokenizer | None, question: str = QUESTION) -> None:
        """tokenizer: only `generate` needs it. question: the prompt about each picture."""
        self.model = model
        self.question = question
        self.image_size: int = model.dimensions.image_size
        self._tokenizer = tokenizer

    @classmethod
    def load(
        cls,
        folder: str | Path,
        rotary: Rotary = "reference",
        *,
        dtype: str | None = None,
        device: str | torch.device = "cpu",
        question: str = QUESTION,
        overrides: Mapping[str, Any] | None = None,
        language: bool = True,
    ) -> ShareCaptioner:
        """Read a folder of `config.json`, weights (safetensors or `.bin`, whole or in shards) and `tokenizer.model`,
        which may be missing until `generate` is called. `rotary`: `reference` takes the frequencies of the file, which
        the published one holds rounded to bfloat16, as the published captions were made; `exact` computes them.
        `dtype`: `fp32`, `bf16` or `fp16`; None keeps the file's. `overrides`: keys of config.json to be taken instead,
        such as `resampler_heads`. `language`: False leaves the language model out: pictures become prompts, which
        another engine goes on from. Raises ValueError: a file is missing, cut or foreign; names or shapes are not this
        model's."""
        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder")
        files = WeightFiles(folder)
        model = load_model(files, rotary, dtype, torch.device(device), overrides or {}, language=language)
        tokenizer = Tokenizer(folder) if (folder / "tokenizer.model").is_file() else None
        return cls(model, tokenizer, question)

    @property
    def device(self) -> torch.device:
        return self.model.flag_image_start.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which the weights are stored and multiplied."""
        return self.model.flag_image_start.dtype

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises ValueError: the folder had none, or it has more pieces than the model embeddings."""
        if self._tokenizer is None:
            raise ValueError("tokenizer.model is missing from the folder of the weights: copy it from the repository")
        num_rows = self.model.dimensions.vocab_size
        if len(self._tokenizer) > num_rows:
            raise ValueError(f"tokenizer.model has {len(self._tokenizer)} pieces, the model {num_rows} embeddings")
        return self._tokenizer

    @torch.inference_mode()
    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """The embeddings between the two image flags: (B, 3, image_size, image_size) -> (B, positions, hidden). Raises
        ValueError: the pictures have another size."""
        pixel_values, size = torch.as_tensor(pixel_values), self.image_size
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, size, size):
            raise ValueError(f"pixel_values {list(pixel_values.shape)}: expected (B, 3, {size}, {size})")
        return self.model.encode_image(pixel_values.to(self.device, self.dtype))

    @torch.inference_mode()
    def prompt(self, pixel_values: Tensor, ids_before: Tensor, ids_after: Tensor) -> Tensor:
        """Embeddings of the text before, the flags around the picture, and the text after: (B, L, hidden). The ids are
        (L1,) and (L2,), or (B, L1) and (B, L2)."""
        before, after = (torch.as_tensor(ids, device=self.device) for ids in (ids_before, ids_after))
        return self.model.prompt(self.encode_image(pixel_values), before, after)

    @torch.inference_mode()
    def logits(self, pixel_values: Tensor, ids_before: Tensor, ids_after: Tensor) -> Tensor:
        """Logits of the next token at every position of the prompt, (B, L, V); arguments as of `prompt`."""
        return self.model.language(inputs_embeds=self.prompt(pixel_values, ids_before, ids_after)).logits

    def prompts(self, images: Sequence[Image.Image]) -> Tensor:
        """The prompts about some upright sRGB pictures of any size, (B, L, hidden) on the device. Raises ValueError:
        there is no tokenizer that fits. Raises RuntimeError: the device ran out of memory."""
        before, after = (torch.tensor(ids) for ids in self.tokenizer.prompt(self.question))
        return self.prompt(preprocess(images, self.image_size), before, after)

    def stops(self, decoding: Decoding) -> list[int]:
        """The ids after which nothing more is written."""
        # The published script stops its beams at EOS alone and cuts the text; the others need not write on.
        return [EOS] if decoding.mode == "published" else sorted({EOS, self.tokenizer.end_of_answer})

    def answer(self, ids: Sequence[int]) -> Generated:
        ended = not {EOS, self.tokenizer.end_of_answer}.isdisjoint(ids)
        return Generated(self.tokenizer.answer(ids), ended, len(ids))

    @torch.inference_mode()
    def generate(
        self, images: Sequence[Image.Image], seeds: Sequence[int], decoding: Decoding | None = None
    ) -> list[Generated]:
        """One caption per picture; the same picture, seed and decoding give the same text in any batch. No decoding is
        the published one; `greedy` ignores the seeds. Raises ValueError: there are not as many seeds as pictures, or no
        tokenizer that fits. Raises RuntimeError: the device ran out of memory."""
        if len(images) != len(seeds):
            raise ValueError(f"{len(images)} pictures, {len(seeds)} seeds")
        if not images:
            return []
        decoding = decoding or Decoding()
        rows = generate_ids(self.model.language, self.prompts(images), decoding, seeds, self.stops(decoding))
        return [self.answer(ids) for ids in rows]
