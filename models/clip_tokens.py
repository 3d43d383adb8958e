"""Counts the tokens that CLIP makes of a text: by its own vocabulary, or by letters where that is not here."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from models.fetching import find_packaged, place_of
from models.weights import CLIP_L14, CLIP_TOKENIZER, load_preprocessing

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

_NUM_TOKENS = 49408
_PIECE = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\s\w]|_)+")
"""What CLIP cuts a text into before it looks up its vocabulary."""


class Count(NamedTuple):
    """Fewest and most tokens that CLIP makes of a text, without its begin and its end, which take two of its 77."""

    least: int
    most: int


class Vocabulary:
    """Counts by the published vocabulary; both numbers are the same."""

    name = "clip"

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        self._tokenizer = tokenizer

    def count(self, text: str) -> Count:
        number = len(self._tokenizer(text, truncation=False, verbose=False)["input_ids"]) - 2
        return Count(number, number)


class Letters:
    """Counts by letters, without a file: at least a token a word, mark or digit, at most one for two letters and one:
    of 73,474 English words CLIP makes more of one alone (krzysztof). Letters that are not ASCII may be a token a
    byte."""

    name = "letters"

    def count(self, text: str) -> Count:
        pieces = _PIECE.findall(text.lower())
        most = sum(
            len(piece) // 2 + 1 if piece.isascii() and piece.isalpha() else len(piece.encode()) for piece in pieces
        )
        return Count(len(pieces), most)


Counter = Vocabulary | Letters
"""Counts the tokens of a text as CLIP makes them; a longer beginning of a text has no fewer. Its name is for the
record."""


def find_counter() -> Counter:
    """The exact counter where `sigma weights get clip-tokenizer`, or CLIP itself, has been fetched, else `Letters`."""
    packaged, hub = place_of(CLIP_TOKENIZER), place_of(CLIP_L14)
    if packaged is not None:
        return Vocabulary(_tokenizer(find_packaged(CLIP_TOKENIZER)))
    if hub is not None:
        from transformers import CLIPTokenizer  # takes seconds

        return Vocabulary(load_preprocessing(CLIPTokenizer.from_pretrained, hub, "CLIP"))
    return Letters()


def _tokenizer(merges_file: Path) -> CLIPTokenizer:
    """The tokenizer of the file of merges that OpenAI published: bytes, bytes that end a word, then every merge."""
    from transformers import CLIPTokenizer

    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    letters = [chr(byte) for byte in printed] + [chr(256 + place) for place in range(len(others))]
    num_merges = _NUM_TOKENS - 2 * len(letters) - 2
    lines = gzip.decompress(merges_file.read_bytes()).decode().split("\n")[1 : num_merges + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    vocabulary = {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges)
