"""Fills the model from a published checkpoint, strictly and tensor by tensor."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from captioning.captioners.share_captioner.dimensions import OPEN_POINTS, read_dimensions
from captioning.captioners.share_captioner.files import WeightFiles
from captioning.captioners.share_captioner.layout import ROTARY, TensorSource, check_names, source_of
from captioning.captioners.share_captioner.model import ShareCaptionerModel
from captioning.captioners.share_captioner.resampler import Resampler, sincos_2d
from models.weights import read_json

log = logging.getLogger(__name__)

Rotary = Literal["reference", "exact"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_model(
    files: WeightFiles,
    rotary: Rotary,
    dtype: str | None,
    device: torch.device,
    overrides: Mapping[str, Any],
) -> ShareCaptionerModel:
    """The model with the weights of `files`, ready to infer.

    Each tensor goes from the file to the device before the next is read, so that the host needs little memory
    besides the model's own.

    Args:
        rotary: `reference` takes the rotary frequencies of the file, which the published one rounded to bfloat16;
            `exact` computes them.
        dtype: `fp32`, `bf16` or `fp16`; None keeps the file's.
        overrides: keys of config.json to be taken instead of the file's.

    Raises:
        ValueError: the files are not this model's: names, shapes or values.
    """
    if rotary not in ("reference", "exact"):
        raise ValueError(f"rotary={rotary!r}: one of reference, exact")
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: one of {', '.join(DTYPES)}")
    config_path = files.folder / "config.json"
    config = (read_json(config_path) if config_path.is_file() else {}) | dict(overrides)
    try:
        dimensions = read_dimensions(files.shapes, config)
        lora_scale = _lora_scale(config)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{files.folder}: {error}") from None
    with torch.device("meta"):
        model = ShareCaptionerModel(dimensions)
    wanted = model.state_dict()
    sources = {ours: source_of(ours, files.shapes.keys(), lora_scale) for ours in wanted}
    check_names(files.shapes.keys(), sources.values(), str(files.folder))
    for ours, source in sources.items():
        tensor = _made(files, source, wanted[ours].shape, None if dtype is None else DTYPES[dtype])
        module, _, leaf = ours.rpartition(".")
        setattr(model.get_submodule(module), leaf, nn.Parameter(tensor.to(device), requires_grad=False))
    _set_rotary(model, files, rotary, device)
    model.eval()
    _say_what_is_guessed(model, config)
    return model


def _made(files: WeightFiles, source: TensorSource, shape: torch.Size, dtype: torch.dtype | None) -> Tensor:
    """One tensor of the model, on the CPU."""
    parts = [files.read(name) for name in source.names]
    if not all(part.is_floating_point() for part in parts):
        raise ValueError(f"{files.folder}: {source.names[0]} is {parts[0].dtype}, not a floating-point tensor")
    try:
        tensor = source.make(parts)
    except RuntimeError:
        tensor = torch.empty(0)
    if tensor.shape != shape:
        shapes = ", ".join(f"{name} {list(files.shapes[name])}" for name in source.names)
        raise ValueError(f"{files.folder}: {shapes}: the model needs {list(shape)}")
    return tensor.to(dtype or parts[0].dtype)


def _set_rotary(model: ShareCaptionerModel, files: WeightFiles, rotary: Rotary, device: torch.device) -> None:
    """Give the language model its rotary frequencies, float32 whatever the weights are.

    They are the only tensors of the model that no state dict holds, so nothing else has filled them.
    """
    dimensions = model.dimensions
    head_dim = dimensions.hidden_size // dimensions.num_heads
    exact = dimensions.rope_theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    names = sorted(name for name in files.shapes if ROTARY.fullmatch(name))
    frequencies = exact.float()
    if rotary == "reference":
        if not names:
            raise ValueError(f"{files.folder}: holds no rotary_emb.inv_freq; load it with rotary=exact")
        stored = [files.read(name).float() for name in names]
        if any(layer.shape != exact.shape or not torch.equal(layer, stored[0]) for layer in stored):
            raise ValueError(
                f"{files.folder}: rotary_emb.inv_freq differs between layers, or has not {len(exact)} values"
            )
        frequencies = stored[0]
    elif names:
        log.info("%s: rotary=exact: its %d rotary_emb.inv_freq are not used", files.folder, len(names))
    embedding = model.language.model.rotary_emb
    embedding.inv_freq = frequencies.to(device)
    embedding.original_inv_freq = frequencies.to(device)


def _lora_scale(config: Mapping[str, Any]) -> float:
    """alpha / rank of the LoRA pairs; 1 where config.json says nothing, as published (256 / 256)."""
    lora = config.get("internlm_lora") or config.get("lora") or {}
    return float(lora.get("lora_alpha", 256)) / float(lora.get("lora_r", 256))


_SAID: set[str] = set()


def _say_what_is_guessed(model: ShareCaptionerModel, config: Mapping[str, Any]) -> None:
    """One warning per process for the choices that neither the file's shapes nor config.json settle."""
    if not isinstance(model.connector, Resampler):
        return
    choices = model.connector.choices.as_config()
    said = [f"{key}={value}" for key, value in choices.items() if config.get(key) is None]
    stored = model.connector.pos_embed.float().cpu()
    expected = sincos_2d(stored.shape[1], int(len(stored) ** 0.5))
    if (stored - expected).abs().max() > 0.01:  # bfloat16 rounds values up to 1 by 0.002
        said.append("Qformer.pos_embed is not the fixed sine grid")
    message = (
        f"the published weights do not say how the resampler reads the picture; taken unproven: {', '.join(said)}. "
        f"`sigma captioner validate` settles it; then write {', '.join(OPEN_POINTS.values())} into config.json"
    )
    if said and message not in _SAID:
        _SAID.add(message)
        log.warning(message)
