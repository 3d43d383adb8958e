"""The files of weights on this machine: where a tokenizer lies, configurations, and copies of them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any


def tokenizer_folder(folder: Path) -> Path | None:
    """The folder that holds a T5 tokenizer: `tokenizer/` in or beside a text encoder, or the same folder; or None."""
    for candidate in (folder / "tokenizer", folder, folder.parent / "tokenizer"):
        if any((candidate / name).is_file() for name in ("tokenizer.json", "spiece.model")):
            return candidate
    return None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ValueError: it cannot be read, or is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no JSON object")
    return content


def copy_files(source: Path, target: Path, names: re.Pattern[str]) -> None:
    """Copy the files of one folder whose names match into a new one.

    Raises:
        ValueError: none of them holds weights or a vocabulary.
    """
    files = sorted(path for path in source.iterdir() if path.is_file() and names.fullmatch(path.name))
    if not any(path.suffix in (".safetensors", ".model") or path.name == "tokenizer.json" for path in files):
        raise ValueError(
            f"{source}: no .safetensors weights (nor a vocabulary) in this folder; found {len(files)} files"
        )
    target.mkdir()
    for path in files:
        shutil.copyfile(path, target / path.name)
