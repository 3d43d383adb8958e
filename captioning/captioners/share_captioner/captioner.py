"""The captioner `share_captioner`: Share-Captioner with the knobs of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image

from captioning.captioners.base import Generated, InBatches, Plain
from captioning.captioners.fitting import batch_size_for
from captioning.captioners.local_model import find_share_captioner
from captioning.captioners.share_captioner.checkpoint import ShareCaptioner
from captioning.captioners.share_captioner.dimensions import ResamplerChoices
from captioning.captioners.share_captioner.generation import Decoding, generate_ids
from captioning.captioners.share_captioner.tokenizer import QUESTION
from models.device import choose_device
from schemas import captioners


class RecipeModel:
    """The model that a recipe's section names, and the marks of its captions."""

    prompt: str | None = QUESTION

    def __init__(self, section: captioners.ShareCaptioner, device: str, *, language: bool) -> None:
        """Load the model. `device`: auto, cpu, mps, cuda or cuda:N. `language`: see `ShareCaptioner.load`. Raises
        ValueError: its weights are not on this machine or not this model's, or there is no such device."""
        place = choose_device(device, "caption.share_captioner.device")
        found = find_share_captioner(section)
        self.dtype = section.dtype
        if self.dtype == "auto":
            self.dtype = "bf16" if place.type == "cuda" else "fp32"
        self.overrides = {str(key): value for key, value in section.overrides.items()}
        self.folder = found.folder
        self.model = ShareCaptioner.load(
            found.folder, section.rotary, dtype=self.dtype, device=place, overrides=self.overrides, language=language
        )
        _ = self.model.tokenizer  # a missing one stops the job now, not at the first picture
        self.decoding = Decoding(section.decoding, max_new_tokens=section.max_new_tokens)
        self.name, self.revision = found.name, found.revision
        self.retries_help = section.decoding != "greedy"
        choices = self.model.model.dimensions.connector
        readings = choices.as_config() if isinstance(choices, ResamplerChoices) else {}
        self.parameters: dict[str, Plain] = {
            "decoding": section.decoding,
            "dtype": self.dtype,
            **({} if section.engine == "transformers" else {"engine": section.engine}),
            "max_new_tokens": section.max_new_tokens,
            "repetition_penalty": self.decoding.repetition_penalty,
            "rotary": section.rotary,
            **({"top_k": self.decoding.top_k} if self.retries_help else {}),
            **({"num_beams": self.decoding.num_beams} if section.decoding == "published" else {}),
            **readings,
        }


class RecipeCaptioner(RecipeModel, InBatches):
    """Share-Captioner on transformers, batch by batch, as a captioner of the job. Each worker builds one."""

    def __init__(self, section: captioners.ShareCaptioner, device: str = "auto") -> None:
        """Load the model; arguments and errors as of `RecipeModel`."""
        super().__init__(section, device, language=True)
        self.batch_size = section.batch_size or batch_size_for(
            self.model.device, section.max_new_tokens, self._write_about_nothing
        )

    def caption(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> list[Generated]:
        """One answer per picture, in order. Raises RuntimeError: the device fails, for example for lack of memory."""
        try:
            return self.model.generate(images, seeds, self.decoding)
        except torch.OutOfMemoryError:
            self.batch_size = max(1, len(images) // 2)
            raise

    def _write_about_nothing(self, num_tokens: int) -> None:
        prompt, decoding = (
            self.model.prompts([Image.new("RGB", (8, 8))]),
            replace(self.decoding, max_new_tokens=num_tokens),
        )
        # A growing cache takes no less than one of fixed size, and compiles nothing.
        generate_ids(self.model.model.language, prompt, decoding, [0], [], static_cache=False)
