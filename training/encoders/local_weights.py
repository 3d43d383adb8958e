"""The files of weights on this machine: which of them name their content, and copies of them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

DIGESTED_SUFFIXES = (".safetensors", ".model")
DIGESTED_NAMES = ("config.json", "tokenizer.json")


def digested_files(folders: Iterable[Path]) -> list[Path]:
    """The files of some folders that name their content: weights, vocabularies and configurations."""
    return [
        path
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.suffix in DIGESTED_SUFFIXES or path.name in DIGESTED_NAMES
    ]


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
