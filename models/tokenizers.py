"""Finds a T5 tokenizer, in one way for the mix, which cuts captions, and for the training on them."""

from __future__ import annotations

from pathlib import Path

VOCABULARIES = ("spiece.model", "tokenizer.json")
"""Files that hold a vocabulary, the preferred one first."""


def find_vocabulary(folder: Path) -> Path | None:
    """The vocabulary file of a T5 model; None where there is none.

    The search goes through `tokenizer/` in the folder, the folder, and `tokenizer/` next to the folder, which is
    where a pipeline keeps it for its `text_encoder/`. The file's parent is the folder to load the tokenizer from.
    """
    folders = (folder / "tokenizer", folder, folder.parent / "tokenizer")
    return next((place / name for place in folders for name in VOCABULARIES if (place / name).is_file()), None)
