"""How fast training goes: the model's floating-point operations by formula, and their share of a GPU's peak."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from training.model.embed import SINUSOID_CHANNELS
from training.model.pixart import PixArtConfig

if TYPE_CHECKING:  # the formula needs torch alone, so that a benchmark can run where little is installed
    from training.data.loader import Loader
    from training.inputs import ModelInputs
    from training.parallel.distributed import World

BACKWARD = 2
"""A backward pass over a forward pass: each matrix product has two gradients."""
PEAK_TERA_FLOPS = (
    ("B200", 2250),
    ("H100 PCIe", 756),
    ("H100 NVL", 835),
    ("H100", 989),
    ("H800", 989),
    ("H200", 989),
    ("A100", 312),
    ("A800", 312),
    ("L40S", 362),
    ("L4", 121),
    ("A10", 125),
    ("RTX 4090", 165),
    ("RTX 3090", 71),
)
"""bf16 matrix products with fp32 sums, without sparsity, in 10^12 FLOP/s: NVIDIA's data sheets, for the RTX cards the
Ada and GA102 whitepapers. The first entry whose words follow each other in the device's name counts."""


def kv_tokens(config: PixArtConfig, layer: int, grid: tuple[int, int]) -> int:
    """Keys of one block's self-attention; the stride drops a row or column that does not fill a group."""
    ratio = config.kv_ratio(layer)
    return (grid[0] // ratio) * (grid[1] // ratio)


def forward_flops(config: PixArtConfig, grid: tuple[int, int], text_tokens: int) -> int:
    """FLOPs of one forward pass of one picture; a multiply-add counts as two. Matrix products and convolutions, as
    `torch.utils.flop_counter.FlopCounterMode` counts them: no norm, softmax, activation or other elementwise work.
    `grid`: (rows, columns) of image tokens: latent cells over the patch size. `text_tokens`: caption tokens that are
    computed, padding included where there is any."""
    c = config.hidden_size
    n = grid[0] * grid[1]
    inner = int(c * config.mlp_ratio)
    macs = 0
    for layer in range(config.depth):
        keys = kv_tokens(config, layer, grid)
        macs += n * (3 * c * c + c * c)  # q, k, v; output
        macs += 2 * n * keys * c  # self-attention: scores, weighted values
        if config.kv_ratio(layer) > 1:
            macs += 2 * keys * c * config.kv_ratio(layer) ** 2  # the depthwise convolution, of keys and of values
        macs += n * 2 * c * c + text_tokens * 2 * c * c  # cross-attention: queries and output; keys and values
        macs += 2 * n * text_tokens * c
        macs += 2 * n * c * inner  # MLP
    patch = config.patch_size**2 * config.in_channels
    macs += n * patch * c + n * c * 2 * patch  # patches in, noise and variance out
    macs += SINUSOID_CHANNELS * c + c * c + 6 * c * c  # timestep, shared modulation
    macs += text_tokens * (config.caption_channels * c + c * c)
    return 2 * macs


def training_flops(config: PixArtConfig, grid: tuple[int, int], text_tokens: int) -> int:
    """Model FLOPs of one picture's training step: forward and backward. What flash attention or activation
    checkpointing compute again is no model work and not in it."""
    return (1 + BACKWARD) * forward_flops(config, grid, text_tokens)


def mfu(images_per_s: float, flops_per_image: float, peak_flops_per_s: float) -> float:
    """Model FLOPs utilisation (PaLM, arXiv 2204.02311, appendix B): achieved over peak, 0 to 1. Raises ValueError."""
    if peak_flops_per_s <= 0:
        raise ValueError(f"peak {peak_flops_per_s} FLOP/s is not positive")
    return images_per_s * flops_per_image / peak_flops_per_s


def peak_flops_per_s(device_name: str) -> float | None:
    """The dense bf16 peak of a GPU by its name in `torch.cuda.get_device_name`; None where the table lacks it."""
    words = device_name.replace("-", " ").split()
    for name, tera in PEAK_TERA_FLOPS:
        wanted = name.split()
        if any(words[at : at + len(wanted)] == wanted for at in range(len(words))):
            return tera * 1e12
    return None


class Speed:
    """Counts what each step computes; a reading covers the steps since the last restart. Model FLOPs are those of the
    step's own bucket and captions: of the tokens of its grid, keys and values after compression, and valid text tokens.
    Padding, and what checkpointing computes again, is no work of the model."""

    def __init__(self, config: PixArtConfig, loader: Loader, here: World) -> None:
        self._config, self._loader, self._here = config, loader, here
        is_gpu = here.device.type == "cuda"
        self._peak = peak_flops_per_s(torch.cuda.get_device_name(here.device)) if is_gpu else None
        self.restart()

    def count(self, num_pictures: int, inputs: ModelInputs) -> None:
        """Note this process's share of a step."""
        self._num_pictures += num_pictures
        height, width = inputs.latents.shape[-2:]
        grid = (height // self._config.patch_size, width // self._config.patch_size)
        without_text = training_flops(self._config, grid, 0)
        per_text_token = training_flops(self._config, grid, 1) - without_text
        self._flops += len(inputs) * without_text + int(inputs.lengths.sum()) * per_text_token

    def read(self) -> dict[str, float]:
        """`images_per_s` of all processes, `wait_share` for data, `tflops_per_s` of this process, and, on a GPU whose
        peak is known, `mfu`. Call it when the device has finished, or launches pass for work."""
        elapsed = time.perf_counter() - self._start
        values = {
            "images_per_s": self._num_pictures * self._here.size / elapsed,
            "wait_share": (self._loader.waited_s - self._waited_before) / elapsed,
            "tflops_per_s": self._flops / elapsed / 1e12,
        }
        if self._peak is not None:
            values["mfu"] = mfu(1 / elapsed, self._flops, self._peak)
        return values

    def restart(self) -> None:
        self._start, self._waited_before = time.perf_counter(), self._loader.waited_s
        self._num_pictures, self._flops = 0, 0
