"""Weights from disk into a model: the official layout, a diffusers folder, or our own checkpoint."""

from __future__ import annotations

import hashlib
import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from training.model.files import diffusers_files, plain_weights, refuse_other_heads, refuse_pointer
from training.model.layouts import NULL_CAPTION, POSITION_TABLE, from_diffusers
from training.model.pixart import PixArt
from training.model.seal import file_digest, refuse_damage

IGNORED_BUFFERS = (POSITION_TABLE,)
"""Recomputed by us for every grid, so a stored one is not read."""

NULL_CAPTION_FILE = "null_caption.safetensors"
"""Beside the transformer in a diffusers folder that we wrote: the null caption, for which that layout has no place."""

UNREADABLE = (RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""What `torch.load` raises on files that are damaged, or that hold something else."""

KV_COMPRESSION_KEY = re.compile(r"blocks\.(\d+)\.attn\.(sr|norm)\.(weight|bias)")
MICRO_CONDITIONING_KEY = re.compile(r"(csize_embedder|ar_embedder)\.|.*(resolution_embedder|aspect_ratio_embedder)")


@dataclass(frozen=True)
class LoadReport:
    """The tensors that a load did not simply copy. `initialised`: KV-compression keys that the file lacks and that got
    their Conv-Avg-Init. `ignored`: keys that were not read: the model or its text encoder computes them."""

    initialised: tuple[str, ...]
    ignored: tuple[str, ...]


def load_weights(model: PixArt, path: str | Path, *, ema: bool = True) -> LoadReport:
    """Copy the weights at `path`, of any known layout, into `model`: an official `.pth`, one of our checkpoints, a
    `.safetensors` or `.bin` file, or a diffusers folder (a pipeline or its `transformer/`). KV-compression weights that
    the file lacks get their Conv-Avg-Init. A null caption of another number of tokens (PixArt-alpha has 120) is left
    out and reported. `ema`: take averaged weights where there are any. Raises ValueError: the file is missing or
    unreadable, or a key is missing, unexpected or of another shape, or a folder's config.json says other heads."""
    refuse_other_heads(Path(path), model.config.num_heads)
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
    """Compare weights in the official layout with a model's own state, by name and shape; copies nothing. Raises
    ValueError: a key is missing, unexpected or of another shape, or a value is not finite."""
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
    whole = [f"{key} ({value.dtype})" for key, value in given.items() if not value.is_floating_point()]
    problems = [
        f"{what}: {', '.join(keys[:4])}{f' and {len(keys) - 4} more' if len(keys) > 4 else ''}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", reshaped),
            ("quantised", whole),
            ("without values", [key for key, value in given.items() if value.is_meta]),
        )
        if keys
    ]
    if problems:
        raise ValueError(f"{origin}: does not fit this model; {'; '.join(problems)}")
    for key, value in given.items():
        if not value.float().isfinite().all():  # of 8 bits torch does not say it
            raise ValueError(f"{origin}: {key} holds values that are not finite; name other weights")
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
    """The weights at `path` as a flat dict in the official layout, on the CPU. Raises ValueError: nothing is there, it
    is damaged, or it cannot be read as weights."""
    if not path.is_dir() and not path.is_file():
        raise ValueError(f"{path}: no such weights file or folder")
    files, null = weights_files(path, ema=ema)
    content: dict[str, Tensor] = {}
    for file in files:
        refuse_pointer(file)
        content |= _read_safetensors(file) if file.suffix == ".safetensors" else read_torch_file(file)
    weights = plain_weights(content, ema=ema, origin=str(path))
    if "pos_embed.proj.weight" in weights:
        weights = from_diffusers(weights, origin=str(path))
    return weights | (_read_safetensors(null) if null is not None else {})


def weights_files(path: Path, *, ema: bool = True) -> tuple[list[Path], Path | None]:
    """The files that hold the weights at `path`, and the one of the null caption in a folder that we wrote. Raises
    ValueError: a folder holds no weights."""
    if not path.is_dir():
        return [path], None
    folder = path / "transformer" if (path / "transformer").is_dir() else path
    null = folder / NULL_CAPTION_FILE
    return diffusers_files(folder, ema=ema), null if null.is_file() else None


def weights_sha256(path: Path, *, ema: bool = True) -> str:
    """16 hex digits that name the weights at `path` by their content, whatever they are called and wherever they are.
    Raises ValueError: as `weights_files`, or a file cannot be read."""
    files, null = weights_files(path, ema=ema)
    try:
        digests = [file_digest(file) for file in [*files, *([null] if null else [])]]
    except OSError as error:
        raise ValueError(f"{path}: cannot be read as weights ({error.strerror})") from None
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16]


def read_torch_file(path: Path) -> dict:
    """A file of `torch.save`, checked against its checksums and read with `weights_only`, so that no code of its runs.
    Raises ValueError: it does not exist, is damaged or cut short, or holds more than tensors and plain values."""
    try:
        refuse_damage(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path}: cannot be read as weights (it holds more than tensors and plain values, or is no file of torch)"
        ) from None
    except UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: cannot be read as weights ({reason})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__} where a dict of weights is expected")
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error})") from None
