"""The conformance table: one folder of hard files through listing and ingest; each gives its pixels or its reason."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from curation.ingest import IngestWorker
from curation.probe import picture_formats
from schemas.recipe import Ingest
from tests.photos import (
    BLUE,
    GREEN,
    HEIC,
    HTML,
    JXL,
    MP4,
    RED,
    WHITE,
    animation,
    encode,
    listing_table,
    orientation_tag,
    oriented,
    photo,
    png_bomb,
    quadrants,
    swapped_primaries,
    write_files,
)

SIZE = (640, 320)
QUADRANTS = (RED, GREEN, BLUE, WHITE)


def whole(**options: Any) -> bytes:
    return encode(quadrants(*SIZE), options.pop("format", "PNG"), **options)


def see_through() -> Image.Image:
    """The red quadrant is hidden."""
    image = quadrants(*SIZE).convert("RGBA")
    image.paste((255, 0, 0, 0), (0, 0, SIZE[0] // 2, SIZE[1] // 2))
    return image


def grey_16_bit() -> bytes:
    levels = np.full((SIZE[1], SIZE[0]), 0x4000, np.uint16)
    levels[:, SIZE[0] // 2 :] = 0xC000
    return encode(Image.fromarray(levels), "PNG")


def binary_palette() -> Image.Image:
    return quadrants(*SIZE).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)


JPEG = whole(format="JPEG", quality=95, subsampling=0)
PHOTO = encode(photo("chelsea.png"), "JPEG", quality=90)
PHOTO_PNG = encode(photo("chelsea.png"), "PNG")

PIXELS: dict[str, tuple[bytes, tuple[tuple[int, int, int], ...]]] = {
    "plain.jpg": (JPEG, QUADRANTS),
    "plain.png": (whole(), QUADRANTS),
    "plain.webp": (whole(format="WEBP", lossless=True), QUADRANTS),
    "plain.tif": (whole(format="TIFF", compression="tiff_lzw"), QUADRANTS),
    "plain.bmp": (whole(format="BMP"), QUADRANTS),
    "one_frame.gif": (encode(binary_palette(), "GIF"), QUADRANTS),
    "plain.jp2": (whole(format="JPEG2000"), QUADRANTS),
    "progressive.jpg": (whole(format="JPEG", quality=95, subsampling=0, progressive=True), QUADRANTS),
    "palette.png": (encode(binary_palette(), "PNG"), QUADRANTS),
    "cmyk.jpg": (encode(quadrants(*SIZE).convert("CMYK"), "JPEG", quality=95), QUADRANTS),
    "icc.jpg": (
        whole(format="JPEG", quality=95, subsampling=0, icc_profile=swapped_primaries()),
        (GREEN, RED, BLUE, WHITE),
    ),
    "icc.png": (whole(icc_profile=swapped_primaries()), (GREEN, RED, BLUE, WHITE)),
    "alpha.png": (encode(see_through(), "PNG"), (WHITE, GREEN, BLUE, WHITE)),
    "alpha.webp": (encode(see_through(), "WEBP", lossless=True), (WHITE, GREEN, BLUE, WHITE)),
    "16_bit.png": (grey_16_bit(), ((64,) * 3, (191,) * 3, (64,) * 3, (191,) * 3)),
    "grey.jpg": (
        encode(Image.new("L", SIZE, 90), "JPEG", quality=95),
        ((90, 90, 90),) * 4,
    ),
    "second_view.jpg": (animation("MPO", 2, SIZE), ((0, 40, 200),) * 4),
    "a png named.jpg": (whole(), QUADRANTS),
    "a_jpeg_named.png": (JPEG, QUADRANTS),
    "many.dots.in.the.name.jpg": (JPEG, QUADRANTS),
    "zażółć gęślą 猫 🐈.jpg": (JPEG, QUADRANTS),
    "ünter/ordner.d/ß.JPEG": (JPEG, QUADRANTS),
    **{
        f"orientation_{number}.jpg": (
            encode(
                oriented(quadrants(*SIZE), number),
                "JPEG",
                quality=95,
                subsampling=0,
                exif=orientation_tag(number),
            ),
            QUADRANTS,
        )
        for number in range(1, 9)
    },
    **{
        f"orientation_{number}.png": (
            encode(oriented(quadrants(*SIZE), number), "PNG", exif=orientation_tag(number)),
            QUADRANTS,
        )
        for number in (3, 6, 8)
    },
}
"""File name -> its bytes, and the colours at a quarter and three quarters of its upright picture, row by row."""

if features.check("avif"):
    PIXELS["plain.avif"] = (whole(format="AVIF", quality=95, subsampling="4:4:4"), QUADRANTS)

REASONS: dict[str, tuple[bytes, str, str]] = {
    "empty.jpg": (b"", "empty", "zero bytes"),
    "not_found.jpg": (HTML, "not_an_image", "HTML"),
    "page.png": (b'{"error": "gone"}', "not_an_image", "JSON"),
    "film.jpg": (MP4, "not_an_image", "video"),
    "noise.jpg": (bytes(range(128, 256)) * 4, "not_an_image", "unknown format"),
    "cut.jpg": (PHOTO[: len(PHOTO) // 2], "truncated", "JPEG"),
    "cut.png": (PHOTO_PNG[: len(PHOTO_PNG) // 2], "truncated", "PNG"),
    "cut_header.png": (PHOTO_PNG[:20], "truncated", "PNG"),
    "cut.webp": (encode(photo("chelsea.png"), "WEBP")[:-100], "truncated", "WEBP"),
    "hole.png": (PHOTO_PNG[:5000] + bytes(300) + PHOTO_PNG[5300:], "corrupt", "PNG"),
    "animated.gif": (animation("GIF", 4), "animated", "4 frames"),
    "animated.png": (animation("PNG", 2), "animated", "2 frames"),
    "animated.webp": (animation("WEBP", 3), "animated", "3 frames"),
    "pages.tif": (animation("TIFF", 3), "animated", "3 pages"),
    "bomb.png": (png_bomb(30_000, 30_000), "too_many_pixels", "30000x30000 px, the limit is 50000000 px"),
    "drawing.jpg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported", "SVG: no decoder"),
}
"""File name -> its bytes, its reason, and words of the detail."""

for _format, _data, _plugin in (
    ("HEIF", HEIC, "HEIF: no decoder installed (pip install pillow-heif)"),
    ("JXL", JXL, "JXL: no decoder installed (pip install pillow-jxl-plugin)"),
):
    # where the plug-in is installed, 64 zero bytes behind the signature are no picture to it
    installed = _format in picture_formats()
    REASONS[f"phone.{_format.lower()}"] = (_data, "corrupt", _format) if installed else (_data, "unsupported", _plugin)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Name -> (row of proxies, row of images), of all files of both tables and two long pictures."""
    folder = tmp_path_factory.mktemp("conformance")
    contents = {name: data for name, (data, *_) in (PIXELS | REASONS).items()}
    contents["wide.jpg"] = encode(Image.new("RGB", (20_000, 100), RED), "JPEG", quality=95)
    contents["tall.png"] = encode(Image.new("RGB", (8, 9_000), BLUE), "PNG")
    write_files(folder, contents)
    worker = IngestWorker(Ingest(proxy_px=320, proxy_quality=95, max_megapixels=50), threads=2)
    tables = worker({"listing": listing_table(folder)}, lambda num: None)
    found = zip(tables["proxies"].to_pylist(), tables["images"].to_pylist(), strict=True)
    return {image["member"]: (proxy, image) for proxy, image in found}


