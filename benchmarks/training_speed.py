"""The training step against diffusers, CAME against came-pytorch, and the planning of 33 million samples."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.training_step import Batch, caption_lengths, diffusers_twin
from training.came import CAME
from training.model import PixArt, PixArtConfig
from training.timing import paired

INSTALL = "not run: make bench-peers"


def training_step(_folder: Path, depth: int = 2, batch: int = 4) -> Iterator[str]:
    """Forward, loss and backward at 256 px and XL/2's width, same weights and padded captions."""
    cpu, grid = torch.device("cpu"), (16, 16)
    ours = PixArt(PixArtConfig(depth=depth, image_size=256, pe_interpolation=0.5))
    try:
        theirs = diffusers_twin(ours)
    except ImportError:
        yield f"| training step | {INSTALL} | | |"
        return
    mixed = caption_lengths(ours.config, batch)
    for captions, lengths in ((f"mean {sum(mixed) // batch}", mixed), ("180", [180] * batch), ("300", [300] * batch)):
        inputs = Batch.random(ours.config, grid, lengths, cpu)
        times = paired(partial(inputs.ours, ours), partial(inputs.theirs, theirs), 5, cpu)
        yield (
            f"| training step, depth {depth}, 256 px, batch {batch}, bf16, captions of {captions} tokens | "
            f"{times.first_s:.2f} s | diffusers {times.second_s:.2f} s | {times.ratio:.2f} |"
        )


def came(_folder: Path, depth: int = 4) -> Iterator[str]:
    """One optimizer step on the tensors of XL/2 at a seventh of its depth."""
    try:
        import came_pytorch
    except ImportError:
        yield f"| CAME | {INSTALL} | | |"
        return
    with torch.device("meta"):
        shapes = [p.shape for p in PixArt(PixArtConfig(depth=depth)).parameters()]
    ours = [torch.nn.Parameter(torch.randn(shape) * 0.02) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    for p, q in zip(ours, theirs, strict=True):
        p.grad = q.grad = torch.randn_like(p) * 1e-3
    times = paired(CAME(ours, lr=2e-5).step, came_pytorch.CAME(theirs, lr=2e-5).step, 7, torch.device("cpu"))
    yield (
        f"| CAME step, XL/2 at depth {depth} of 28 | {times.first_s:.3f} s | "
        f"came-pytorch {times.second_s:.3f} s | {times.ratio:.2f} |"
    )


BENCHMARKS = (came, training_step)
