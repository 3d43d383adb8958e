"""Time that KV compression saves, as a share of the FLOPs it saves; the paper's Table 3 beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.training_step import Batch
from training.model import KVCompression, PixArt, PixArtConfig
from training.speed import forward_flops, training_flops
from training.timing import paired

PAPER_SAVING = {1024: 0.27, 2048: 0.34, 4096: 0.35}
"""Of a training iteration's time, last 14 of 28 blocks, ratio 2 per axis (Table 3). More than the FLOPs: attention was
slow there."""
TEXT_TOKENS = 150


@dataclass(frozen=True)
class Saving:
    """Seconds without and with compression, and the shares of time and FLOPs that it saves."""

    plain_s: float
    compressed_s: float
    time_share: float
    flops_share: float

    @property
    def reached(self) -> float:
        """Share of the FLOP saving that the clock shows."""
        return self.time_share / self.flops_share


def saving(
    config: PixArtConfig,
    tokens_per_side: int,
    batch: int,
    device: torch.device,
    *,
    rounds: int,
    backward: bool = True,
    most_s: float = float("inf"),
) -> Saving:
    """Measure a configuration with its compression against the same without."""
    assert config.kv_compression is not None
    plain = replace(config, kv_compression=None)
    grid = (tokens_per_side, tokens_per_side)
    text = min(TEXT_TOKENS, config.max_caption_tokens)
    inputs = Batch.random(config, grid, [text] * batch, device)
    flops: Callable[[PixArtConfig, tuple[int, int], int], int] = training_flops if backward else forward_flops

    def work(of: PixArtConfig) -> Callable[[], object]:
        with device:
            model = PixArt(of)
        if backward:
            return lambda: inputs.ours(model)

        @torch.no_grad()
        def forward() -> None:
            with torch.autocast(device.type, torch.bfloat16):
                model(inputs.noised, inputs.timestep, inputs.caption, inputs.mask)

        return forward

    times = paired(work(config), work(plain), rounds, device, most_s)
    flops_share = 1 - flops(config, grid, text) / flops(plain, grid, text)
    return Saving(times.second_s, times.first_s, 1 - 1 / times.ratio, flops_share)


def half_compressed(image_size: int, depth: int) -> PixArtConfig:
    """XL/2's width with the last half of the blocks compressed, which is the paper's choice."""
    layers = tuple(range(depth // 2, depth))
    return PixArtConfig(
        depth=depth, image_size=image_size, pe_interpolation=image_size / 512, kv_compression=KVCompression(layers, 2)
    )


def compression_on_cpu(_folder: Path) -> Iterator[str]:
    """Two blocks at 1024 px, the second compressed; at 2K one compressed block, forward alone. 4K is for a GPU."""
    cpu = torch.device("cpu")
    for px, depth, rounds, backward in ((1024, 2, 3, True), (2048, 1, 1, False)):
        found = saving(half_compressed(px, depth), px // 16, 1, cpu, rounds=rounds, backward=backward)
        kind = "training step" if backward else "forward"
        yield (
            f"| KV compression, {px} px, {kind}, {depth - depth // 2} of {depth} blocks | {found.compressed_s:.2f} s, "
            f"saves {found.time_share:.0%} | without {found.plain_s:.2f} s; FLOPs saved {found.flops_share:.0%}; "
            f"paper, 14 of 28 blocks: {PAPER_SAVING[px]:.0%} | {found.reached:.2f} |"
        )


BENCHMARKS = (compression_on_cpu,)
