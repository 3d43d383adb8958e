"""The training step against diffusers, CAME against came-pytorch, and the planning of 33 million samples."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from training.came import CAME
from training.data.order import BatchOrder
from training.diffusion import q_sample, training_loss
from training.model import PixArt, PixArtConfig

INSTALL = "not run: pip install -e '.[bench]'"


def _best(first: Callable[[], object], second: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Best seconds of each, in alternating rounds after one that is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for work, kept in zip((first, second), times, strict=True):
            begun = time.perf_counter()
            work()
            kept.append(time.perf_counter() - begun)
    return min(times[0][1:]), min(times[1][1:])


def training_step(_folder: Path, depth: int = 2, batch: int = 4) -> Iterator[str]:
    """Forward, loss and backward at 256 px and XL/2's width, same weights and inputs."""
    try:
        from diffusers import PixArtTransformer2DModel
    except ImportError:
        yield f"| training step | {INSTALL} | | |"
        return
    from training.model.convert import assign_weights, from_diffusers

    theirs = PixArtTransformer2DModel(
        num_layers=depth,
        sample_size=32,
        caption_channels=4096,
        interpolation_scale=0.5,
        use_additional_conditions=False,
    )
    ours = PixArt(PixArtConfig(depth=depth, image_size=256, pe_interpolation=0.5))
    assign_weights(ours, from_diffusers(dict(theirs.state_dict()), "diffusers"), "diffusers")
    latents, noise = torch.randn(2, batch, 4, 32, 32)
    timestep, caption = torch.randint(0, 1000, (batch,)), torch.randn(batch, 300, 4096)
    mask = (torch.arange(300) < 180).long().expand(batch, -1)
    noisy = q_sample(latents, timestep, noise)

    def step(model: torch.nn.Module, predict: Callable[[], torch.Tensor], bf16: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = predict()
        training_loss(out, latents, noise, timestep).loss.mean().backward()
        model.zero_grad()

    def their_output() -> torch.Tensor:
        return theirs(
            noisy, caption, timestep, {"resolution": None, "aspect_ratio": None}, encoder_attention_mask=mask,
            return_dict=False,
        )[0]  # fmt: skip

    for bf16, rounds in ((True, 4), (False, 2)):
        a, b = _best(
            lambda bf16=bf16: step(ours, lambda: ours(noisy, timestep, caption, mask), bf16),
            lambda bf16=bf16: step(theirs, their_output, bf16),
            rounds,
        )
        name = f"training step, depth {depth}, 256 px, batch {batch}, {'bf16' if bf16 else 'fp32'}"
        yield f"| {name} | {a:.2f} s | diffusers {b:.2f} s | {b / a:.2f} |"


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
    a, b = _best(CAME(ours, lr=2e-5).step, came_pytorch.CAME(theirs, lr=2e-5).step, 5)
    yield f"| CAME step, XL/2 at depth {depth} of 28 | {a:.3f} s | came-pytorch {b:.3f} s | {b / a:.2f} |"


def planning(_folder: Path, num_rows: int = 33_000_000) -> Iterator[str]:
    """Planning one epoch of a synthetic index of 40 shapes; memory is the process's peak, inputs included."""
    names = [f"{i}" for i in range(num_rows // 1000 + 1)]
    shapes = [(256, 256 + 16 * i) for i in range(40)]
    shards = [names[i // 1000] for i in range(num_rows)]
    shape_of = [shapes[i * 7919 % 40] for i in range(num_rows)]
    begun = time.perf_counter()
    BatchOrder(shards, shape_of, 2048, 0, 65536).batch(0)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield f"| planning {num_rows:,} samples | {seconds:.1f} s | peak memory {peak:.1f} GiB | |"


BENCHMARKS = (planning, came, training_step)
