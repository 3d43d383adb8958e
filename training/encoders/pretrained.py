"""The published encoders: the SDXL VAE and the T5-v1.1 encoder, from weights on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from models.device import choose_device, coming_back, sent
from models.weights import load_frozen
from training.encoders import stripes
from training.encoders.base import draw_latents
from training.encoders.streamed import streamed_t5
from training.encoders.weights import t5_folders, vae_folder
from training.model.pixart import LATENT_DOWNSAMPLING

if TYPE_CHECKING:  # imported where they are used: they take seconds, and the encoders themselves need no recipe
    from diffusers import AutoencoderKL
    from transformers import PreTrainedTokenizerBase, T5EncoderModel

    from schemas.training import Latents, Text

SCALING_FACTOR = 0.13025
"""Latents of the SDXL VAE are multiplied by this, which brings them to about unit variance; PixArt-Σ's."""
PIXELS_AT_ONCE = 1 << 22
"""Pixels of the pictures that go through the VAE together on a GPU."""
CAPTIONS_AT_ONCE = 32
"""Captions of one length that go through T5 together on a GPU."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class SdxlVae:
    """The SDXL autoencoder as a codec: 4 channels, 8 times smaller per axis, scaled by 0.13025. Pictures of more than
    `stripes.WHOLE_PX` pixels go through alone and in stripes: the same numbers but for rounding, in a fraction of the
    memory. `posterior`: `sample` draws from the encoder's Gaussian, as PixArt-Σ trains; `mean` takes its mean.
    `together`: send a batch's pictures through together; False is one at a time, so that no latent depends on the
    batch."""

    def __init__(self, vae: AutoencoderKL, posterior: str = "sample", *, together: bool = False) -> None:
        self._vae, self._together = vae, together
        self._posterior = posterior
        self.channels: int = vae.config.latent_channels
        self.scale = SCALING_FACTOR

    @torch.no_grad()
    def moments(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 1 or 2, 4, H / 8, W / 8) float32, unscaled: mean, and deviation to sample."""
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        vae = self._vae.to(pixels.device)
        vae.use_slicing = not self._together  # the weights are shared
        pixels = pixels.to(vae.dtype)
        if pixels[0, 0].numel() > stripes.WHOLE_PX:
            made = torch.cat([stripes.moments(vae, picture) for picture in pixels.split(1)])
            posterior = DiagonalGaussianDistribution(made)
        else:
            posterior = vae.encode(pixels).latent_dist
        kept = [posterior.mean, posterior.std] if self._posterior == "sample" else [posterior.mean]
        return torch.stack(kept, dim=1).float()

    def encode(self, pixels: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 4, H / 8, W / 8) float32; the mean where there are no seeds."""
        return draw_latents(self.moments(pixels), seeds, SCALING_FACTOR)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, 4, h, w) -> (B, 3, 8h, 8w) float32, about [-1, 1]."""
        vae = self._vae.to(latents.device)
        vae.use_slicing = True
        latents = (latents.float() / SCALING_FACTOR).to(vae.dtype)
        if latents[0, 0].numel() * LATENT_DOWNSAMPLING**2 > stripes.WHOLE_PX:
            return torch.cat([stripes.decode(vae, picture).float() for picture in latents.split(1)])
        return vae.decode(latents).sample.float()


