from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning.sentences import sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A boat. A lake!", ["A boat.", "A lake!"]),
        ("One only", ["One only"]),
        ("It is 3.5 m long. Dr. Smith stands by.", ["It is 3.5 m long.", "Dr. Smith stands by."]),
        ('A sign says "Stop." Cars wait.', ['A sign says "Stop."', "Cars wait."]),
        ("Fruit, e.g. pears. J. Doe", ["Fruit, e.g. pears.", "J. Doe"]),
        ("Wait... what?! Yes", ["Wait...", "what?!", "Yes"]),
        ("first line\nsecond line", ["first line", "second line"]),
        ("", []),
        ("...", ["..."]),
    ],
)
def test_a_caption_is_cut_at_its_sentence_ends(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(st.text(alphabet="ab .!?\n\"'", max_size=80))
def test_no_character_is_lost_but_white_space(text: str) -> None:
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


def test_a_long_caption_takes_linear_time() -> None:
    assert len(sentences("A dog runs. " * 10_000)) == 10_000
