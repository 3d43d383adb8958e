"""Counts the tokens of captions, by words or by the T5 tokenizer of the training, and cuts long captions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from captioning.texts.text import sentence_ends
from models import tokenizers
from models.weights import T5_XXL, find_weights, missing_weights, one_line
from schemas.tokens import count_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORDS, T5 = "words", "t5"
KNOB = "mix.tokenizer"


class Tokenizer(Protocol):
    """A tokenizer counts the tokens of captions."""

    @property
    def name(self) -> str:
        """The name in the table `mix`: the same name gives the same counts on any machine."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, the end of the text included, before any cut."""
        ...


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


def load_tokenizer(given: str) -> Tokenizer:
    """The tokenizer that a recipe names.

    Args:
        given: `words`; `t5` for PixArt-Σ's from the local hub cache; else a folder, or the id of a repository in that
            cache.

    Raises:
        ValueError: it is not on this machine, or is damaged; the message says how to get it. Nothing is downloaded.
    """
    vocabulary = find_vocabulary(given)
    if vocabulary is None:
        return WordTokenizer()
    from transformers import T5Tokenizer as Pieces  # takes seconds; only workers pay it

    try:
        return T5Tokenizer(Pieces.from_pretrained(vocabulary.parent, local_files_only=True), vocabulary)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"{KNOB}: {vocabulary} is no T5 tokenizer ({one_line(error)})") from None


def find_vocabulary(given: str) -> Path | None:
    """The vocabulary file of a recipe's tokenizer; None for `words`, which has none. Nothing is loaded.

    Raises:
        ValueError: it is not on this machine.
    """
    if given == WORDS:
        return None
    folder = find_weights(None if given == T5 else given, T5_XXL, KNOB)
    vocabulary = tokenizers.find_vocabulary(folder)
    if vocabulary is None:
        raise missing_weights(T5_XXL, KNOB, str(folder))
    return vocabulary


def fit(text: str, most: int, count: Callable[[Sequence[str]], list[int]]) -> tuple[str, int]:
    """The longest beginning of a text that has at most `most` tokens and ends with a sentence.

    Where not even the first sentence fits, it ends with a word, and where no word fits, with a character.

    Args:
        text: normalised, with more tokens than `most`.
        most: at least 1, so that there is room for the end of the text.
        count: tokens of each of some texts; a longer beginning must not have fewer.

    Returns:
        The beginning, without spaces at its end, and its number of tokens.
    """
    spaces = (place for place, character in enumerate(text) if character == " ")
    for ends in (sentence_ends(text), list(spaces), list(range(1, len(text)))):
        low, high = 0, len(ends)
        while low < high:  # ends[:low] fit, ends[high:] do not
            middle = (low + high) // 2
            if count([text[: ends[middle]]])[0] <= most:
                low = middle + 1
            else:
                high = middle
        if low:
            kept = text[: ends[low - 1]].rstrip()
            if kept:
                return kept, count([kept])[0]
    return text[:0], count([""])[0]
