"""Upright, sRGB, 8 bit, transparency on white: every case that peers get wrong, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from schemas.appearance import appearance_of, upright_size
from schemas.opening import open_file
from schemas.pixels import PixelError, clean, open_picture, open_rgb, shrunk_size
from tests.photos import (
    BLUE,
    GREEN,
    RED,
    WHITE,
    animation,
    corners,
    encode,
    linear_grey,
    orientation_tag,
    oriented,
    photo,
    png_bomb,
    png_chunk,
    quadrants,
    swapped_primaries,
)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_baked_in(image_format: str, orientation: int) -> None:
    upright = quadrants(64, 32)
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encode(oriented(upright, orientation), image_format, exif=orientation_tag(orientation), **options)
    assert np.array_equal(np.asarray(open_rgb(data)), np.asarray(upright))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_a_jpeg_scaled_while_decoding(orientation: int) -> None:
    data = encode(oriented(quadrants(640, 320), orientation), "JPEG", quality=95, exif=orientation_tag(orientation))
    shrunk = open_rgb(data, longest_px=100)
    assert shrunk.size == (100, 50)
    assert np.allclose(corners(shrunk), [RED, GREEN, BLUE, WHITE], atol=8)


def test_orientation_leaves_no_tag_to_be_applied_again() -> None:
    data = encode(oriented(quadrants(), 6), "JPEG", exif=orientation_tag(6))
    upright = open_rgb(data)
    assert upright.getexif().get(0x0112) is None
    assert "exif" not in upright.info
    assert upright.size == (64, 32)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_impossible_orientation_is_none(value: int) -> None:
    data = encode(quadrants(), "JPEG", exif=orientation_tag(value))
    assert appearance_of(open_file(data), data).orientation == 1
    assert corners(open_rgb(data))[0][0] > 200


def test_broken_exif_does_not_cost_the_picture() -> None:
    data = encode(quadrants(), "JPEG", exif=b"Exif\x00\x00garbage that is no TIFF")
    assert open_rgb(data).size == (64, 32)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_icc_profile_is_converted_to_srgb(image_format: str) -> None:
    options = {"lossless": True} if image_format == "WEBP" else {"quality": 95} if image_format == "JPEG" else {}
    data = encode(quadrants(), image_format, icc_profile=swapped_primaries(), **options)
    seen = open_rgb(data)
    assert np.allclose(corners(seen), [GREEN, RED, BLUE, WHITE], atol=6)
    assert "icc_profile" not in seen.info


def test_icc_profile_applies_to_palette_and_to_colours_under_alpha() -> None:
    palette = quadrants().convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.allclose(
        corners(open_rgb(encode(palette, "PNG", icc_profile=swapped_primaries()))),
        [GREEN, RED, BLUE, WHITE],
        atol=4,
    )
    see_through = quadrants().convert("RGBA")
    see_through.putalpha(Image.new("L", see_through.size, 254))
    assert np.allclose(
        corners(open_rgb(encode(see_through, "PNG", icc_profile=swapped_primaries()))),
        [GREEN, RED, BLUE, WHITE],
        atol=4,
    )


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_profile(mode: str) -> None:
    grey = Image.new("L", (16, 16), 128)
    if mode == "LA":
        grey = Image.merge("LA", (grey, Image.new("L", (16, 16), 255)))
    seen = open_rgb(encode(grey, "PNG", icc_profile=linear_grey()))
    assert seen.getpixel((8, 8)) == pytest.approx((188, 188, 188), abs=2)


def test_broken_profile_is_as_good_as_none() -> None:
    data = encode(quadrants(), "PNG", icc_profile=b"no profile at all")
    assert corners(open_rgb(data)) == [RED, GREEN, BLUE, WHITE]


def test_cmyk_jpeg() -> None:
    data = encode(quadrants(128, 64).convert("CMYK"), "JPEG", quality=95)
    assert np.allclose(corners(open_rgb(data)), [RED, GREEN, BLUE, WHITE], atol=8)


def test_hidden_colours_under_alpha_become_white() -> None:
    image = quadrants().convert("RGBA")
    alpha = np.full((32, 64), 255, np.uint8)
    alpha[:16, :32] = 0  # hides the red quadrant
    alpha[16:, :32] = 128  # half of the blue one
    image.putalpha(Image.fromarray(alpha))
    picture = open_picture(encode(image, "PNG"))
    assert corners(picture.rgb) == [WHITE, GREEN, (127, 127, 255), WHITE]
    assert picture.see_through == pytest.approx((1 + (1 - 128 / 255)) / 4)


@pytest.mark.parametrize("options", [{}, {"lossless": True}])
def test_alpha_of_webp(options: dict[str, bool]) -> None:
    image = Image.new("RGBA", (40, 40), (200, 0, 0, 0))
    picture = open_picture(encode(image, "WEBP", **options))
    assert picture.rgb.getpixel((20, 20)) == WHITE
    assert picture.see_through == 1.0


def test_opaque_alpha_is_no_transparency() -> None:
    picture = open_picture(encode(quadrants().convert("RGBA"), "PNG"))
    assert picture.see_through is None
    assert corners(picture.rgb) == [RED, GREEN, BLUE, WHITE]


def test_palette_with_a_transparent_entry() -> None:
    image = Image.new("P", (10, 10), 1)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    image.paste(2, (0, 0, 5, 10))
    picture = open_picture(encode(image, "PNG", transparency=2))
    assert (picture.rgb.getpixel((2, 5)), picture.rgb.getpixel((7, 5))) == (WHITE, RED)
    assert picture.see_through == 0.5


def test_rgb_and_grey_with_a_transparent_colour() -> None:
    picture = open_picture(encode(quadrants(), "PNG", transparency=(255, 0, 0)))
    assert corners(picture.rgb) == [WHITE, GREEN, BLUE, WHITE]
    grey = open_picture(encode(Image.new("L", (8, 8), 7), "PNG", transparency=7))
    assert grey.rgb.getpixel((4, 4)) == WHITE


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_levels(image_format: str) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[None].repeat(4, axis=0)
    seen = np.asarray(open_rgb(encode(Image.fromarray(ramp), image_format)))
    assert np.array_equal(seen[0, :, 0], np.arange(256))
    assert np.array_equal(seen[..., 0], seen[..., 2])


def test_float_grey() -> None:
    unit = Image.fromarray(np.array([[0.0, 0.5, 1.0, np.nan]], np.float32))
    assert np.asarray(open_rgb(encode(unit, "TIFF")))[0, :, 0].tolist() == [0, 128, 255, 0]


def test_one_bit() -> None:
    image = Image.new("1", (8, 8), 1)
    image.putpixel((0, 0), 0)
    seen = open_rgb(encode(image, "PNG"))
    assert (seen.getpixel((0, 0)), seen.getpixel((7, 7))) == ((0, 0, 0), WHITE)


@pytest.mark.parametrize("image_format", ["AVIF", "JPEG2000", "BMP", "PPM", "TGA"])
def test_other_formats(image_format: str) -> None:
    original = photo("chelsea.png")
    seen = open_rgb(encode(original, image_format))
    difference = np.abs(np.asarray(seen, int) - np.asarray(original, int)).mean()
    assert difference < 4


def test_a_phone_picture_with_a_second_view_is_scaled_while_decoding() -> None:
    seen = open_rgb(animation("MPO", 2, size=(800, 600)), longest_px=100)
    assert seen.size == (100, 75)


def test_shrinks_but_never_enlarges() -> None:
    data = encode(photo("coffee.png"), "PNG")
    assert open_rgb(data, longest_px=300).size == (300, 200)
    assert open_rgb(data, longest_px=5000).size == (600, 400)
    panorama = encode(Image.new("RGB", (4000, 100)), "JPEG")
    assert open_rgb(panorama, longest_px=64).size == (64, 2)
    assert shrunk_size((4000, 1), 64) == (64, 1)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("longest_px", [1023, 700, 500, 137, 20])
def test_shrinking_is_pillows_lanczos(mode: str, longest_px: int) -> None:
    image = photo("retina.jpg").resize((1024, 1024)).convert(mode)
    image.putpixel((0, 0), (0,) * len(image.getbands()) if mode != "L" else 0)
    ours = open_rgb(encode(image, "TIFF"), longest_px=longest_px)
    reference = image.resize((longest_px, longest_px), Image.Resampling.LANCZOS).convert("RGB")
    difference = np.abs(np.asarray(ours, int) - np.asarray(reference, int))
    assert difference.max() <= 4
    assert difference.mean() < 0.3


def test_a_very_long_picture_is_shrunk_evenly() -> None:
    ramp = np.linspace(0, 255, 20_000).round().astype(np.uint8)[None].repeat(3, axis=0)
    ours = np.asarray(open_rgb(encode(Image.fromarray(ramp), "PNG"), longest_px=64))
    assert ours.shape == (1, 64, 3)
    assert np.abs(ours[0, :, 0].astype(int) - np.linspace(2, 253, 64)).max() <= 2


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_cover_hint_never_gives_less_than_the_size(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.new("RGB", (1200, 800)), "JPEG", exif=exif)
    upright = (1200, 800) if orientation == 1 else (800, 1200)
    for height, width in ((100, 100), (256, 128), (700, 700), (400, 600), (600, 400), (401, 600), (150, 100)):
        image = open_rgb(data, cover_px=(height, width))
        assert image.height >= height and image.width >= width
        least = min(upright[0] // width, upright[1] // height)  # it is scaled as far as a JPEG decoder can
        scale = next(scale for scale in (8, 4, 2, 1) if scale <= max(least, 1))
        assert image.size == (upright[0] // scale, upright[1] // scale)


def test_a_bomb_is_refused_from_its_header() -> None:
    with pytest.raises(PixelError, match="20000x20000 px is over the limit of 300000000 px"):
        open_rgb(png_bomb())
    with pytest.raises(PixelError, match="over the limit of 100 px"):
        open_rgb(encode(quadrants(), "PNG"), max_pixels=100)


@pytest.mark.parametrize("data", [b"", b"text", encode(photo("rocket.jpg"), "JPEG")[:5000]])
def test_no_whole_picture_is_one_error(data: bytes) -> None:
    with pytest.raises(PixelError):
        open_rgb(data)


def test_upright_size() -> None:
    assert [upright_size(3, 2, orientation) for orientation in (1, 4, 5, 8)] == [(3, 2), (3, 2), (2, 3), (2, 3)]


def test_orientation_behind_the_pixels_of_a_png() -> None:
    data = encode(oriented(quadrants(), 3), "PNG")
    exif = png_chunk(b"eXIf", orientation_tag(3).tobytes().removeprefix(b"Exif\x00\x00"))
    assert corners(open_rgb(data[:-12] + exif + data[-12:])) == [RED, GREEN, BLUE, WHITE]


def test_what_is_no_picture_is_so_in_the_same_words_on_every_run() -> None:
    """The words are in tables, whose parts are named by their bytes."""
    said = set()
    for _ in range(2):
        with pytest.raises(PixelError) as error:
            open_rgb(b"no picture")
        said.add(str(error.value))
    assert said == {"cannot identify image file the file"}
    assert clean("cannot identify <_io.BytesIO object at 0x7fab6ea4aa20>\n here") == "cannot identify the file here"
    assert len(clean("x" * 1000)) == 200
