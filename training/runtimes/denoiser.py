"""A model that predicts noise, in any runtime: one caption per call, trimmed to its tokens, without a mask."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from training.model import PixArt, PixArtConfig
from training.model.embed import timestep_sinusoid
from training.model.layouts import NULL_CAPTION
from training.model.pixart import LATENT_DOWNSAMPLING
from training.runtimes.graph import Graph, axes, sizes_of
from training.runtimes.kinds import require_installed
from training.runtimes.manifest import NULL_CAPTION_FILE, Manifest, Sizes, refuse_changes

Run = Callable[[list[Tensor]], Tensor]
"""The inputs of a `Graph`, contiguous and in fp32 -> noise (1, C, h, w)."""


def stoppable(compute: Callable[[], Any], stop: Callable[[], None]) -> Any:
    """Compute on another thread, so that a signal is heard while native code runs, where a pass may take minutes.
    `stop`: ends the computation early; it is called where this thread was interrupted."""
    with ThreadPoolExecutor(1) as pool:
        computing = pool.submit(compute)
        try:
            return computing.result()
        except BaseException:
            stop()
            raise


@dataclass(frozen=True, eq=False)
class Denoiser:
    """Calls a graph as a sampler needs it."""

    run: Run
    config: PixArtConfig
    sizes: Sizes
    """What it can draw."""
    null_caption: Tensor | None
    """(max caption tokens, caption channels) fp32; None where the exported weights held none."""
    manifest: Manifest | None = None
    """What the folder says; None for a model in torch."""

    def null(self, tokens: int) -> Tensor:
        """The null caption in place of a caption of so many tokens, (1, tokens, channels). Raises ValueError: the
        exported weights held none."""
        if self.null_caption is None:
            raise ValueError(
                "the exported weights held no null caption, which guidance needs; sample with guidance 1, or export a "
                "checkpoint of sigma train or an official .pth"
            )
        return self.null_caption[None, :tokens]

    def __call__(self, latents: Tensor, timestep: Tensor, caption: Tensor) -> Tensor:
        """Latents (B, 4, h, w) at `timestep` (B,) -> noise (B, 4, h, w), fp32; pictures go through one by one.
        `caption`: (1, n, channels) without padding, the same for every picture; `null(n)` where it is dropped. Raises
        ValueError: a size that the graph cannot draw, or a caption of no tokens, too many, or another width."""
        config = self.config
        most, channels = config.max_caption_tokens, config.caption_channels
        _, tokens, width = caption.shape
        if not 1 <= tokens <= most or width != channels:
            raise ValueError(
                f"a caption of {tokens} tokens of {width} channels; the model takes 1 to {most} of {channels}"
            )
        cells = (latents.shape[2], latents.shape[3])
        self.sizes.refuse(*(side * LATENT_DOWNSAMPLING for side in cells))
        sinusoid = timestep_sinusoid(timestep)
        latents, caption = latents.float().contiguous(), caption.float().contiguous()
        rows, columns = axes(config, *cells)
        pictures = range(len(latents))
        return torch.cat(
            [self.run([latents[i : i + 1], sinusoid[i : i + 1], caption, rows, columns]) for i in pictures]
        )


def eager(model: PixArt, sizes: Sizes | None = None) -> Denoiser:
    """A model in torch as it is, in its own precision, by the same rules: what the runtimes are compared with."""
    graph, dtype = Graph(model), next(model.parameters()).dtype

    @torch.no_grad()
    def run(inputs: list[Tensor]) -> Tensor:
        latents, sinusoid, caption, *positions = inputs
        return graph(latents.to(dtype), sinusoid, caption.to(dtype), *positions).float()

    null = model.get_buffer(NULL_CAPTION).float()
    return Denoiser(run, model.config, sizes or sizes_of(model.config), null)


def load_runtime(folder: Path, threads: int | None = None) -> Denoiser:
    """Load an exported model. `threads`: of the runtime; None leaves the number to it. Raises ValueError: the folder is
    no export of ours, is newer, was changed, or its runtime is not installed."""
    manifest = Manifest.read(folder)
    require_installed(manifest.runtime)
    refuse_changes(folder, manifest.files)
    return opened(folder, manifest, threads)


def opened(folder: Path, manifest: Manifest, threads: int | None = None) -> Denoiser:
    """Load the files of an export by a manifest that describes them."""
    null, path = None, folder / NULL_CAPTION_FILE
    if NULL_CAPTION_FILE in manifest.files:
        try:
            null = load_file(path)[NULL_CAPTION].float()
        except (SafetensorError, OSError, KeyError) as error:
            raise ValueError(f"{path}: cannot be read ({error}); export the model again") from None
    run = import_module(f"training.runtimes.{manifest.runtime}_runtime").load(folder, manifest.recipe, threads)
    return Denoiser(run, manifest.config, manifest.sizes, null, manifest)