def test_every_file_is_one_row(rows: dict[str, Any]) -> None:
    assert set(rows) == {*PIXELS, *REASONS, "wide.jpg", "tall.png"}


@pytest.mark.parametrize("name", PIXELS)
def test_pixels(rows: dict[str, Any], name: str) -> None:
    proxy, image = rows[name]
    assert image["reason"] is None, image["detail"]
    assert (image["width"], image["height"]) == SIZE
    picture = Image.open(io.BytesIO(proxy["jpeg"]))
    assert (picture.mode, picture.size) == ("RGB", (320, 160))
    places = [(picture.width * x // 4, picture.height * y // 4) for y in (1, 3) for x in (1, 3)]
    for place, colour in zip(places, PIXELS[name][1], strict=True):
        assert np.abs(np.subtract(picture.getpixel(place), colour)).max() <= 12, (place, picture.getpixel(place))


@pytest.mark.parametrize("name", REASONS)
def test_reasons(rows: dict[str, Any], name: str) -> None:
    proxy, image = rows[name]
    _, reason, words = REASONS[name]
    assert (image["reason"], proxy["jpeg"]) == (reason, None), image["detail"]
    assert words in image["detail"]
    assert len(image["image_id"]) == 32  # an id all the same: the bytes are known


@pytest.mark.parametrize(
    ("name", "size", "proxy_size"), [("wide.jpg", (20_000, 100), (320, 2)), ("tall.png", (8, 9_000), (1, 320))]
)
def test_extreme_shapes_keep_a_pixel(
    rows: dict[str, Any], name: str, size: tuple[int, int], proxy_size: tuple[int, int]
) -> None:
    proxy, image = rows[name]
    assert (image["reason"], (image["width"], image["height"])) == (None, size)
    assert (proxy["width"], proxy["height"]) == proxy_size


def test_what_hides_is_measured(rows: dict[str, Any]) -> None:
    assert [rows[name][1]["alpha"] for name in ("alpha.png", "alpha.webp", "plain.png")] == [0.25, 0.25, None]


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("a png named.jpg", "format", "PNG"),
        ("orientation_6.jpg", "exif_orientation", 6),
        ("icc.jpg", "icc", True),
        ("cmyk.jpg", "mode", "CMYK"),
        ("bomb.png", "width", 30_000),
        ("animated.gif", "frames", 4),
    ],
)
def test_headers(rows: dict[str, Any], name: str, column: str, value: object) -> None:
    assert rows[name][1][column] == value
