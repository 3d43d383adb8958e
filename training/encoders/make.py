"""The encoders that a recipe names: the published ones or the offline defaults, each loaded when it is needed."""

from __future__ import annotations

from functools import cached_property

from schemas.training import Latents, Text, TrainingRecipe
from training.encoders.base import Codec, TextEncoder
from training.encoders.offline import BlockDCT, HashedText
from training.encoders.pretrained import SCALING_FACTOR, sdxl_vae, t5_text


def codec_for(latents: Latents, *, together: bool = False) -> Codec:
    """The codec that a recipe names. `together`: let pictures of a batch go through together, where it matters. Raises
    ValueError: its weights are not on this machine, or are of another kind."""
    if latents.codec == "sdxl":
        return sdxl_vae(latents, together=together)
    return BlockDCT(latents.channels, mixed=latents.codec == "mixed_dct")


def text_encoder_for(text: Text, *, streamed: bool = False) -> TextEncoder:
    """The text encoder that a recipe names. `streamed`: of T5 read each block from disk as it is called; the vectors
    are the same to the bit. Raises ValueError: its weights are not on this machine, or are of another kind."""
    return t5_text(text, streamed=streamed) if text.encoder == "t5" else HashedText(text.channels, text.max_tokens)


class Encoders:
    """A recipe's encoders, each loaded at its first use: stored features need neither."""

    def __init__(self, recipe: TrainingRecipe) -> None:
        self._recipe = recipe

    @cached_property
    def codec(self) -> Codec:
        return codec_for(self._recipe.latents)

    @cached_property
    def text(self) -> TextEncoder:
        return text_encoder_for(self._recipe.text)

    @property
    def latent_scale(self) -> float:
        """`Codec.scale`, without loading the codec."""
        return SCALING_FACTOR if self._recipe.latents.codec == "sdxl" else BlockDCT.scale
