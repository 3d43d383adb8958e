"""One training step of ours and of diffusers' transformer, on the same weights and inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import torch
from torch import Tensor, nn

from training.diffusion import q_sample, training_loss
from training.model import PixArt, PixArtConfig

CAPTION_LENGTHS = (35, 180, 150, 220, 40, 180, 170, 190)
"""Tokens of captions as a mix of raw and synthetic ones has them; mean 146, padded to 300."""


@dataclass(frozen=True)
class Batch:
    """Noised latents and padded captions, random, on one device.

    Attributes:
        latents, noise, noised: (B, C, h, w).
        timestep: (B,).
        caption: (B, L, caption channels).
        mask: (B, L) bool.
    """

    latents: Tensor
    noise: Tensor
    noised: Tensor
    timestep: Tensor
    caption: Tensor
    mask: Tensor

    @classmethod
    def random(cls, config: PixArtConfig, grid: tuple[int, int], lengths: Sequence[int], device: torch.device) -> Batch:
        """One picture for each caption length; captions are padded to the model's most tokens."""
        cells = [config.patch_size * side for side in grid]
        latents, noise = torch.randn(2, len(lengths), config.in_channels, *cells, device=device)
        timestep = torch.randint(0, 1000, (len(lengths),), device=device)
        caption = torch.randn(len(lengths), config.max_caption_tokens, config.caption_channels, device=device)
        mask = torch.arange(config.max_caption_tokens) < torch.tensor(lengths)[:, None]
        return cls(latents, noise, q_sample(latents, timestep, noise), timestep, caption, mask.to(device))

    def learn(self, model: nn.Module, predict: Callable[[], Tensor], bf16: bool = True) -> None:
        """Forward, loss and backward; gradients are dropped."""
        with torch.autocast(self.latents.device.type, torch.bfloat16, enabled=bf16):
            predicted = predict()
        self.loss(predicted).backward()
        model.zero_grad(set_to_none=True)

    def loss(self, predicted: Tensor) -> Tensor:
        return training_loss(predicted, self.latents, self.noise, self.timestep).loss.mean()

    def ours(self, model: PixArt, bf16: bool = True) -> None:
        self.learn(model, lambda: model(self.noised, self.timestep, self.caption, self.mask), bf16)

    def theirs(self, model: nn.Module, bf16: bool = True) -> None:
        """The step of a `PixArtTransformer2DModel`, which takes the same padded captions and mask."""
        conditions = {"resolution": None, "aspect_ratio": None}

        def predict() -> Tensor:
            return model(
                self.noised, self.caption, self.timestep, conditions,
                encoder_attention_mask=self.mask.long(), return_dict=False,
            )[0]  # fmt: skip

        self.learn(model, predict, bf16)


def caption_lengths(config: PixArtConfig, batch: int) -> list[int]:
    """Lengths as captions have them, in the model's range."""
    return [max(1, length * config.max_caption_tokens // 300) for length in islice(cycle(CAPTION_LENGTHS), batch)]


def diffusers_twin(model: PixArt) -> nn.Module:
    """diffusers' transformer with this model's weights, on its device.

    Raises:
        ImportError: diffusers is not installed.
    """
    from diffusers import PixArtTransformer2DModel

    from training.model.layouts import to_diffusers

    c, device = model.config, model.final_layer.linear.weight.device
    with device:
        twin = PixArtTransformer2DModel(
            num_layers=c.depth,
            num_attention_heads=c.num_heads,
            attention_head_dim=c.hidden_size // c.num_heads,
            cross_attention_dim=c.hidden_size,
            in_channels=c.in_channels,
            out_channels=2 * c.in_channels,
            caption_channels=c.caption_channels,
            sample_size=c.image_size // 8,
            interpolation_scale=c.pe_interpolation,
            use_additional_conditions=False,
        )
    report = twin.load_state_dict(to_diffusers(model.state_dict(), "ours"), strict=False)
    assert not report.unexpected_keys and not [key for key in report.missing_keys if "pos_embed" not in key]
    return twin.to(device).train()
