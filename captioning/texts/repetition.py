"""Finds captions that say the same again and again, as language models do when they do not find an end. Repetition is
measured in words, not by how well a text compresses: a compressor's ratio depends on the length of the text, calls
short loops in long captions harmless, and says nothing that a reader could check."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from captioning.texts.text import sentences, words

LOOP_REPEATS = 3
"""A phrase said this often in a row, in full, is a loop, ..."""
LOOP_WORDS = 12
"""... if it makes at least this many words: "red, white, red, white, red, white" may describe a flag."""
WORD_REPEATS = 6
"""A single word said this often in a row is a loop."""
LONGEST_LOOP = 100
"""Words of the longest phrase that is compared with itself; longer ones are caught as sentences or phrases."""

SENTENCE_REPEATS = 3
"""The same sentence, anywhere in a caption, this often."""
SENTENCE_WORDS = 4
"""Shorter sentences may recur."""

PHRASE_WORDS = 6
"""Words of a phrase that a good caption seldom says twice."""
PHRASE_SHARE = 0.4
"""Largest share of a caption's words that may be in phrases which were said before."""
PHRASES_FROM_WORDS = 40
"""Shorter captions are not judged by phrases."""

_CHARACTERS = re.compile(r"(\S)\1{29}|(?=\S)(.{2,8}?)\2{9}", re.DOTALL)
"""One character 30 times, or a group of up to eight 10 times: loops that no words show."""


def repeats_itself(text: str) -> bool:
    """True if a caption holds a loop: of characters, of words, of sentences, or of phrases all over it. Takes time
    linear in the length of the text."""
    found = words(text)
    return (
        has_loop(found)
        or _CHARACTERS.search(text) is not None
        or _repeats_sentences(text)
        or (len(found) >= PHRASES_FROM_WORDS and phrase_share(found) > PHRASE_SHARE)
    )


def has_loop(found: Sequence[str]) -> bool:
    """True if a stretch of the words is one phrase `LOOP_REPEATS` times or more. Words that equal the one n places
    before them make a run; with n words before it, a run of length r is a phrase of n words said (r + n) / n times."""
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(word, len(numbers)) for word in found], dtype=np.int32)
    for period in range(1, min(LONGEST_LOOP, len(ids) // LOOP_REPEATS) + 1):
        enough = WORD_REPEATS if period == 1 else max(LOOP_WORDS, LOOP_REPEATS * period)
        equal = ids[period:] == ids[:-period]
        if np.count_nonzero(equal) + period >= enough and _longest_run(equal) + period >= enough:
            return True
    return False


def phrase_share(found: Sequence[str]) -> float:
    """Share of the words that are in a phrase of `PHRASE_WORDS` words which was said before."""
    seen: set[tuple[str, ...]] = set()
    covered, end = 0, 0
    for begin in range(len(found) - PHRASE_WORDS + 1):
        phrase = tuple(found[begin : begin + PHRASE_WORDS])
        if phrase in seen:
            covered += begin + PHRASE_WORDS - max(begin, end)
            end = begin + PHRASE_WORDS
        seen.add(phrase)
    return covered / max(1, len(found))


def _longest_run(equal: np.ndarray) -> int:
    breaks = np.flatnonzero(~equal)
    edges = np.concatenate(([-1], breaks, [len(equal)]))
    return int(np.diff(edges).max()) - 1


def _repeats_sentences(text: str) -> bool:
    counts = Counter(words(sentence) for sentence in sentences(text))
    return any(count >= SENTENCE_REPEATS and len(said) >= SENTENCE_WORDS for said, count in counts.items())
