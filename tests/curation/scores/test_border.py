from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from curation.scores.border import border
from tests.photos import encode, photo

NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "hubble_deep_field.jpg")


def jpeg(image: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(encode(image, "JPEG", quality=90)))


def framed(image: Image.Image, left: int, top: int, right: int, bottom: int, colour: str) -> Image.Image:
    whole = Image.new("RGB", (image.width + left + right, image.height + top + bottom), colour)
    whole.paste(image, (left, top))
    return whole


@pytest.mark.parametrize("name", NAMES)
def test_a_photograph_has_none(name: str) -> None:
    assert border(photo(name)) == (0, (0, 0, *photo(name).size))


@pytest.mark.parametrize("colour", ["black", "white", "navy"])
@pytest.mark.parametrize("bars", [(0, 60, 0, 60), (80, 0, 80, 0), (40, 40, 40, 40), (0, 0, 0, 100), (0, 33, 47, 0)])
def test_bars_are_found_to_a_pixel_or_two(colour: str, bars: tuple[int, int, int, int]) -> None:
    inside = photo("coffee.png")
    whole = framed(inside, *bars, colour)
    left, top, right, bottom = bars
    expected = (left, top, whole.width - right, whole.height - bottom)
    share, box = border(whole)
    assert box == expected
    assert share == pytest.approx(1 - inside.width * inside.height / (whole.width * whole.height))
    assert np.abs(np.subtract(border(jpeg(whole)).box, expected)).max() <= 4


def test_bars_within_bars() -> None:
    pillarboxed = framed(photo("coffee.png"), 50, 0, 50, 0, "white")
    assert border(framed(pillarboxed, 0, 30, 0, 30, "black")).box == (50, 30, 650, 430)


def test_a_plain_background_is_no_border() -> None:
    product = Image.new("RGB", (600, 600), "white")
    disc = Image.new("L", (200, 200), 0)
    disc.paste(255, (0, 0, 200, 200), Image.radial_gradient("L").resize((200, 200)).point(lambda v: 255 * (v < 128)))
    product.paste(photo("coffee.png").resize((200, 200)), (200, 200), disc)
    assert border(product).share == 0


def test_a_gradient_of_sky_is_no_border() -> None:
    levels = np.linspace(180, 90, 300)[:, None, None].repeat(400, 1).repeat(3, 2).astype(np.uint8)
    assert border(Image.fromarray(levels)).share == 0


def test_a_picture_of_one_colour_is_all_border() -> None:
    assert border(Image.new("RGB", (30, 20), "teal")) == (1.0, (0, 0, 0, 0))
