from __future__ import annotations

import pytest
from PIL import Image, ImageFilter

from curation.scores.sharpness import sharpness
from tests.photos import photo

NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "camera.png")


@pytest.mark.parametrize("name", NAMES)
def test_every_blur_is_less_sharp_and_a_blurred_photograph_is_under_a_sharp_one(name: str) -> None:
    found = [sharpness(photo(name).filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 2, 3)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 30 and found[3] < 4


def test_a_sharp_subject_before_a_blurred_background_is_sharp() -> None:
    sharp = photo("coffee.png")
    mixed = sharp.filter(ImageFilter.GaussianBlur(6))
    mixed.paste(sharp.crop((180, 100, 420, 300)), (180, 100))  # a fifth of the picture
    assert sharpness(mixed) > 10 * sharpness(sharp.filter(ImageFilter.GaussianBlur(6)))


def test_an_even_area_has_no_sharpness_and_a_tiny_picture_is_measured() -> None:
    assert sharpness(Image.new("RGB", (300, 200), "teal")) == 0
    assert sharpness(Image.new("RGB", (2, 500))) == 0
    assert sharpness(Image.effect_noise((5, 4), 50)) > 0


def test_a_larger_picture_is_measured_at_1024_px() -> None:
    large = photo("retina.jpg")
    assert sharpness(large) == pytest.approx(sharpness(large.resize((1024, 1024), Image.Resampling.LANCZOS)), rel=0.1)
