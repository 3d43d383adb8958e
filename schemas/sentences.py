"""The ends of sentences, and the longest beginning of a caption that ends with one and is short enough to be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s|\Z)|[。！？]++[\"'”’」』）]*+|\n++")

_ABBREVIATIONS = frozenset(
    ("approx", "dr", "e.g", "fig", "ft", "i.e", "jr", "mr", "mrs", "ms", "mt", "mts", "no", "prof", "sr", "st", "vs")
)
_LONGEST_ABBREVIATION = max(map(len, _ABBREVIATIONS)) + 2


@lru_cache(16)
def sentence_ends(text: str) -> tuple[int, ...]:
    """The ends of the sentences of a text: positions behind their last mark and its closing quotes, and line breaks. A
    full stop ends no sentence after an abbreviation or an initial ("St. Paul", "J. Smith"), nor before a small letter
    ("approx. three"). Takes linear time; the last texts are remembered, since each rule of the gate asks again."""
    return tuple(match.end() for match in _SENTENCE_END.finditer(text) if _ends_sentence(text, match))


def _ends_sentence(text: str, mark: re.Match[str]) -> bool:
    if mark.group()[0] == "\n":
        return True
    following = text[mark.end() : mark.end() + 2].strip()
    if not following:
        return True
    if following[0].islower():
        return False
    if mark.group() != ".":
        return True
    before = text[max(0, mark.start() - _LONGEST_ABBREVIATION) : mark.start()].split()
    last = before[-1].lstrip("(\"'“‘") if before and not text[mark.start() - 1].isspace() else ""
    return last.lower() not in _ABBREVIATIONS and not (len(last) == 1 and last.isupper())


def fit(text: str, most: int, count: Callable[[Sequence[str]], list[int]]) -> tuple[str, int]:
    """The longest beginning of a normalised text that has at most `most` tokens and ends with a sentence, without
    spaces at its end, and its number of tokens. Where not even the first sentence fits, it ends with a word, and where
    no word fits, with a character. `count`: tokens of each of some texts; a longer beginning must not have fewer."""
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
