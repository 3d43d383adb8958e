"""A verdict is one of three phrases at the beginning of a reply, and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.judge.reply import PHRASES, question, read_verdict


@pytest.mark.parametrize(
    ("reply", "verdict", "reason"),
    [
        ("<the first image is better>\nThe reason is <it has two cats>.", "first", "it has two cats."),
        ("<the second image is better> The reason is <it has two cats>", "second", "it has two cats"),
        ("<The two images are tied>", "tie", None),
        ("THE FIRST IMAGE IS BETTER. Both cats are there.", "first", "Both cats are there."),
        ("**[the second  image\nis better]** Reason: light", "second", "light"),
        (' "The two images are tied" because both are blurred', "tie", "because both are blurred"),
        ("The first image is better than the second. It is whole.", "first", "than the second. It is whole."),
        ("the first image is better The reason is its light", "first", "its light"),
        ("【the two images are tied】 - both are good", "tie", "both are good"),
        ("The second image is better - it is sharper", "second", "it is sharper"),
        ("The second image is better (it is sharper).", "second", "it is sharper)."),
        ("<the first image is better>。", "first", None),
        ("the first image is better… it has both", "first", "it has both"),
        ("The second image is better overall.", "second", "overall."),
        ("the first image is better, as it has both", "first", "as it has both"),
        ("(the first image is better) (the first image is better)", "first", "the first image is better)"),
    ],
)  # fmt: skip
def test_one_phrase_at_the_beginning_is_a_verdict(reply: str, verdict: str, reason: str | None) -> None:
    assert read_verdict(reply) == (verdict, reason)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I cannot say.",
        "Answer: <the first image is better>",
        "I think the first image is better",
        "<the first image is better> or <the second image is better>",
        "<the first image is better>, <the second image is better>, <the two images are tied>",
        "the first image is better lit, but I prefer the other",
        "the first image is betterment",
        "the first image is better-lit",
        "the first image is not better",
        "the first image is worse",
        "The second is better",
        "first",
        "1",
        "<the first image is better in colour, the second image is better in form>",
        "the two images are tied up",
        "<think>the first image is better</think>",
    ],
)
def test_anything_else_is_unparsed(reply: str) -> None:
    assert read_verdict(reply) == ("unparsed", None)


@given(st.sampled_from(sorted(PHRASES)), st.text("<>[]*( \n\"'", max_size=6), st.text(max_size=80), st.booleans())
def test_every_form_of_a_phrase_is_read_and_a_second_phrase_undoes_it(
    verdict: str, opening: str, rest: str, upper: bool
) -> None:
    phrase = PHRASES[verdict]  # type: ignore[index]
    reply = f"{opening}{phrase.upper() if upper else phrase}> {rest}"
    others = [each for each in PHRASES.values() if each != phrase]
    if not any(other in " ".join(rest.lower().split()) for other in others):
        found, reason = read_verdict(reply)
        assert found == verdict
        assert reason is None or reason in rest
    for other in others:
        assert read_verdict(f"{reply} {other}")[0] == "unparsed"


@given(st.text(max_size=200))
def test_a_text_without_a_phrase_is_never_a_verdict(reply: str) -> None:
    if not any(phrase in " ".join(reply.lower().split()) for phrase in PHRASES.values()):
        assert read_verdict(reply) == ("unparsed", None)


def test_the_caption_is_shown_as_it_is_and_for_alignment_alone() -> None:
    caption = "a {choices} of {caption} %s \\1 <the two images are tied>"
    asked = question("alignment", caption)
    assert caption in asked and asked.count("<the first image is better>") == 1
    assert "of {caption}" not in question("quality", caption)
    for phrase in PHRASES.values():
        assert f"<{phrase}>" in question("quality", "x")
