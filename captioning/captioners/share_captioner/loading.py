"""Fills the model from a published checkpoint, strictly and tensor by tensor."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from captioning.captioners.share_captioner.dimensions import OPEN_POINTS, Dimensions, read_dimensions
from captioning.captioners.share_captioner.files import WeightFiles
from captioning.captioners.share_captioner.layout import ROTARY, TensorSource, check_names, source_of
from captioning.captioners.share_captioner.model import ShareCaptionerModel
from captioning.captioners.share_captioner.resampler import Resampler, sincos_2d
from models.weights import read_json

log = logging.getLogger(__name__)

Rotary = Literal["reference", "exact"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


LANGUAGE = "language."
"""Prefix of the language model's tensors."""
EMBEDDINGS = f"{LANGUAGE}model.embed_tokens.weight"


@dataclass(frozen=True)
class Blueprint:
    """The sizes of a checkpoint's model, and the published tensors that each of its own is made of."""

    files: WeightFiles
    config: Mapping[str, Any]
    dimensions: Dimensions
    shapes: Mapping[str, torch.Size]
    """of the model's tensors, by name"""
    sources: Mapping[str, TensorSource]
    lora_scale: float

    def tensor(self, ours: str, dtype: torch.dtype | None) -> Tensor:
        """One tensor of the model, on the CPU; a dtype of None keeps the file's. Raises ValueError: the published
        tensors have another shape, or are no floating-point ones."""
        files, source, shape = self.files, self.sources[ours], self.shapes[ours]
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

    def exact_frequencies(self) -> Tensor:
        """The rotary frequencies as they are computed, (head size / 2) in float64."""
        head_dim = self.dimensions.hidden_size // self.dimensions.num_heads
        return self.dimensions.rope_theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)

    def frequencies(self, rotary: Rotary) -> Tensor:
        """The rotary frequencies of the language model, float32 whatever the weights are. Raises ValueError:
        `reference` is wanted and the files hold none, or different ones per layer."""
        folder, exact = self.files.folder, self.exact_frequencies().float()
        names = sorted(name for name in self.files.shapes if ROTARY.fullmatch(name))
        if rotary == "exact":
            if names:
                log.info("%s: rotary=exact: its %d rotary_emb.inv_freq are not used", folder, len(names))
            return exact
        if not names:
            raise ValueError(f"{folder}: holds no rotary_emb.inv_freq; load it with rotary=exact")
        stored = [self.files.read(name).float() for name in names]
        if any(layer.shape != exact.shape or not torch.equal(layer, stored[0]) for layer in stored):
            raise ValueError(f"{folder}: rotary_emb.inv_freq differs between layers, or has not {len(exact)} values")
        return stored[0]


def read_blueprint(files: WeightFiles, overrides: Mapping[str, Any]) -> tuple[Blueprint, ShareCaptionerModel]:
    """The blueprint of a checkpoint, and its model on the device `meta`. `overrides`: keys of config.json to be taken
    instead. Raises ValueError: the files are not this model's: names, sizes or config.json."""
    config_path = files.folder / "config.json"
    config = (read_json(config_path) if config_path.is_file() else {}) | dict(overrides)
    try:
        dimensions = read_dimensions(files.shapes, config)
        lora_scale = _lora_scale(config)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{files.folder}: {error}") from None
    with torch.device("meta"):
        model = ShareCaptionerModel(dimensions)
    shapes = {ours: tensor.shape for ours, tensor in model.state_dict().items()}
    sources = {ours: source_of(ours, files.shapes.keys(), lora_scale) for ours in shapes}
    check_names(files.shapes.keys(), sources.values(), str(files.folder))
    return Blueprint(files, config, dimensions, shapes, sources, lora_scale), model


def load_model(
    files: WeightFiles,
    rotary: Rotary,
    dtype: str | None,
    device: torch.device,
    overrides: Mapping[str, Any],
    *,
    language: bool = True,
) -> ShareCaptionerModel:
    """The model with the weights of `files`, ready to infer; arguments as of `ShareCaptioner.load`. Each tensor goes
    from the file to the device before the next is read, so that the host needs little memory besides the model's own.
    Without `language` that model has no weights but the embeddings of its prompt. Raises ValueError: the files are not
    this model's: names, shapes or values."""
    if rotary not in ("reference", "exact"):
        raise ValueError(f"rotary={rotary!r}: one of reference, exact")
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: one of {', '.join(DTYPES)}")
    blueprint, model = read_blueprint(files, overrides)
    for ours in blueprint.sources:
        if language or not ours.startswith(LANGUAGE) or ours == EMBEDDINGS:
            tensor = blueprint.tensor(ours, None if dtype is None else DTYPES[dtype])
            module, _, leaf = ours.rpartition(".")
            setattr(model.get_submodule(module), leaf, nn.Parameter(tensor.to(device), requires_grad=False))
    if language:  # the frequencies are the only tensors that no state dict holds
        embedding = model.language.model.rotary_emb
        embedding.inv_freq = embedding.original_inv_freq = blueprint.frequencies(rotary).to(device)
    model.eval()
    _say_what_is_guessed(model, blueprint.config)
    return model


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
