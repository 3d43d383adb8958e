"""Weights from one published layout into another: ours, the official file, diffusers' transformer folder."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from schemas.commit import file_lock
from schemas.files import is_full
from schemas.late import installed
from training.model import PixArt, PixArtConfig
from training.model.architecture import Hints, infer_config, square_position_table
from training.model.convert import KV_COMPRESSION_KEY, NULL_CAPTION_FILE, fit_weights, read_weights
from training.model.layouts import NULL_CAPTION, POSITION_TABLE, to_diffusers
from training.model.pixart import LATENT_DOWNSAMPLING

Layout = Literal["sigma", "official", "diffusers"]
CONFIG_KEY = "sigma_config"
"""Metadata of our safetensors files: the architecture, as JSON."""
DIFFUSERS_MLP_RATIO = 4
"""diffusers' transformer has no knob for it."""
BINNED_SAMPLE_SIZES = (32, 64, 128, 256)
"""Latent sides for which diffusers' pipeline knows a table of aspect ratios."""


@dataclass(frozen=True)
class StoredModel:
    """Weights as a file or folder holds them. `weights`: in the official layout, without the position table. `notes`:
    for the user, one sentence each."""

    path: Path
    weights: dict[str, Tensor]
    config: PixArtConfig
    notes: tuple[str, ...]


def read_model(
    source: Path, *, drop_kv_compression: bool = False, ema: bool = True, hints: Hints | None = None
) -> StoredModel:
    """Read weights of any known layout, and infer their architecture.

    Args:
        drop_kv_compression: leave the weights of KV compression out; the model then answers differently.
        ema: of our checkpoints take the average.
        hints: knobs that the source does not say, or says wrongly.

    Raises:
        ValueError: the source cannot be read, or a key is missing, unexpected or of another shape.
    """
    origin = str(source)
    weights = read_weights(source, ema=ema)
    notes: tuple[str, ...] = ()
    dropped = [key for key in weights if KV_COMPRESSION_KEY.fullmatch(key)] if drop_kv_compression else []
    if dropped:
        weights = {key: value for key, value in weights.items() if key not in dropped}
        notes = (f"KV compression is left out ({len(dropped)} tensors): the model answers differently without it",)
    config = infer_config(weights, (hints or Hints()).over(stored_hints(source)), origin)
    with torch.device("meta"):
        own = PixArt(config).state_dict()
    fit = fit_weights(own, weights, origin)
    assert not fit.initialised  # the compressed layers were read off the keys
    weights = {key: value for key, value in weights.items() if key != POSITION_TABLE}
    return StoredModel(source, weights, config, notes)


def write_weights(model: StoredModel, target: Path, to: Layout) -> StoredModel:
    """Write weights in a layout, every value to the bit. `to`: `sigma` is one `.safetensors` file with the architecture
    in it, `official` a `.pth` of a `state_dict`, `diffusers` the folder of a `PixArtTransformer2DModel`. Raises
    ValueError: `to` cannot express the model, or `target` exists or cannot be written."""
    weights, config, notes = model.weights, model.config, model.notes
    if to == "diffusers":
        require_diffusers_can(model)
    with written_aside(target) as aside:
        if to == "diffusers":
            aside.mkdir()
            write_transformer(aside, weights, config)
        elif to == "official":
            torch.save({"state_dict": {POSITION_TABLE: square_position_table(config), **weights}}, aside)
        else:
            metadata = {CONFIG_KEY: json.dumps(asdict(config))}  # one key: same bytes
            save_file(_contiguous(weights), aside, metadata)
    if NULL_CAPTION not in weights:
        notes += ("the source holds no null caption: write the text encoder's answer to '' before sampling",)
    return replace(model, path=target, notes=notes)


