"""Finds a T5 tokenizer, and counts the tokens of captions by it or by words, for the mix and for the training alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.weights import T5_TOKENIZER, find_weights, missing_weights, one_line
from schemas.tokens import count_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VOCABULARIES = ("spiece.model", "tokenizer.json")
"""Files that hold a vocabulary, the preferred one first."""
WORDS, T5 = "words", "t5"
KNOB = "mix.tokenizer"


class WordTokenizer:
    """The offline tokenizer of `schemas.tokens`."""

    name = WORDS

    def count(self, texts: Sequence[str]) -> list[int]:
        """Words and punctuation marks, and one for the end."""
        return [count_tokens(text) for text in texts]


class T5Tokenizer:
    """The SentencePiece tokenizer of a T5 model; its name carries a digest of its vocabulary."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: Path) -> None:
        self._tokenizer = tokenizer
        self.name = f"{T5}:{hashlib.sha256(vocabulary.read_bytes()).hexdigest()[:12]}"

    def count(self, texts: Sequence[str]) -> list[int]:
        """Pieces, and one for the end."""
        if not texts:
            return []
        found = self._tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return [len(ids) for ids in found]


Tokenizer = WordTokenizer | T5Tokenizer
"""Counts the tokens of captions, the end of each included, before any cut. Its name in the table `mix` gives the same
counts on any machine."""


def load_tokenizer(given: str) -> Tokenizer:
    """The tokenizer that a recipe names. `given`: `words`; `t5` for PixArt-Σ's from the local hub cache; else a folder,
    or the id of a repository in that cache. Raises ValueError: it is not on this machine, or is damaged; the message
    says how to get it. Nothing is downloaded."""
    vocabulary = find_tokenizer(given)
    if vocabulary is None:
        return WordTokenizer()
    from transformers import T5Tokenizer as Pieces  # takes seconds; only workers pay it

    try:
        return T5Tokenizer(Pieces.from_pretrained(vocabulary.parent, local_files_only=True), vocabulary)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"{KNOB}: {vocabulary} is no T5 tokenizer ({one_line(error)})") from None


def find_tokenizer(given: str) -> Path | None:
    """The vocabulary file of a recipe's tokenizer; None for `words`, which has none. Nothing is loaded. Raises
    ValueError: it is not on this machine."""
    if given == WORDS:
        return None
    folder = find_weights(None if given == T5 else given, T5_TOKENIZER, KNOB)
    vocabulary = find_vocabulary(folder)
    if vocabulary is None:
        raise missing_weights(T5_TOKENIZER, KNOB, str(folder))
    return vocabulary


def find_vocabulary(folder: Path) -> Path | None:
    """The vocabulary file of a T5 model; None where there is none. The search goes through `tokenizer/` in the folder,
    the folder, and `tokenizer/` next to the folder, which is where a pipeline keeps it for its `text_encoder/`. The
    file's parent is the folder to load the tokenizer from."""
    folders = (folder / "tokenizer", folder, folder.parent / "tokenizer")
    return next((place / name for place in folders for name in VOCABULARIES if (place / name).is_file()), None)
