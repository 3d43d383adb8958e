from __future__ import annotations

import io

import pytest
from PIL import Image, ImageFilter

from curation.scores.upscale import upscale
from tests.photos import encode, photo

NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "hubble_deep_field.jpg")
FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def jpeg(image: Image.Image) -> Image.Image:
    """As it would come back from a file: compression must not pass for detail."""
    return Image.open(io.BytesIO(encode(image, "JPEG", quality=90)))


def measured(image: Image.Image) -> float:
    found = upscale(image)
    assert found is not None
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_native_photograph_is_near_1_and_one_enlarged_4_times_is_far_from_it(name: str) -> None:
    native = photo(name)
    assert measured(native) < 1.2 and measured(jpeg(native)) < 1.2
    small = native.resize((native.width // 4, native.height // 4), Image.Resampling.LANCZOS)
    for kernel in FILTERS:
        assert 2.4 < measured(jpeg(small.resize(native.size, kernel))) < 4.2
    enlarged = native.resize((native.width * 4, native.height * 4), Image.Resampling.BICUBIC)
    assert 2.4 < measured(jpeg(enlarged)) < 4.2


@pytest.mark.parametrize("name", NAMES)
def test_twofold_lies_between(name: str) -> None:
    native = photo(name)
    small = native.resize((native.width // 2, native.height // 2), Image.Resampling.LANCZOS)
    assert measured(native) + 0.3 < measured(jpeg(small.resize(native.size, Image.Resampling.BICUBIC))) < 2.5


def test_out_of_focus_is_as_good_as_enlarged() -> None:
    assert measured(photo("astronaut.png").filter(ImageFilter.GaussianBlur(2))) > 2


def test_a_picture_that_cannot_be_measured_has_no_value() -> None:
    assert upscale(photo("astronaut.png").resize((255, 900))) is None
    assert upscale(Image.new("RGB", (600, 400), "teal")) is None


def test_a_sky_does_not_hide_the_detail_below_it() -> None:
    native = photo("astronaut.png")
    below = Image.new("RGB", (512, 1024), (120, 160, 220))
    below.paste(native, (0, 512))
    assert measured(jpeg(below)) < 1.3