def stored_hints(source: Path) -> Hints:
    """What a source says about its model in addition to its tensors. The source is the metadata of our safetensors
    files, diffusers' `config.json`, or the `recipe.yaml` in the folder of a stage's checkpoints. Raises ValueError: one
    of these is there and cannot be read."""
    folder = source / "transformer" if (source / "transformer").is_dir() else source
    try:
        if (folder / "config.json").is_file():
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            size = config["sample_size"]
            scale = config.get("interpolation_scale") or max(size // 64, 1)  # diffusers' rule for null
            return Hints(config["num_attention_heads"], size * LATENT_DOWNSAMPLING, scale)
        if source.suffix == ".safetensors":
            with safe_open(source, "pt") as file:
                stored = dict(json.loads((file.metadata() or {}).get(CONFIG_KEY, "{}")))
            return Hints(stored.get("num_heads"), stored.get("image_size"), stored.get("pe_interpolation"))
        if source.suffix == ".pt" and (source.parent / "recipe.yaml").is_file():
            recipe = yaml.safe_load((source.parent / "recipe.yaml").read_text(encoding="utf-8"))
            stage = recipe["stage"]
            return Hints(recipe["model"]["num_heads"], stage["resolution"], stage["pe_interpolation"])
    except (KeyError, TypeError, ValueError, RecursionError, yaml.YAMLError, SafetensorError, OSError) as error:
        raise ValueError(f"{source}: the description in or next to the weights cannot be read ({error!r})") from None
    return Hints()


def require_diffusers_can(model: StoredModel) -> None:
    """Raise ValueError for what diffusers' transformer cannot express: KV compression, or an MLP of another width."""
    config = model.config
    if config.kv_compression is not None:
        raise ValueError(
            f"{model.path}: diffusers has no KV compression (blocks {list(config.kv_compression.layers)}); "
            "--drop-kv-compression leaves it out, and the model then answers differently"
        )
    if config.mlp_ratio != DIFFUSERS_MLP_RATIO:
        raise ValueError(
            f"{model.path}: diffusers' MLPs are 4 times as wide as a token, these {config.mlp_ratio:g} times"
        )


def write_transformer(folder: Path, weights: dict[str, Tensor], config: PixArtConfig) -> None:
    """Fill an empty folder for `PixArtTransformer2DModel.from_pretrained`, and add the null caption."""
    tensors = _contiguous(to_diffusers(weights, str(folder)))
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    if NULL_CAPTION in weights:
        save_file(_contiguous({NULL_CAPTION: weights[NULL_CAPTION]}), folder / NULL_CAPTION_FILE)
    write_json(folder / "config.json", transformer_config(config))


def transformer_config(config: PixArtConfig) -> dict[str, Any]:
    """`config.json` of a `PixArtTransformer2DModel`, with every knob whose default would be guessed written out."""
    scale = config.pe_interpolation
    return {
        "_class_name": "PixArtTransformer2DModel",
        "_diffusers_version": diffusers_version(),
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "attention_head_dim": config.hidden_size // config.num_heads,
        "attention_type": "default",
        "caption_channels": config.caption_channels,
        "cross_attention_dim": config.hidden_size,
        "dropout": 0.0,
        "in_channels": config.in_channels,
        "interpolation_scale": int(scale) if scale == int(scale) else scale,  # null would be 1 at 256 px
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "norm_num_groups": 32,
        "norm_type": "ada_norm_single",
        "num_attention_heads": config.num_heads,
        "num_embeds_ada_norm": 1000,
        "num_layers": config.depth,
        "out_channels": 2 * config.in_channels,
        "patch_size": config.patch_size,
        "sample_size": config.image_size // LATENT_DOWNSAMPLING,
        "upcast_attention": False,
        "use_additional_conditions": False,  # null would be true at 1024 px
    }


def diffusers_version() -> str:
    """The installed version, or the one whose layout this is."""
    return installed("diffusers") or "0.42.1"


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """A path to write a file or folder at; renamed to `target` at the end, removed where anything fails. Raises
    ValueError: `target` exists, cannot be written, or another process writes it. Raises OSError: the disk is full,
    whatever the library says."""
    if not target.name:
        raise ValueError(f"{target}: name a file or folder that is not there yet")
    folder = target.with_name(f"{target.name}.partial")
    try:
        with file_lock(folder / ".lock", lambda holder: f"{target}: {holder} writes it; wait, or choose another name"):
            try:
                refuse_existing(target)
                _remove(aside := folder / target.name)  # of a killed run
                yield aside
                mask = os.umask(0)
                os.umask(mask)
                for path in aside.rglob("*.safetensors") if aside.is_dir() else [aside]:
                    path.chmod(0o666 & ~mask)  # safetensors makes files that only their owner reads
                aside.rename(target)
            finally:
                _remove(folder)
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:
        if is_full(target.parent, error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        if isinstance(error, ValueError):
            raise
        raise ValueError(f"{target}: cannot be written ({str(error).splitlines()[0]})") from error


def refuse_existing(target: Path) -> None:
    """Raise a ValueError where something is at `target`."""
    if target.exists():
        raise ValueError(f"{target}: exists already; choose another name, or remove it")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _contiguous(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.contiguous() for key, value in weights.items()}
