"""Writes the language half of Share-Captioner as a plain Llama folder, once per machine, for engines that read such."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from captioning.captioners.share_captioner.language import language_config
from captioning.captioners.share_captioner.loading import DTYPES, LANGUAGE, Blueprint, Rotary
from models.digest import weights_digest
from models.weights import one_line, read_json
from schemas.commit import atomic_write, file_lock, write_bytes
from schemas.files import scratch_folder
from schemas.strict import fingerprint

log = logging.getLogger(__name__)

FILE_BYTES = 2**31
"""About how much goes into one file, and is in memory while it is written."""

CONFIG, INDEX = "config.json", "model.safetensors.index.json"

_KEPT_KEYS = (
    "model_type vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads "
    "hidden_act rms_norm_eps attention_bias mlp_bias max_position_embeddings bos_token_id eos_token_id pad_token_id "
    "tie_word_embeddings"
)
KEPT = tuple(_KEPT_KEYS.split())
"""What an engine needs of the model's own config, which has more, and other keys with each release."""


def models_folder() -> Path:
    """Where this user's copies of models are kept on this machine."""
    return scratch_folder() / f"sigma-models-{os.getuid()}"


def language_folder(blueprint: Blueprint, rotary: Rotary, dtype: str, models: Path | None = None) -> Path:
    """The language model as a folder of `LlamaForCausalLM`, written unless it is there. Its name digests the weights
    and all that shapes it, so one folder serves every job. Another process that writes it at the moment is waited for;
    one that was killed leaves no config.json, and its folder is written anew. With the rotary `reference` the rounded
    frequencies of the checkpoint become factors of `longrope`, which divide the exact ones. Raises ValueError: the
    checkpoint is damaged, or the disk has no room for it."""
    config = llama_config(blueprint, rotary, dtype)
    name = fingerprint([weights_digest(blueprint.files.paths), config, blueprint.lora_scale])
    folder = (models or models_folder()) / f"share-captioner-language-{name}"
    if _is_whole(folder):
        return folder
    try:
        with file_lock(folder.with_suffix(".lock"), None):
            if not _is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
                _write(blueprint, dtype, folder)
                write_bytes(folder / CONFIG, json.dumps(config, indent=1).encode())
    except (OSError, SafetensorError) as error:
        shutil.rmtree(folder, ignore_errors=True)  # a full disk is not to stay full of it
        raise ValueError(
            f"{folder}: the language model cannot be written ({one_line(error)}); name a folder with room for it in "
            "SIGMA_SCRATCH"
        ) from None
    return folder


def llama_config(blueprint: Blueprint, rotary: Rotary, dtype: str) -> dict[str, Any]:
    dimensions = blueprint.dimensions
    whole = language_config(dimensions).to_dict()
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": dimensions.rope_theta}
    if rotary == "reference":
        factors = (blueprint.exact_frequencies() / blueprint.frequencies(rotary).double()).tolist()
        rope |= {
            "rope_type": "longrope",
            "short_factor": factors,
            "long_factor": factors,
            "original_max_position_embeddings": dimensions.max_positions,
        }
    return {
        "architectures": ["LlamaForCausalLM"],
        **{key: whole[key] for key in KEPT},
        "dtype": str(DTYPES[dtype]).removeprefix("torch."),
        "rope_parameters": rope,
    }


def _is_whole(folder: Path) -> bool:
    """True if config.json, which is written last, is there, and no file was deleted since, as systems do in /tmp."""
    if not (folder / CONFIG).is_file() or not (folder / INDEX).is_file():
        return False
    return all((folder / file).is_file() for file in set(read_json(folder / INDEX)["weight_map"].values()))


def _write(blueprint: Blueprint, dtype: str, folder: Path) -> None:
    sizes = {
        ours: blueprint.shapes[ours].numel() * DTYPES[dtype].itemsize
        for ours in blueprint.shapes
        if ours.startswith(LANGUAGE)
    }
    needed = sum(sizes.values())
    folder.mkdir(parents=True)
    free = shutil.disk_usage(folder).free
    if free < needed * 1.01:
        raise ValueError(
            f"{folder.parent}: has {free / 1e9:.1f} GB free, and the language model takes {needed / 1e9:.1f} GB; name "
            "a folder with room for it in SIGMA_SCRATCH"
        )
    log.info("writing the language model for vLLM into %s (%.1f GB, once per machine)", folder, needed / 1e9)
    files: dict[str, str] = {}
    for number, names in enumerate(_groups(sizes), start=1):
        file = f"model-{number:05d}.safetensors"
        tensors: dict[str, Tensor] = {
            ours.removeprefix(LANGUAGE): blueprint.tensor(ours, DTYPES[dtype]).contiguous() for ours in names
        }
        with atomic_write(folder / file) as aside:
            save_file(tensors, aside.name, {"format": "pt"})
        files |= dict.fromkeys(tensors, file)
    index = {"metadata": {"total_size": needed}, "weight_map": files}
    write_bytes(folder / INDEX, json.dumps(index, indent=1).encode())


def _groups(sizes: dict[str, int]) -> Iterator[list[str]]:
    """The names in groups of about `FILE_BYTES`."""
    group: list[str] = []
    for name, size in sizes.items():
        if group and sum(sizes[other] for other in group) + size > FILE_BYTES:
            yield group
            group = []
        group.append(name)
    yield group
