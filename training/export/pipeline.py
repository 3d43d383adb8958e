"""A whole diffusers pipeline from our weights: the folder that `PixArtSigmaPipeline.from_pretrained` loads."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.tokenizers import find_vocabulary
from models.weights import SDXL_VAE, T5_XXL, component, missing_weights, read_json
from training.encoders.pretrained import SCALING_FACTOR
from training.export.weights import (
    BINNED_SAMPLE_SIZES,
    StoredModel,
    diffusers_version,
    require_diffusers_can,
    transformer_config,
    write_json,
    write_transformer,
    written_aside,
)
from training.model.layouts import NULL_CAPTION

VAE_FILES = re.compile(r"config\.json|diffusion_pytorch_model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
TEXT_ENCODER_FILES = re.compile(r"config\.json|model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
TOKENIZER_FILES = re.compile(
    r"tokenizer_config\.json|tokenizer\.json|spiece\.model|special_tokens_map\.json|added_tokens\.json"
)
SCHEDULER = {
    "_class_name": "DPMSolverMultistepScheduler",
    "algorithm_type": "dpmsolver++",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "final_sigmas_type": "zero",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "solver_order": 2,
    "solver_type": "midpoint",
    "timestep_spacing": "linspace",
}
"""The scheduler of the published pipelines."""


def write_pipeline(model: StoredModel, target: Path, *, vae: Path, text_encoder: Path) -> StoredModel:
    """Write transformer, VAE, text encoder, tokenizer and scheduler into one folder; files are copied, not loaded.

    Args:
        vae: folder of an `AutoencoderKL`, or of a pipeline that holds `vae/`.
        text_encoder: folder of a T5 encoder with its tokenizer, or of a pipeline that holds both.

    Raises:
        ValueError: a component is missing, does not fit the transformer, or cannot be expressed.
    """
    require_diffusers_can(model)
    weights, config, notes = model.weights, model.config, model.notes
    codec = component(vae, "vae")
    if codec is None:
        raise missing_weights(SDXL_VAE, "--vae", str(vae))
    encoder, vocabulary = component(text_encoder, "text_encoder"), find_vocabulary(text_encoder)
    if encoder is None or vocabulary is None:
        raise missing_weights(T5_XXL, "--text-encoder", str(text_encoder))
    settings, text_settings = read_json(codec / "config.json"), read_json(encoder / "config.json")
    for where, name, value, needed in (
        (codec, "latent_channels", settings.get("latent_channels"), config.in_channels),
        (codec, "scaling_factor", settings.get("scaling_factor"), SCALING_FACTOR),
        (encoder, "d_model", text_settings.get("d_model"), config.caption_channels),
    ):
        if value != needed:
            raise ValueError(f"{where}: {name} is {value}, the transformer of {model.path} needs {needed}")
    with written_aside(target) as aside:
        (aside / "transformer").mkdir(parents=True)
        write_transformer(aside / "transformer", weights, config)
        copy_files(codec, aside / "vae", VAE_FILES)
        copy_files(encoder, aside / "text_encoder", TEXT_ENCODER_FILES)
        copy_files(vocabulary.parent, aside / "tokenizer", TOKENIZER_FILES)
        (aside / "scheduler").mkdir()
        write_json(
            aside / "scheduler" / "scheduler_config.json", SCHEDULER | {"_diffusers_version": diffusers_version()}
        )
        write_json(aside / "model_index.json", model_index())
    size = transformer_config(config)["sample_size"]
    if size not in BINNED_SAMPLE_SIZES:
        notes += (f"diffusers has no aspect table for latents of {size}: call it with use_resolution_binning=False",)
    if NULL_CAPTION in weights:
        notes += ("diffusers guides with '' under its own mask of one token, we with the caption's: answers differ",)
    return replace(model, path=target, notes=notes)


def model_index() -> dict[str, Any]:
    """`model_index.json`: the class of each component."""
    return {
        "_class_name": "PixArtSigmaPipeline",
        "_diffusers_version": diffusers_version(),
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "PixArtTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def copy_files(source: Path, target: Path, names: re.Pattern[str]) -> None:
    """Copy the files of a folder whose names match into a new one. Raises ValueError: none is of weights or a
    vocabulary."""
    files = sorted(path for path in source.iterdir() if path.is_file() and names.fullmatch(path.name))
    if not any(path.suffix in (".safetensors", ".model") or path.name == "tokenizer.json" for path in files):
        raise ValueError(
            f"{source}: no .safetensors weights (nor a vocabulary) in this folder; found {len(files)} files"
        )
    target.mkdir()
    for path in files:
        shutil.copyfile(path, target / path.name)
