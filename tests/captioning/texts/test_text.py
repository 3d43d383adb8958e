from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning.texts.text import clean, kept_mask, sentence_ends, sentences, words

SCOTLAND = "\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in "gbsct") + "\U000e007f"


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        (None, None),
        ("", None),
        (" \n\t\u00a0", None),
        ("\u200b\ufeff\x00", None),
        ("  a  cat\n on a\tmat ", "a cat on a mat"),
        ("cafe\u0301", "caf\u00e9"),
        ("e\u200b\u0301", "\u00e9"),
        ("<b>bold</b>", "<b>bold</b>"),
        ("a\x00b\x1fc\x7f", "a b c"),
        ("soft\u00adware \u202eright\u202c", "software right"),
        ("a\u200d b\u200c", "a b"),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),  # a family
        ("\u0646\u0645\u06cc\u200c\u062e\u0648", "\u0646\u0645\u06cc\u200c\u062e\u0648"),  # Persian
        (SCOTLAND + " in\U000e0041 a stadium", SCOTLAND + " in a stadium"),
        ("\U0001f3f4\U000e0067 torn, \U000e0067\U000e007f", "\U0001f3f4 torn,"),
    ],
)
def test_clean(given_text: str | None, expected: str | None) -> None:
    assert clean(given_text) == expected


@given(st.text() | st.text(alphabet="aé \u0301\u200b\u200c\u200d\u00ad\u0915\x00\u212a"))
def test_clean_twice_is_clean_once(text: str) -> None:
    once = clean(text)
    assert clean(once) == once


def test_words() -> None:
    assert list(words("Don't say \u201cno\u201d, a T-shirt!")) == ["don't", "say", "no", "a", "t", "shirt"]
    assert list(words("\u4e00\u732b in Kyoto")) == ["\u4e00", "\u732b", "in", "kyoto"]
    assert list(words("...")) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He says "Stop." Then he goes.', ['He says "Stop."', "Then he goes."]),
        ("Dr. Who met J. Smith near St. Paul. It rains", ["Dr. Who met J. Smith near St. Paul.", "It rains"]),
        ("It is approx. three metres, i.e. tall.", ["It is approx. three metres, i.e. tall."]),
        ("Version 3.5 of it... And more.", ["Version 3.5 of it...", "And more."]),
        ("www.example.org is a site", ["www.example.org is a site"]),
        ("\u4e00\u732b\u3002\u4e8c\u732b\u3002", ["\u4e00\u732b\u3002", "\u4e8c\u732b\u3002"]),
        ("It is 3.5 m long. Dr. Smith stands by.", ["It is 3.5 m long.", "Dr. Smith stands by."]),
        ("Fruit, e.g. pears. J. Doe", ["Fruit, e.g. pears.", "J. Doe"]),
        ("Wait... what?! Yes", ["Wait... what?!", "Yes"]),
        ("first line\nsecond line.\n\nthird", ["first line", "second line.", "third"]),
        ("...", ["..."]),
        ("", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(st.text(alphabet='aA.!? "\u3002)\n', max_size=40))
def test_sentences_lose_nothing(text: str) -> None:
    ends = sentence_ends(text)
    assert list(ends) == sorted(set(ends)) and all(0 < end <= len(text) for end in ends)
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


def test_a_long_text_takes_linear_time() -> None:
    assert len(sentences("A dog runs. " * 10_000)) == 10_000


def test_a_row_that_selection_does_not_know_was_not_kept(part: Callable[..., pa.Table]) -> None:
    rows = part("images", image_id=["a", "b", "c"])
    selection = part("selection", image_id=["a", "b"], kept=[False, True])
    assert kept_mask(rows, selection) == [False, True, False]
    assert kept_mask(rows, selection.slice(0, 0)) == [False, False, False]
