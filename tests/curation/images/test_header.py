"""The header alone tells format, size and orientation, or why the bytes are no image."""

from __future__ import annotations

import io
import zipfile

import pytest
from PIL import Image

from curation.images.formats import sniff
from curation.images.header import Header, Unreadable, read_header
from curation.images.whole import cut_short
from schemas.png import chunks
from schemas.reasons import ImageError
from schemas.tiff import num_pages
from tests.photos import (
    HEIC,
    HTML,
    JXL,
    MP4,
    animation,
    encode,
    orientation_tag,
    oriented,
    photo,
    png_bomb,
    png_chunk,
    quadrants,
    swapped_primaries,
)


def refusal(data: bytes, **options: int) -> Unreadable:
    """What the bytes are refused with."""
    with pytest.raises(Unreadable) as caught:
        read_header(data, **options)
    return caught.value


def zip_archive() -> bytes:
    """A zip with one file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.jpg", b"x")
    return buffer.getvalue()


def test_everything_a_header_says() -> None:
    data = encode(oriented(quadrants(), 6), "JPEG", exif=orientation_tag(6), icc_profile=swapped_primaries())
    assert read_header(data) == Header(
        "JPEG", "RGB", 64, 32, exif_orientation=6, frames=1, icc=True, colour="icc", alpha=False
    )


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_size(image_format: str, orientation: int) -> None:
    data = encode(oriented(quadrants(64, 32), orientation), image_format, exif=orientation_tag(orientation))
    header = read_header(data)
    assert (header.width, header.height, header.exif_orientation) == (64, 32, orientation)


def test_orientation_behind_the_pixels_is_found_without_decoding_them() -> None:
    data = encode(oriented(quadrants(), 6), "PNG")
    exif = png_chunk(b"eXIf", orientation_tag(6).tobytes().removeprefix(b"Exif\x00\x00"))
    header = read_header(data[:-12] + exif + data[-12:])
    assert (header.exif_orientation, header.width, header.height) == (6, 64, 32)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_modes(mode: str) -> None:
    header = read_header(encode(quadrants().convert(mode), "PNG"))
    assert header.mode == mode
    assert header.alpha == mode.endswith("A")


def test_name_of_the_file_plays_no_part() -> None:
    assert [
        read_header(encode(quadrants(), name)).format for name in ("PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
    ] == [
        "PNG",
        "WEBP",
        "BMP",
        "TIFF",
        "GIF",
        "AVIF",
    ]


@pytest.mark.parametrize(
    ("start", "name"), [(b"v/1\x01\2\0\0\0", "OpenEXR"), (b"#?RADIANCE\n", "Radiance HDR"), (b"PF\n1 1\n-1\n", "PFM")]
)
def test_pictures_of_floats_without_a_decoder_are_unsupported_by_name(start: bytes, name: str) -> None:
    with pytest.raises(Unreadable, match=name) as caught:
        read_header(start + bytes(100))
    assert caught.value.reason == ImageError.UNSUPPORTED


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_frames(image_format: str) -> None:
    header = read_header(animation(image_format, 3))
    assert (header.frames, header.animated) == (3, True)
    assert not read_header(encode(quadrants(), image_format)).animated


def test_a_second_view_is_no_animation() -> None:
    header = read_header(animation("MPO", 2))
    assert (header.format, header.frames, header.animated) == ("MPO", 2, False)


def test_a_chain_of_pages_that_bites_its_tail_ends() -> None:
    data = bytearray(encode(quadrants(), "TIFF"))
    first = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[first : first + 2], "little")
    link = first + 2 + 12 * entries
    data[link : link + 4] = data[4:8]
    assert num_pages(bytes(data)) == 1


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", ImageError.EMPTY, "zero bytes"),
        (HTML, ImageError.NOT_AN_IMAGE, "the file holds HTML"),
        (b"\n\n  <html>", ImageError.NOT_AN_IMAGE, "the file holds HTML"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", ImageError.NOT_AN_IMAGE, "the file holds XML"),
        (b'{"error": "rate limit"}', ImageError.NOT_AN_IMAGE, "the file holds JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", ImageError.NOT_AN_IMAGE, "the file holds text"),
        (b"%PDF-1.7\n", ImageError.NOT_AN_IMAGE, "the file holds PDF"),
        (zip_archive(), ImageError.NOT_AN_IMAGE, "the file holds a zip archive"),
        (MP4, ImageError.NOT_AN_IMAGE, "the file holds an MP4 or QuickTime video"),
        (bytes(100), ImageError.NOT_AN_IMAGE, "unknown format, begins with 00 00 00 00 00 00 00 00"),
        (HEIC, ImageError.UNSUPPORTED, "HEIF: no decoder installed (pip install pillow-heif)"),
        (JXL, ImageError.UNSUPPORTED, "JXL: no decoder installed (pip install pillow-jxl-plugin)"),
        (b"\xff\x0a" + bytes(40), ImageError.UNSUPPORTED, "JXL: no decoder installed (pip install pillow-jxl-plugin)"),
        (b"<svg xmlns='x'></svg>", ImageError.UNSUPPORTED, "SVG: no decoder for this format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", ImageError.UNSUPPORTED, "EPS: no decoder for this format"),
        (encode(photo("rocket.jpg"), "JPEG")[:100], ImageError.TRUNCATED, "JPEG: no end-of-image marker"),
        (encode(quadrants(), "WEBP")[:50], ImageError.TRUNCATED, "WEBP: holds 50 of"),
        (
            encode(quadrants(), "TIFF", compression="tiff_lzw")[:100],
            ImageError.TRUNCATED,
            "TIFF: ends before its image",
        ),
        (b"\x89PNG\r\n\x1a\n" + b"\xff" * 50, ImageError.TRUNCATED, "PNG: ends inside its"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_reasons(data: bytes, reason: ImageError, detail: str) -> None:
    refused = refusal(data)
    assert refused.reason == reason
    assert refused.detail.startswith(detail)
    assert refused.header is None


def test_a_bomb_is_refused_with_its_size() -> None:
    refused = refusal(png_bomb(20_000, 20_000))
    assert refused.reason == ImageError.TOO_MANY_PIXELS
    assert refused.detail == "20000x20000 px, the limit is 300000000 px"
    assert refused.header is not None
    assert (refused.header.width, refused.header.height) == (20_000, 20_000)
    assert refusal(encode(quadrants(), "PNG"), max_pixels=100).reason == ImageError.TOO_MANY_PIXELS


def test_no_pixel_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    for image_format in ("JPEG", "PNG", "TIFF", "GIF", "BMP"):
        header = read_header(encode(quadrants(), image_format))
        assert (header.width, header.height) == quadrants().size


def test_avif_hides_behind_a_general_brand() -> None:
    box = b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1avifmiaf"
    kind = sniff(box)
    assert kind is not None
    assert kind.name == "AVIF"


def test_chunks_and_ends() -> None:
    png = encode(quadrants(), "PNG")
    assert [name for name, _, _ in chunks(png)][0::2][-1] in (b"IDAT", b"IEND")
    assert cut_short(png, "PNG") is None
    assert cut_short(png + b"trailing bytes", "PNG") is None
    assert cut_short(png[:-1], "PNG") is None  # every byte of the last chunk but one of its checksum
    assert cut_short(png[:-12], "PNG") == "no IEND chunk at its end"
    assert cut_short(b"anything", "BMP") is None
