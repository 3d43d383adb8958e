"""A caption is cut behind the last sentence that fits, else behind a word, else behind a character."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning.texts.text import clean
from schemas.sentences import fit, sentence_ends
from schemas.tokens import count_tokens


def count_words(texts: Sequence[str]) -> list[int]:
    return [count_tokens(text) for text in texts]


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        ("One two. Three four. Five six.", 7, "One two. Three four."),
        ("One two. Three four. Five six.", 6, "One two."),
        ("One two. Three four. Five six.", 3, "One"),  # the first sentence has 4 tokens, "two." is a word with its mark
        ("one two three four", 3, "one two"),
        ("See St. Paul and Dr. Who. It rains.", 11, "See St. Paul and Dr. Who."),
        ("One two. Three four.", 1, ""),
        ("\u4e00\u732b\u3002\u4e8c\u732b\u3002", 3, "\u4e00\u732b\u3002"),
    ],
)
def test_fit(text: str, most: int, expected: str) -> None:
    assert fit(text, most, count_words) == (expected, count_tokens(expected))


def test_a_word_that_alone_is_too_long_is_cut_at_a_character() -> None:
    kept, num_tokens = fit("x" * 50, 11, lambda texts: [len(text) + 1 for text in texts])
    assert (kept, num_tokens) == ("x" * 10, 11)


@given(
    st.lists(st.sampled_from(["cat", "A", "dog.", "St.", "Why?", "\u732b\u3002", "e.g.", "(so)", '"Hi!"']), min_size=1),
    st.integers(1, 40),
)
def test_a_cut_caption_is_a_beginning_that_fits(parts: list[str], most: int) -> None:
    text = clean(" ".join(parts)) or ""
    kept, num_tokens = fit(text, most, count_words)
    assert text.startswith(kept)
    assert num_tokens == count_tokens(kept) <= most
    fitting = [end for end in sentence_ends(text) if count_tokens(text[:end]) <= most]
    if fitting:
        assert len(kept) == fitting[-1]
