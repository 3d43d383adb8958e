"""A batch as the model takes it: pixels encoded, noise drawn, captions padded, all on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.chance import derived_seed, noise
from training.data.loader import TrainingBatch
from training.data.transform import to_unit_range
from training.encoders import Codec, TextEncoder


@dataclass(frozen=True)
class ModelInputs:
    """N draws: B pictures times the noise draws of each.

    Attributes:
        latents, noise: (N, C, h, w).
        timestep: (N,).
        caption: (N, L, caption channels), padded to the batch's longest.
        mask: (N, L) bool, true where a token is valid.
        drop: (N,) bool.
        lengths: (N,) valid tokens of each caption, on the CPU.
    """

    latents: Tensor
    noise: Tensor
    timestep: Tensor
    caption: Tensor
    mask: Tensor
    drop: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def split(self, size: int) -> list[ModelInputs]:
        """Parts of at most `size` draws, in order, each padded to its own longest caption.

        So a part's numbers depend on its own draws alone, wherever it is computed and beside whatever else.
        """
        columns = [getattr(self, name).split(size) for name in self.__dataclass_fields__]
        return [ModelInputs(*part).trimmed() for part in zip(*columns, strict=True)]

    def trimmed(self) -> ModelInputs:
        """The same without the padding that no caption here needs."""
        longest = int(self.lengths.max())
        return replace(self, caption=self.caption[:, :longest], mask=self.mask[:, :longest])


def model_inputs(
    batch: TrainingBatch, codec: Codec, text_encoder: TextEncoder, device: torch.device, *, one_by_one: bool = False
) -> ModelInputs:
    """Encode a batch; each picture and caption once, however many draws it has.

    Args:
        one_by_one: encode pictures singly, so that latents do not depend on what else is in the batch.
    """
    draws = len(batch.timestep) // len(batch.image_ids)
    seeds = [derived_seed(seed, "latents") for seed in batch.noise_seeds[::draws]]  # of each picture's first draw
    pixels = to_unit_range(batch.pixels.to(device, non_blocking=True))
    size = 1 if one_by_one else len(pixels)
    starts = range(0, len(pixels), size)
    latents = torch.cat([codec.encode(pixels[at : at + size], seeds[at : at + size]) for at in starts])
    encoded = [text_encoder.encode(caption) for caption in batch.captions]
    caption, mask = padded(encoded)
    return ModelInputs(
        latents=latents.repeat_interleave(draws, 0),
        noise=noise(batch.noise_seeds, tuple(latents.shape[1:])).to(device, non_blocking=True),
        timestep=batch.timestep.to(device, non_blocking=True),
        caption=caption.to(device, non_blocking=True).repeat_interleave(draws, 0),
        mask=mask.to(device, non_blocking=True).repeat_interleave(draws, 0),
        drop=batch.drop.to(device, non_blocking=True),
        lengths=torch.tensor([len(tokens) for tokens in encoded]).repeat_interleave(draws, 0),
    )


def padded(captions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Captions of (L_i, C) -> (B, max L, C) filled up with zeros, and the mask of valid tokens (B, max L)."""
    lengths = torch.tensor([len(caption) for caption in captions])
    stacked = torch.nn.utils.rnn.pad_sequence(list(captions), batch_first=True)
    return stacked, torch.arange(stacked.shape[1]) < lengths[:, None]
