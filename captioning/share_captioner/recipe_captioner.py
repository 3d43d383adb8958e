"""Share-Captioner as a captioner of the recipe: found on this machine, loaded once, seeded by the image's id."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from captioning.share_captioner.captioner import Generated, ShareCaptioner
from captioning.share_captioner.generation import Decoding
from captioning.share_captioner.loading import Rotary
from captioning.share_captioner.tokenizer import QUESTION
from schemas.ids import counter
from schemas.weights import SHARE_CAPTIONER, WEIGHTS, missing_weights

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class ShareCaptionerSettings:
    """What a recipe says about Share-Captioner."""

    weights: str | None = None
    """A folder, or a hub id whose files are in the local hub cache; None is the published repository's id."""
    decoding: Decoding = field(default_factory=Decoding)
    rotary: Rotary = "reference"
    dtype: str | None = "bf16"
    """`fp32`, `bf16` or `fp16`; None keeps the file's."""
    device: str | None = None
    """As torch names it; None takes a GPU where there is one."""
    batch_size: int = 8
    """Pictures captioned together. `published` holds three beams of each in memory."""
    question: str = QUESTION
    seed: int = 0
    """Another number, other captions; not for `greedy`."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Keys of config.json to be taken instead of the file's, such as `resampler_heads`."""


class RecipeCaptioner:
    """Implements `captioning.captioner.Captioner`."""

    def __init__(self, settings: ShareCaptionerSettings, key: str = "caption.weights") -> None:
        """Load the weights.

        Args:
            key: the recipe's knob for them, for the message.

        Raises:
            ValueError: they are not on this machine (the message says what to download, how large it is and where to
                put it), or are not this model's.
        """
        folder = find_folder(settings.weights, key)
        self._settings = settings
        self._captioner = ShareCaptioner.load(
            folder,
            settings.rotary,
            dtype=settings.dtype,
            device=settings.device or _best_device(),
            question=settings.question,
            overrides=settings.overrides,
        )
        _ = self._captioner.tokenizer  # a missing one stops the job now, not at the first picture

    @property
    def name(self) -> str:
        """The weights, and everything about the run that changes a caption."""
        settings, decoding = self._settings, self._settings.decoding
        told = {**vars(decoding), "rotary": settings.rotary, "dtype": settings.dtype, "seed": settings.seed}
        told |= settings.overrides
        if decoding.mode == "greedy":
            del told["seed"]
        digest = hashlib.sha256(repr(sorted(told.items())).encode()).hexdigest()[:8]
        return f"share_captioner {self._captioner.fingerprint} {decoding.mode} {digest}"

    @property
    def prompt(self) -> str:
        """What the model is asked about each picture."""
        return self._settings.question

    @property
    def batch_size(self) -> int:
        """Most pictures that `caption` is given at once."""
        return self._settings.batch_size

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """One caption per picture, seeded by its pixels, so that the same picture always gives the same text."""
        ids = [hashlib.sha256(image.tobytes() + repr(image.size).encode()).hexdigest() for image in images]
        return [generated.text for generated in self.generate(images, ids)]

    def generate(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[Generated]:
        """One caption per picture, seeded by its id, with how it ended."""
        seeds = [counter(image_id, f"caption/{self._settings.seed}") for image_id in image_ids]
        return self._captioner.generate(images, seeds, self._settings.decoding)


def find_folder(given: str | None, key: str) -> Path:
    """The folder of the weights: the one given, or the local hub cache's copy. Nothing is ever downloaded.

    Raises:
        ValueError: they are not on this machine; the message names the id, the size and the command to get them.
    """
    if given is not None and Path(given).is_dir():
        return Path(given)
    weight = next((known for known in WEIGHTS if known.hub_id == given), SHARE_CAPTIONER)
    if given is not None and not HUB_ID.fullmatch(given):
        raise missing_weights(weight, key, given)
    if given is not None and given != weight.hub_id:
        weight = replace(weight, hub_id=given, revision=None)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(weight.hub_id, revision=weight.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        raise missing_weights(weight, key, given) from None


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