class T5Text:
    """The T5 encoder as a text encoder. The text is taken as it is: no cleaning, no lower-casing. Captions go through
    one at a time and without padding, so that a row depends on its caption alone."""

    def __init__(self, model: T5EncoderModel, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.channels: int = model.config.d_model
        self.max_tokens = max_tokens

    @torch.no_grad()
    def encode(self, caption: str) -> Tensor:
        """(L, channels) float32 on the encoder's device, the end of the text included; at most `max_tokens`."""
        tokens = self._tokenizer(caption, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        return self._model(tokens["input_ids"].to(self._model.device)).last_hidden_state[0].float()

    def count(self, caption: str) -> int:
        """Pieces, and one for the end."""
        return len(self._tokenizer(caption, truncation=False, verbose=False)["input_ids"])

    @property
    def at_once(self) -> int:
        """On a CPU a batch gains little, and rounds otherwise than a caption alone."""
        return 1 if self._model.device.type == "cpu" else CAPTIONS_AT_ONCE

    def tokens(self, caption: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(caption, truncation=True, max_length=self.max_tokens)["input_ids"])

    @torch.no_grad()
    def encoding(self, captions: Sequence[tuple[int, ...]]) -> Callable[[], Iterable[Tensor]]:
        ids = sent([np.array(tokens) for tokens in captions], self._model.device)
        return coming_back(self._model(ids).last_hidden_state)

    @torch.no_grad()
    def null(self) -> Tensor:
        """(max_tokens, channels) float32: T5's answer to "" padded to `max_tokens`, padding masked, as published."""
        tokens = self._tokenizer(
            "", padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self._model.device)
        answer = self._model(tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return answer.last_hidden_state[0].float()


def sdxl_vae(latents: Latents, *, together: bool = False) -> SdxlVae:
    """The VAE that a recipe names. Raises ValueError: it is not on this machine, is damaged, or is no SDXL VAE."""
    return SdxlVae(
        _load_vae(vae_folder(latents), latents.precision, choose_device()), latents.posterior, together=together
    )


def t5_text(text: Text, *, streamed: bool = False) -> T5Text:
    """The T5 encoder that a recipe names, with its tokenizer. `streamed`: read each block from disk as it is called,
    for few captions on a machine that T5 does not fit. Raises ValueError: it is not on this machine, is damaged, or is
    of another width than the recipe says."""
    folder, tokenizer = t5_folders(text)
    model, words = _load_t5(folder, tokenizer, text.precision, choose_device(), streamed)
    if model.config.d_model != text.channels:
        raise ValueError(f"{folder}: gives {model.config.d_model} channels; set text.channels={model.config.d_model}")
    return T5Text(model, words, text.max_tokens)


@lru_cache(maxsize=1)  # training and the pictures it draws of itself share one copy
def _load_vae(folder: Path, precision: str, device: torch.device) -> AutoencoderKL:
    from diffusers import AutoencoderKL

    vae = load_frozen(AutoencoderKL.from_pretrained, folder, torch_dtype=DTYPES[precision])
    config = vae.config
    for name, value, needed in (
        ("scaling_factor", config.scaling_factor, SCALING_FACTOR),
        ("latent_channels", config.latent_channels, 4),
        ("downsampling", 2 ** (len(config.block_out_channels) - 1), LATENT_DOWNSAMPLING),
        ("shift_factor", config.get("shift_factor"), None),
        ("latents_mean", config.get("latents_mean"), None),
        ("down_block_types", {*config.down_block_types}, {"DownEncoderBlock2D"}),
        ("up_block_types", {*config.up_block_types}, {"UpDecoderBlock2D"}),
    ):
        if value != needed:
            raise ValueError(f"{folder}: is no SDXL VAE, {name} is {value} where {needed} is needed")
    return vae.to(device)


@lru_cache(maxsize=1)
def _load_t5(
    folder: Path, tokenizer: Path, precision: str, device: torch.device, streamed: bool
) -> tuple[T5EncoderModel, PreTrainedTokenizerBase]:
    from transformers import T5EncoderModel, T5Tokenizer

    if streamed:
        model = streamed_t5(folder, DTYPES[precision], device)
    else:
        model = load_frozen(T5EncoderModel.from_pretrained, folder, dtype=DTYPES[precision])
    try:
        words = T5Tokenizer.from_pretrained(tokenizer, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{tokenizer}: cannot be loaded as a T5 tokenizer ({str(error).splitlines()[0]})") from None
    return model if streamed else model.to(device), words


def forget() -> None:
    """Let go of the encoders that were loaded, so that their memory is free once nothing else uses them."""
    _load_vae.cache_clear()
    _load_t5.cache_clear()
