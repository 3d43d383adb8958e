from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning.hyphens import held_together, is_name, plain


@pytest.mark.parametrize(
    "words",
    [
        "T-shirt t-shirts X-ray e-mail V-neck U-turn O-ring A-frame e-bike 3-D",
        "close-up check-ins drive-in grown-up passer-by add-on get-together lean-to how-to follow-ups",
        "self-portrait ex-wife co-pilot mini-skirt half-moon semi-truck great-grandchildren mid-air non-stick go-karts",
        "yo-yo cha-cha zig-zag flip-flops ping-pong hip-hop tick-tock walkie-talkies hocus-pocus see-saw",
        "mother-in-law merry-go-rounds jack-o'-lantern jack-in-the-box forget-me-nots cul-de-sac",
        "Coca-Cola Rolls-Royce Harley-Davidson Wi-Fi Spider-Man hi-fi",
    ],
)
def test_a_hyphen_makes_one_word(words: str) -> None:
    assert [word for word in words.split() if not held_together(word)] == []


@pytest.mark.parametrize(
    "words",
    [
        "red-brick coffee-table black-and-white snow-covered dark-haired hand-painted two-man state-of-the-art",
        "five-year-old all-you-can-eat ship-to-shore full-length hot-air ice-cold wine-red shirt -",
        "Hand-Painted High-Waisted Slim-Fit Coffee-Table Black-And-White US-Mexico Paris-London",
    ],
)
def test_a_hyphen_parts_words_that_speak_for_themselves(words: str) -> None:
    assert [word for word in words.split() if held_together(word)] == []


def test_a_name_is_in_the_word_list_or_has_an_unknown_part() -> None:
    assert is_name("Rolls-Royce")
    assert not is_name("rolls-royce")
    assert not is_name("Slim-Fit")


APOSTROPHES = "\u2019\u2018\u201b\u02bc\u02b9\u00b4\u2032\uff07`"
HYPHENS = "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([f"the woman{mark}s hat" for mark in APOSTROPHES], "the woman's hat"),
        ([f"the woman {mark}s hat" for mark in APOSTROPHES], "the woman 's hat"),
        ([f"a T{mark}shirt" for mark in HYPHENS], "a T-shirt"),
        (["a micro\u00adphone", "a micro\u200bphone"], "a microphone"),
        ([f"the dogs{mark} bowls" for mark in APOSTROPHES], "the dogs' bowls"),
        (["jack-o\u2019-lantern"], "jack-o'-lantern"),
        (["Paris\u2013Rome, 1990\u20132000, red \u2013 blue"], "Paris\u2013Rome, 1990\u20132000, red \u2013 blue"),
    ],
)
def test_apostrophes_and_hyphens_are_those_of_a_typewriter(texts: list[str], expected: str) -> None:
    assert {plain(text) for text in texts} == {expected}


@given(st.text("ab T'-.,\u2019\u2013\u2011\u00ad`5", max_size=30))
def test_plain_text_stays_as_it_is(text: str) -> None:
    once = plain(text)
    assert plain(once) == once
    if text.isascii() and "`" not in text:
        assert once == text
