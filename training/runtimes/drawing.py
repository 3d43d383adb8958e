"""Draws prompts with an exported model: text encoder, model and VAE are in memory one after the other."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from schemas.buckets import LABELS, sizes
from schemas.training import Sampling, TrainingRecipe
from training.diffusion.sampler import NoiseModel
from training.encoders.alone import encoded_alone
from training.encoders.make import codec_for
from training.picture_grid import write_pictures
from training.runtimes.denoiser import Denoiser, load_runtime
from training.runtimes.kinds import require_installed
from training.runtimes.manifest import Manifest
from training.runtimes.memory import needed, require_parts
from training.sample import SampleReport, decoded, pure_noise, sampled, seeds_of

log = logging.getLogger("training")


def sample_exported(
    recipe: TrainingRecipe,
    folder: Path,
    prompts: Sequence[str],
    out: Path,
    *,
    aspect: str = "1.0",
    size: tuple[int, int] | None = None,
    seed: int = 0,
) -> SampleReport:
    """Draw prompts as `sample_prompts` does, from the same noise, with the model of an export in a checkpoint's place.

    The recipe says the encoders, the steps and the guidance; nothing of its run or its dataset is read.

    Args:
        folder: of the export.
        aspect: label of the aspect bucket, at the resolution that the model was trained for.
        size: (height, width) px, in place of a bucket's.

    Raises:
        ValueError: no prompt; a folder, a recipe or a size that do not fit each other; too little memory.
    """
    started = time.perf_counter()
    if not prompts:
        raise ValueError("an exported model draws prompts; give at least one (--prompt)")
    manifest = Manifest.read(folder)
    require_installed(manifest.runtime)
    refuse_strangers(recipe, manifest, folder)
    shape = shape_of(manifest, aspect, size)
    sampling = recipe.sample.sampling(str(folder), few_steps=manifest.guidance is not None)
    require_parts(needed(recipe.latents, recipe.text, manifest, folder, shape), shape)
    text = encoded_alone(recipe.text, prompts)
    denoiser = load_runtime(folder)
    latents = [
        drawn_latents(denoiser, recipe, sampling, vectors, shape, own)
        for vectors, own in zip(text, seeds_of(prompts, seed), strict=True)
    ]
    del denoiser
    write_pictures(decoded(codec_for(recipe.latents), latents), out)
    name = manifest.origin.stage or manifest.origin.name
    return SampleReport(out, name, list(prompts), [], 0, time.perf_counter() - started)


def refuse_strangers(recipe: TrainingRecipe, manifest: Manifest, folder: Path) -> None:
    """Raise a ValueError where a recipe's encoders are not those of the exported model."""
    config = manifest.config
    for what, ours, theirs in (
        ("latents.channels", recipe.latents.channels, config.in_channels),
        ("text.channels", recipe.text.channels, config.caption_channels),
    ):
        if ours != theirs:
            raise ValueError(
                f"{folder}: the exported model takes {what} {theirs} and the recipe says {ours}; name the recipe that "
                "it was trained with"
            )
    if recipe.text.max_tokens > config.max_caption_tokens:
        raise ValueError(
            f"{folder}: the exported model takes captions of {config.max_caption_tokens} tokens and the recipe's have "
            f"up to {recipe.text.max_tokens}; set text.max_tokens={config.max_caption_tokens}"
        )


def shape_of(manifest: Manifest, aspect: str, size: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of the pictures, in px: the size, the only one of an export of one, or an aspect bucket's.
    Raises ValueError: the export cannot draw it, or there is no such bucket."""
    config, square = manifest.config, "1.0"
    if aspect not in LABELS:
        raise ValueError(f"no aspect bucket {aspect!r}; there are {', '.join(LABELS)}")
    if size is not None and aspect != square:
        raise ValueError(f"--size and --aspect {aspect} are two shapes; give one of them")
    if size is None and aspect == square and len(manifest.sizes.fixed) == 1:
        return manifest.sizes.fixed[0]
    if size is None:
        ratio = config.kv_compression.ratio if config.kv_compression else 1
        size = sizes(config.image_size, manifest.sizes.multiple_px * ratio)[aspect]
    manifest.sizes.refuse(*size)
    return size


@torch.no_grad()
def drawn_latents(
    denoiser: Denoiser, recipe: TrainingRecipe, sampling: Sampling, vectors: Tensor, shape: tuple[int, int], seed: int
) -> Tensor:
    """Latents for one caption's vectors, (channels, h, w); what all passes will take is logged after the first."""
    said = False

    def model(*, dropped: bool) -> NoiseModel:
        caption = denoiser.null(len(vectors)) if dropped else vectors[None]

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            nonlocal said
            started = time.perf_counter()
            noise = denoiser(latents, timestep, caption)
            if not said:
                seconds, said = time.perf_counter() - started, True
                log.info("a pass took %.1f s; the picture takes %d: %.0f min", seconds, sampling.calls,
                         seconds * sampling.calls / 60)  # fmt: skip
            return noise

        return predict

    return sampled(sampling, model, pure_noise(recipe, shape, [seed]), [seed])[0]
