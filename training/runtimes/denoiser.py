"""A model that predicts noise, in any runtime: one caption per call, trimmed to its tokens, without a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from training.model import PixArt
from training.model.embed import timestep_sinusoid
from training.model.layouts import NULL_CAPTION
from training.model.pixart import LATENT_DOWNSAMPLING, PixArtConfig
from training.runtimes.manifest import NULL_CAPTION_FILE, Manifest, Sizes, refuse_changes

MAX_SIDE_PX = 8192

Graph = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(latents (1, 4, h, w), timestep sinusoid (1, 256), caption (1, n, channels)), all fp32 -> noise (1, 4, h, w)."""


class Denoiser:
    """Calls a graph as a sampler needs it.

    Attributes:
        manifest: what the folder says of it; None for a model in torch.
        sizes: what it can draw.
        null_caption: (max caption tokens, caption channels) fp32.
    """

    def __init__(self, graph: Graph, sizes: Sizes, null_caption: Tensor, manifest: Manifest | None = None) -> None:
        self._graph = graph
        self.manifest, self.sizes, self.null_caption = manifest, sizes, null_caption

    def null(self, tokens: int) -> Tensor:
        """The null caption in place of a caption of so many tokens, (1, tokens, channels)."""
        return self.null_caption[None, :tokens]

    def __call__(self, latents: Tensor, timestep: Tensor, caption: Tensor) -> Tensor:
        """Latents (B, 4, h, w) at `timestep` (B,) -> noise (B, 4, h, w), fp32; pictures go through one by one.

        The sinusoid of the timestep is made here in fp32: in bf16 it is wrong by 4.5 % at timestep 999.

        Args:
            caption: (1, n, channels) without padding, the same for every picture; `null(n)` where it is dropped.

        Raises:
            ValueError: a size that the graph cannot draw, or a caption of no tokens, too many, or another width.
        """
        most, channels = self.null_caption.shape
        _, tokens, width = caption.shape
        if not 1 <= tokens <= most or width != channels:
            raise ValueError(
                f"a caption of {tokens} tokens of {width} channels; the model takes 1 to {most} of {channels}"
            )
        self.sizes.refuse(*(side * LATENT_DOWNSAMPLING for side in latents.shape[-2:]))
        sinusoid = timestep_sinusoid(timestep)
        latents, caption = latents.float(), caption.float()
        drawn = [self._graph(latents[i : i + 1], sinusoid[i : i + 1], caption) for i in range(len(latents))]
        return torch.cat(drawn)


def sizes_of(config: PixArtConfig, fixed: tuple[tuple[int, int], ...] = ()) -> Sizes:
    """The pictures that a model can draw: whole patches, and at least one key after compression."""
    patch = config.patch_size * LATENT_DOWNSAMPLING
    ratio = config.kv_compression.ratio if config.kv_compression else 1
    return Sizes(multiple_px=patch, minimum_px=patch * ratio, maximum_px=MAX_SIDE_PX, fixed=fixed)


def eager(model: PixArt) -> Denoiser:
    """A model in torch as it is, by the same rules: what the runtimes are compared with."""

    @torch.no_grad()
    def graph(latents: Tensor, sinusoid: Tensor, caption: Tensor) -> Tensor:
        return model.from_sinusoid(latents, sinusoid, caption).float().chunk(2, dim=1)[0]

    null = model.get_buffer(NULL_CAPTION).float()
    return Denoiser(graph, sizes_of(model.config), null)


def load_runtime(folder: Path, threads: int | None = None) -> Denoiser:
    """Load an exported model.

    Args:
        threads: of the runtime; None leaves the number to it.

    Raises:
        ValueError: the folder is no export of ours, is newer, was changed, or its runtime is not installed.
    """
    manifest = Manifest.read(folder)
    load = loader(manifest)
    refuse_changes(folder, manifest.files)
    try:
        null = load_file(folder / NULL_CAPTION_FILE)[NULL_CAPTION].float()
    except (SafetensorError, OSError, KeyError) as error:
        raise ValueError(f"{folder / NULL_CAPTION_FILE}: cannot be read ({error}); export the model again") from None
    return Denoiser(load(folder, manifest, threads), manifest.sizes, null, manifest)


def loader(manifest: Manifest) -> Callable[[Path, Manifest, int | None], Graph]:
    """What loads the graph of a manifest's runtime.

    Raises:
        ValueError: the runtime is not installed.
    """
    raise ValueError(
        f"the runtime {manifest.runtime} is not installed; pip install 'sigma-pipeline[{manifest.runtime}]'"
    )


def architecture(config: PixArtConfig) -> dict:
    """The fields of a config as a manifest keeps them."""
    return asdict(config)
