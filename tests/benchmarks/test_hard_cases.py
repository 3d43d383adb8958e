"""The judge of the hard cases: what it calls right, and what it says of the rest."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from benchmarks.hard_cases import LONGEST_PX, RIGHT, Answer, judge
from tests.hard_cases import PIXELS
from tests.photos import quadrants

GOOD = quadrants(LONGEST_PX, LONGEST_PX // 2)


@pytest.mark.parametrize(
    ("name", "answer", "verdict"),
    [
        ("plain.png", GOOD, RIGHT),
        ("plain.png", "cannot decode", "**refused**: cannot decode"),
        ("plain.png", GOOD.transpose(Image.Transpose.ROTATE_180), "**wrong pixels**, up to 255 of 255 off"),
        ("orientation_6.jpg", GOOD.transpose(Image.Transpose.ROTATE_90), "**sideways**"),
        ("plain.png", quadrants(64, 32), "**64 x 32 px**"),
        ("cut.jpg", "truncated", RIGHT),
        ("cut.jpg", GOOD, "**accepted**, it is truncated"),
    ],
)
def test_verdicts(name: str, answer: Answer, verdict: str) -> None:
    assert judge(name, answer) == verdict


def test_a_decoder_that_forgets_the_profile_is_seen() -> None:
    picture = Image.open(io.BytesIO(PIXELS["icc.png"][0])).resize(GOOD.size)
    assert judge("icc.png", picture) == "**wrong pixels**, up to 255 of 255 off"
