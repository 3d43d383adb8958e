"""Where a model lies on this machine, and which it is: a folder or the local hub cache. Nothing is ever downloaded."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

from schemas.weights import Weight, missing_weights

HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[\w.-]+?)(@(?P<revision>[\w./-]+))?")
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
    """The model that a recipe names.

    Args:
        given: a folder, or a hub id with or without `@commit`; None is the published one, `weight`.
        key: the knob, for the message.

    Raises:
        ValueError: it is not on this machine; the message names the id, the size and the command to get it.
    """
    if given is not None and Path(given).expanduser().is_dir():
        folder = Path(given).expanduser().resolve()
        if not (folder / "config.json").is_file():
            raise missing_weights(weight, key, given)
        revision = downloaded_commit(folder) or folder_digest(folder)
        return LocalModel(folder, _named(folder.name, revision), revision)
    if given is not None:
        match = HUB_ID.fullmatch(given)
        if match is None:
            raise missing_weights(weight, key, given)
        if match["id"] != weight.hub_id:
            weight = Weight("a model", match["id"], "*", "see its page for the size", "see its page")
        weight = replace(weight, revision=match["revision"] or weight.revision)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(weight.hub_id, revision=weight.revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        raise missing_weights(weight, key, given) from None
    if not (folder / "config.json").is_file():
        raise missing_weights(weight, key, given or weight.hub_id)
    return LocalModel(folder, _named(weight.hub_id, folder.name), folder.name)


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
