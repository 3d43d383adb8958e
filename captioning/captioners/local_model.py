"""Finds a captioner's model in a folder or in the local hub cache, and names its revision. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from models.digest import weights_digest
from models.weights import LLAVA, SHARE_CAPTIONER, Weight, find_weights, missing_weights, read_json
from schemas import captioners
from schemas.locations import in_home

COMMIT = re.compile(r"[0-9a-f]{40}")
SUFFIXES = (".safetensors", ".bin")
"""Endings of weight files, the preferred one first."""
TOKENIZER = "tokenizer.model"


@dataclass(frozen=True)
class LocalModel:
    """A model on this machine."""

    folder: Path
    name: str
    """hub id, or the folder's own name, and the first 8 digits of the revision"""
    revision: str
    """commit of the hub's repository, or `folder-` and 16 hex digits, the digest of the folder's files"""


def find_model(given: str | None, weight: Weight, key: str) -> LocalModel:
    """The model that a recipe names; arguments as of `models.weights.find_weights`. Raises ValueError: it is not on
    this machine; the message names the id, the size and the command to get it."""
    found = find_weights(given, weight, key)
    if not (found / "config.json").is_file():
        raise missing_weights(weight, key, given or weight.hub_id)
    if given is not None and Path(in_home(given)).is_dir():
        folder = found.resolve()
        revision = downloaded_commit(folder) or folder_digest(folder)
        return LocalModel(folder, _named(folder.name, revision), revision)
    hub_id = weight.hub_id if given is None else given.partition("@")[0]
    return LocalModel(found, _named(hub_id, found.name), found.name)


def find_share_captioner(section: captioners.ShareCaptioner) -> LocalModel:
    """The Share-Captioner of a recipe: config, weights and tokenizer. Raises ValueError: the model, a part of it, or
    the engine that the recipe names is not on this machine."""
    if section.engine == "vllm" and importlib.util.find_spec("vllm") is None:
        raise ValueError(
            "caption.share_captioner.engine=vllm: vllm is not installed here; type `pip install 'sigma-pipeline[vllm]' "
            "-c constraints-vllm.txt`, or set engine=transformers"
        )
    found = find_model(section.weights, SHARE_CAPTIONER, "caption.share_captioner.weights")
    weight_paths(found.folder)
    if not (found.folder / TOKENIZER).is_file():
        raise ValueError(f"{found.folder}: {TOKENIZER} is missing; copy it from the weights' repository")
    return found


def find_vlm(section: captioners.Vlm) -> LocalModel:
    """The image-text-to-text model of a recipe: config and weights. Raises ValueError: they are not on this machine."""
    found = find_model(section.weights, LLAVA, "caption.vlm.weights")
    if not any(any(found.folder.glob(f"*{suffix}")) for suffix in SUFFIXES):
        raise ValueError(f"{found.folder}: no {' or '.join(SUFFIXES)} weights in this folder; get them anew")
    return found


def weight_paths(folder: Path) -> list[Path]:
    """The weight files of a folder: those of an index, else the files themselves; safetensors before `.bin`. Raises
    ValueError: there are none, or an index names some that are missing."""
    for suffix in SUFFIXES:
        for index in sorted(folder.glob(f"*{suffix}.index.json")):
            shards = sorted(set(read_json(index).get("weight_map", {}).values()))
            absent = [name for name in shards if not (folder / name).is_file()]
            if shards and not absent:
                return [folder / name for name in shards]
            if any((folder / name).is_file() for name in shards):
                raise ValueError(f"{index}: {absent[0]} is missing ({len(absent)} of {len(shards)} shards are)")
        if files := sorted(folder.glob(f"*{suffix}")):
            return files
    raise ValueError(f"{folder}: no .safetensors or .bin weights in this folder")


def downloaded_commit(folder: Path) -> str | None:
    """The commit that `hf download --local-dir` noted in a folder; None without one, or where config.json is newer."""
    note = folder / ".cache" / "huggingface" / "download" / "config.json.metadata"
    try:
        commit = note.read_text(encoding="utf-8").split("\n", 1)[0].strip()
        changed_since = (folder / "config.json").stat().st_mtime > note.stat().st_mtime + 1
    except (OSError, UnicodeDecodeError):
        return None
    return commit if COMMIT.fullmatch(commit) and not changed_since else None


def folder_digest(folder: Path) -> str:
    """`folder-` and the digest of all its files but hidden ones."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return f"folder-{weights_digest(paths)}"


def _named(model: str, revision: str) -> str:
    return f"{model}@{revision.removeprefix('folder-')[:8]}"
