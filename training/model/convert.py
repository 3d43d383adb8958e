"""Weights from disk into a model: the official layout, a diffusers folder, or our own checkpoint."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from training.model.layouts import NULL_CAPTION, POSITION_TABLE, from_diffusers
from training.model.pixart import PixArt

IGNORED_BUFFERS = (POSITION_TABLE,)
"""Recomputed by us for every grid, so a stored one is not read."""

NULL_CAPTION_FILE = "null_caption.safetensors"
"""Beside the transformer in a diffusers folder that we wrote: the null caption, for which that layout has no place."""

KV_COMPRESSION_KEY = re.compile(r"blocks\.(\d+)\.attn\.(sr|norm)\.(weight|bias)")
MICRO_CONDITIONING_KEY = re.compile(r"(csize_embedder|ar_embedder)\.|.*(resolution_embedder|aspect_ratio_embedder)")


@dataclass(frozen=True)
class LoadReport:
    """The tensors that a load did not simply copy.

    Attributes:
        initialised: KV-compression keys that the file lacks and that got their Conv-Avg-Init.
        ignored: keys of the file that were not read, because the model computes them or its text encoder does.
    """

    initialised: tuple[str, ...]
    ignored: tuple[str, ...]


def load_weights(model: PixArt, path: str | Path, *, ema: bool = True) -> LoadReport:
    """Copy the weights at `path`, of any known layout, into `model`.

    KV-compression weights that the file lacks get their Conv-Avg-Init. A null caption of another number of
    tokens (PixArt-alpha has 120) is left out and reported: it is the text encoder's to write.

    Args:
        path: an official `.pth`, one of our checkpoints, a `.safetensors` file, or a diffusers folder
            (a pipeline or its `transformer/`).
        ema: where a file holds averaged weights too, take those.

    Raises:
        ValueError: the file is missing or unreadable, or a key is missing, unexpected or of another shape.
    """
    return assign_weights(model, read_weights(Path(path), ema=ema), origin=str(path))


def assign_weights(model: PixArt, weights: dict[str, Tensor], origin: str) -> LoadReport:
    """Copy weights in the official layout into `model`; see `load_weights`."""
    own = model.state_dict()
    fit = fit_weights(own, weights, origin)
    with torch.no_grad():
        for key, value in weights.items():
            if key not in fit.ignored:
                own[key].copy_(value)
    layers = {int(match[1]) for key in fit.initialised if (match := KV_COMPRESSION_KEY.fullmatch(key))}
    for layer in layers:
        model.initialise_compression(layer)
    return fit


def fit_weights(own: dict[str, Tensor], weights: dict[str, Tensor], origin: str) -> LoadReport:
    """Compare weights in the official layout with a model's own state, by name and shape; copies nothing.

    Raises:
        ValueError: a key is missing, unexpected or of another shape.
    """
    ignored = [key for key in weights if key in IGNORED_BUFFERS]
    null = weights.get(NULL_CAPTION)
    if null is not None and null.shape[-1:] == own[NULL_CAPTION].shape[-1:] and null.shape != own[NULL_CAPTION].shape:
        ignored.append(NULL_CAPTION)
    given = {key: value for key, value in weights.items() if key not in ignored}

    refuse_micro_conditioning(given, origin)
    layers = {key: (match[1], match[2]) for key in own if (match := KV_COMPRESSION_KEY.fullmatch(key))}
    given_layers = {layer for key, (layer, _) in layers.items() if key in given}
    initialised = [key for key, (layer, _) in layers.items() if layer not in given_layers]
    missing = [key for key in own if key not in given and key not in initialised and key != NULL_CAPTION]
    unexpected = [key for key in given if key not in own]
    reshaped = [
        f"{key} {tuple(given[key].shape)} where the model has {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    problems = [
        f"{what}: {', '.join(keys[:4])}{f' and {len(keys) - 4} more' if len(keys) > 4 else ''}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if keys
    ]
    if problems:
        raise ValueError(f"{origin}: does not fit this model; {'; '.join(problems)}")
    return LoadReport(tuple(initialised), tuple(ignored))


def refuse_micro_conditioning(weights: dict[str, Tensor], origin: str) -> None:
    """Raise a ValueError where weights condition on size and aspect ratio, as PixArt-alpha's at 1024 px do."""
    micro = sorted(key for key in weights if MICRO_CONDITIONING_KEY.match(key))
    if micro:
        raise ValueError(
            f"{origin}: holds PixArt-alpha's size and aspect-ratio conditioning ({micro[0]}, ...), which PixArt-Σ does "
            "not have; start from a checkpoint without it (alpha-256, alpha-512)"
        )


def read_weights(path: Path, *, ema: bool = True) -> dict[str, Tensor]:
    """The weights at `path` as a flat dict in the official layout, on the CPU.

    Raises:
        ValueError: nothing is there, or it cannot be read as weights.
    """
    if path.is_dir():
        folder = path / "transformer" if (path / "transformer").is_dir() else path
        weights = from_diffusers(_read_diffusers_folder(folder), origin=str(path))
        null = folder / NULL_CAPTION_FILE
        return weights | (_read_safetensors(null) if null.is_file() else {})
    if not path.is_file():
        raise ValueError(f"{path}: no such weights file or folder")
    if path.suffix == ".safetensors":
        weights = _read_safetensors(path)
        return from_diffusers(weights, origin=str(path)) if "pos_embed.proj.weight" in weights else weights
    content = read_torch_file(path)
    for name in ("state_dict_ema", "state_dict") if ema else ("state_dict",):
        if isinstance(content.get(name), dict):
            content = content[name]
            break
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: holds no weights (expected a dict of tensors, or one under 'state_dict')")
    return content


def read_torch_file(path: Path) -> dict:
    """A file of `torch.save` read with `weights_only`, so that no code of its runs.

    Raises:
        ValueError: it does not exist, is cut short, or holds more than tensors and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: cannot be read as weights ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__} where a dict of weights is expected")
    return content


def _read_diffusers_folder(folder: Path) -> dict[str, Tensor]:
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    if index.is_file():
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        files = ["diffusion_pytorch_model.safetensors"]
    weights: dict[str, Tensor] = {}
    for name in files:
        if Path(name).name != name or not (folder / name).is_file():
            raise ValueError(f"{folder}: no {name} in this folder; a diffusers model folder is expected")
        weights |= _read_safetensors(folder / name)
    return weights


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error})") from None
