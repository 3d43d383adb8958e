"""A batch as the model takes it: encoded pixels, noise and padded captions, all on the device."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from schemas.training import TrainingRecipe
from training.data.chance import derived_seed, noise
from training.data.loader import PaddedText, TrainingBatch
from training.data.transform import to_unit_range
from training.encoders.base import draw_latents
from training.encoders.make import Encoders


@dataclass(frozen=True)
class ModelInputs:
    """N draws: B pictures times the noise draws of each."""

    latents: Tensor
    """(N, C, h, w), as `noise` is."""
    noise: Tensor
    timestep: Tensor
    """(N,)."""
    caption: Tensor
    """(N, L, caption channels), padded to the batch's longest."""
    mask: Tensor
    """(N, L) bool, true where a token is valid."""
    drop: Tensor
    """(N,) bool."""
    lengths: Tensor
    """(N,) valid tokens of each caption, on the CPU."""

    def __len__(self) -> int:
        return len(self.latents)

    def split(self, size: int) -> list[ModelInputs]:
        """Parts of at most `size` draws, in order, each padded to its own longest caption. So a part's numbers depend
        on its own draws alone, on any process and in any batch."""
        columns = [getattr(self, name).split(size) for name in self.__dataclass_fields__]
        return [ModelInputs(*part).trimmed() for part in zip(*columns, strict=True)]

    def trimmed(self) -> ModelInputs:
        """The same without the padding that no caption here needs."""
        longest = int(self.lengths.max())
        return replace(self, caption=self.caption[:, :longest], mask=self.mask[:, :longest])


def model_inputs(batch: TrainingBatch, encoders: Encoders, device: torch.device) -> ModelInputs:
    """Encode the batch where it is not encoded yet; each picture and caption once for all its draws."""
    draws = len(batch.timestep) // len(batch.image_ids)
    seeds = [derived_seed(seed, "latents") for seed in batch.noise_seeds[::draws]]  # of each picture's first draw
    latents = draw_latents(moments_of(batch.pictures, encoders, device), seeds, encoders.latent_scale)
    text = batch.captions
    if not isinstance(text, PaddedText):
        text = PaddedText.of([encoders.text.encode(caption) for caption in text])
    return ModelInputs(
        latents=latents.repeat_interleave(draws, 0),
        noise=noise(batch.noise_seeds, tuple(latents.shape[1:])).to(device, non_blocking=True),
        timestep=batch.timestep.to(device, non_blocking=True),
        caption=text.tokens.to(device, non_blocking=True).float().repeat_interleave(draws, 0),
        mask=text.mask.to(device, non_blocking=True).repeat_interleave(draws, 0),
        drop=batch.drop.to(device, non_blocking=True),
        lengths=text.lengths.repeat_interleave(draws, 0),
    )


def caption_shares(batch: TrainingBatch, inputs: ModelInputs, recipe: TrainingRecipe) -> Tensor:
    """(3,) shares of the captions that are synthetic, that were cut, and that fill the text encoder's limit."""
    at_limit = (inputs.lengths >= recipe.text.max_tokens).float().mean()
    return torch.cat([batch.shares, at_limit[None]])


def moments_of(pictures: Tensor, encoders: Encoders, device: torch.device) -> Tensor:
    """Pixels (B, 3, H, W) uint8, or moments as they are stored -> moments (B, 1 or 2, C, h, w) float32 on the device. A
    latent does not depend on the rest of the batch, nor, but for rounding, on the machine that encoded it."""
    pictures = pictures.to(device, non_blocking=True)
    return encoders.codec.moments(to_unit_range(pictures)) if pictures.dtype == torch.uint8 else pictures.float()
