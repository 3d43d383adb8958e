"""The files of weights on this machine: where a tokenizer lies, configurations, and copies of them."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path


def tokenizer_folder(folder: Path) -> Path | None:
    """The folder that holds a T5 tokenizer: `tokenizer/` in or beside a text encoder, or the same folder; or None."""
    for candidate in (folder / "tokenizer", folder, folder.parent / "tokenizer"):
        if any((candidate / name).is_file() for name in ("tokenizer.json", "spiece.model")):
            return candidate
    return None


DIGESTED_SUFFIXES = (".safetensors", ".model")
DIGESTED_NAMES = ("config.json", "tokenizer.json")
NUM_BLOCKS, BLOCK_BYTES = 64, 65536


def content_digest(folders: Sequence[Path]) -> str:
    """16 hex digits that name the weights and vocabularies in some folders, wherever these lie.

    Of each file its name, size and 64 blocks of 64 KiB, spread evenly from its first byte to its last: other weights
    differ nearly everywhere, and all of a T5 would take a minute to read.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if path.suffix in DIGESTED_SUFFIXES or path.name in DIGESTED_NAMES:
                size = path.stat().st_size
                digest.update(f"{path.name} {size}\n".encode())
                last = max(0, size - BLOCK_BYTES)
                with path.open("rb") as file:
                    for start in sorted({last * number // (NUM_BLOCKS - 1) for number in range(NUM_BLOCKS)}):
                        file.seek(start)
                        digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()[:16]


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
