"""From a stage to the next: the same weights in a model of another resolution, with or without KV compression."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from schemas.training import SCRATCH, Stage, TrainingRecipe, is_path
from training.checkpoint import load_checkpoint
from training.checkpoint_files import latest_checkpoint
from training.model import KVCompression, PixArt, PixArtConfig, load_weights

log = logging.getLogger(__name__)


def model_config(recipe: TrainingRecipe, stage: Stage) -> PixArtConfig:
    """The architecture of a stage. Stages differ in the base and interpolation of the position table, which no weight
    depends on, and in KV compression, whose weights are new."""
    compression = stage.kv_compression
    return PixArtConfig(
        **recipe.model.resolved(),
        caption_channels=recipe.text.channels,
        max_caption_tokens=recipe.text.max_tokens,
        image_size=stage.resolution,
        pe_interpolation=stage.interpolation,
        kv_compression=KVCompression(compression.layers, compression.ratio) if compression else None,
        in_channels=recipe.latents.channels,
    )


def parent_weights(recipe: TrainingRecipe, stage: Stage) -> Path | None:
    """The file or folder a stage starts from: its parent's last checkpoint; None from scratch. Raises ValueError: the
    parent is not trained to its end, or the path does not exist."""
    parent = recipe.parent_of(stage)
    if parent == SCRATCH:
        return None
    if is_path(parent):
        if not Path(parent).exists():
            raise ValueError(f"stage {stage.name}: no weights at {parent}; check the path, or get them")
        return Path(parent)
    parent_stage = recipe.stage_named(parent)
    last = latest_checkpoint(recipe.stage_folder(parent_stage))
    if last is None or last[0] < parent_stage.steps:
        done = last[0] if last else 0
        raise ValueError(
            f"stage {stage.name}: its parent {parent} has {done} of {parent_stage.steps} steps; train that stage first"
        )
    return last[1]


def starting_model(recipe: TrainingRecipe, stage: Stage, null_caption: Tensor) -> PixArt:
    """The model a stage begins with: its parent's weights, positions interpolated, new KV compression averaging.
    `null_caption` (max_tokens, channels) replaces a dropped caption. Raises ValueError: the parent is missing or of
    another shape."""
    torch.manual_seed(recipe.seed)
    model = PixArt(model_config(recipe, stage))
    path = parent_weights(recipe, stage)
    if path is not None:
        load = load_weights if is_path(recipe.parent_of(stage)) else load_checkpoint
        report = load(model, path, ema=stage.weights == "ema")
        if report.initialised and stage.distil is not None:
            raise ValueError(
                f"stage {stage.name}: {path} has no {report.initialised[0]}, and distil learns from a parent as it is; "
                "train a stage with kv_compression before it, or leave kv_compression out"
            )
        if report.initialised:
            log.info("stage %s: Conv-Avg-Init of %d new tensors", stage.name, len(report.initialised))
    with torch.no_grad():
        model.y_embedder.y_embedding.copy_(null_caption)
    return model
