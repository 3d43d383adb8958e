"""Where a model lies on this machine, and which it is: a folder or the local hub cache. Nothing is ever downloaded."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from schemas.weights import Weight, find_weights, missing_weights

COMMIT = re.compile(r"[0-9a-f]{40}")
DIGESTED_BYTES = 1 << 20
"""Of each end of a file: a folder of weights is told from another without reading all of it."""


@dataclass(frozen=True)
class LocalModel:
    """A model's files."""

    folder: Path
    name: str
    """hub id, or the folder's own name, and the first 8 digits of the revision"""
    revision: str
    """commit of the hub's repository, or `folder-` and 16 hex digits of the files' sizes and ends"""


def find_model(given: str | None, weight: Weight, key: str) -> LocalModel:
    """The model that a recipe names; arguments as of `schemas.weights.find_weights`.

    Raises:
        ValueError: it is not on this machine; the message names the id, the size and the command to get it.
    """
    found = find_weights(given, weight, key)
    if not (found / "config.json").is_file():
        raise missing_weights(weight, key, given or weight.hub_id)
    if given is not None and Path(given).expanduser().is_dir():
        folder = found.resolve()
        revision = downloaded_commit(folder) or folder_digest(folder)
        return LocalModel(folder, _named(folder.name, revision), revision)
    hub_id = weight.hub_id if given is None else given.partition("@")[0]
    return LocalModel(found, _named(hub_id, found.name), found.name)


def downloaded_commit(folder: Path) -> str | None:
    """The commit that `hf download --local-dir` notes beside a folder's config; None where nobody noted it, or where
    config.json has been changed since."""
    note = folder / ".cache" / "huggingface" / "download" / "config.json.metadata"
    try:
        commit = note.read_text(encoding="utf-8").split("\n", 1)[0].strip()
        changed_since = (folder / "config.json").stat().st_mtime > note.stat().st_mtime + 1
    except (OSError, UnicodeDecodeError):
        return None
    return commit if COMMIT.fullmatch(commit) and not changed_since else None


def folder_digest(folder: Path) -> str:
    """`folder-` and 16 hex digits: names, sizes and both ends of its files, hidden ones left out."""
    sink = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        size = path.stat().st_size
        sink.update(f"{path.name}\x00{size}\x00".encode())
        with path.open("rb") as file:
            sink.update(file.read(DIGESTED_BYTES))
            if size > DIGESTED_BYTES:
                file.seek(max(DIGESTED_BYTES, size - DIGESTED_BYTES))
                sink.update(file.read(DIGESTED_BYTES))
    return f"folder-{sink.hexdigest()[:16]}"


def _named(model: str, revision: str) -> str:
    return f"{model}@{revision.removeprefix('folder-')[:8]}"
