from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from captioning.captioners.attributes import (
    NAMES,
    PALETTE,
    AttributesCaptioner,
    describe,
    measure,
    nearest_names,
    to_lab,
)


def flat(colour: tuple[int, int, int], size: tuple[int, int] = (120, 80)) -> Image.Image:
    return Image.new("RGB", size, colour)


def test_every_photo_gets_its_own_caption_of_readable_length(photos: dict[str, Image.Image]) -> None:
    captions = [answer.text for answer in AttributesCaptioner().caption(list(photos.values()), range(len(photos)))]
    assert len(set(captions)) == len(photos)
    for caption in captions:
        assert 18 <= len(caption.split()) <= 60, caption
        assert caption[0].isupper() and caption.endswith(".") and "  " not in caption


def test_the_same_picture_gets_the_same_caption_in_any_batch(photos: dict[str, Image.Image]) -> None:
    captioner = AttributesCaptioner()
    pictures = list(photos.values())
    assert captioner.caption(pictures, range(len(pictures))) == [captioner.caption([one], [9])[0] for one in pictures]


@pytest.mark.parametrize(
    ("size", "framing"),
    [((300, 100), "panoramic"), ((150, 100), "wide"), ((100, 100), "square"), ((80, 120), "tall"), ((40, 120), "very")],
)
def test_framing_follows_the_aspect(size: tuple[int, int], framing: str) -> None:
    assert framing in describe(measure(flat((120, 90, 40), size))).split(" photograph")[0]


def test_colours_are_named_with_their_places() -> None:
    image = flat((205, 32, 38))
    image.paste((36, 92, 196), (0, 0, 36, 80))
    names = {patch.name: patch.place for patch in measure(image).patches}
    assert names == {"red": "throughout", "blue": "on the left"}
    assert "blue on the left" in describe(measure(image))


def test_a_small_vivid_area_is_an_accent() -> None:
    image = flat((128, 128, 128), (120, 120))
    image.paste((205, 32, 38), (10, 10, 30, 30))
    assert "palette of grey throughout, and an accent of red." in describe(measure(image))
    image.paste((82, 82, 84), (10, 10, 30, 30))
    assert measure(image).accent == ""


def test_a_spot_in_the_middle_is_in_the_centre_and_so_is_its_detail() -> None:
    image = flat((20, 32, 82), (120, 120))
    noise = np.random.default_rng(0).integers(0, 256, (44, 44, 1), dtype=np.uint8).repeat(3, axis=2)
    image.paste(Image.fromarray(noise), (38, 38))
    found = measure(image)
    assert found.detail_place == "centre"
    assert found.patches[0].name == "navy blue"


def test_light_and_saturation_are_measured_not_assumed() -> None:
    assert "dark light" in describe(measure(flat((8, 8, 8))))
    assert "very bright light" in describe(measure(flat((250, 250, 250))))
    assert "monochrome palette of grey throughout" in describe(measure(flat((128, 128, 128))))
    assert "vivid warm palette" in describe(measure(flat((240, 132, 30))))
    assert "monochrome" not in describe(measure(flat((36, 92, 196))))


def test_the_brighter_side_is_named() -> None:
    image = flat((40, 40, 40))
    image.paste((200, 200, 200), (60, 0, 120, 80))
    assert "the right side is brighter" in describe(measure(image))
    assert "the left side is brighter" in describe(measure(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))


def test_an_even_upper_band_is_named_by_its_colour() -> None:
    image = flat((120, 178, 226), (120, 120))
    ground = np.random.default_rng(1).integers(0, 120, (60, 120, 3), dtype=np.uint8)
    image.paste(Image.fromarray(ground), (0, 60))
    assert measure(image).smooth_top == "sky blue"
    assert "an even band of sky blue fills the top" in describe(measure(image))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_the_smallest_pictures_are_described_too(size: tuple[int, int]) -> None:
    assert describe(measure(flat((205, 32, 38), size))).startswith("A ")


def test_another_mode_than_rgb_is_refused() -> None:
    with pytest.raises(ValueError, match="RGB pictures, this is L"):
        AttributesCaptioner().caption([Image.new("L", (8, 8))], [0])


def test_each_colour_name_is_nearest_to_itself() -> None:
    lab = to_lab(np.array(list(PALETTE.values()), dtype=np.uint8))
    assert [NAMES[index] for index in nearest_names(lab)] == list(PALETTE)


def test_lab_of_known_colours() -> None:
    """sRGB red, white and black in CIELAB D65, as tables print them; the matrix here has four decimals."""
    lab = to_lab(np.array([(255, 0, 0), (255, 255, 255), (0, 0, 0)], dtype=np.uint8))
    np.testing.assert_allclose(lab, [(53.24, 80.09, 67.20), (100, 0, 0), (0, 0, 0)], atol=0.03)
