"""Files that image pipelines get wrong, each with the pixels it must give or the reason to refuse it."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import tifffile
from PIL import Image, features

from schemas.opening import picture_formats
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
    orientation_tag,
    oriented,
    photo,
    png_bomb,
    quadrants,
    swapped_primaries,
)

SIZE = (640, 320)
QUADRANTS = (RED, GREEN, BLUE, WHITE)
TOLERANCE = 12
"""Largest difference of a channel that a JPEG of good quality may make in a plain field."""


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


def frame_on_a_canvas() -> bytes:
    """A GIF with a frame on the left half of its canvas; its first colour is that of no pixel there by itself."""
    data = bytearray(encode(quadrants(*SIZE).crop((0, 0, SIZE[0] // 2, SIZE[1])), "GIF"))
    data[6:8] = SIZE[0].to_bytes(2, "little")
    return bytes(data)


def palette_of_8_bits() -> bytes:
    """A TIFF whose palette has 8 bits in each of its fields of 16, as old writers give it."""
    colours = np.zeros((3, 256), np.uint16)
    colours[:, :4] = np.transpose(QUADRANTS)
    numbers = np.repeat(np.repeat(np.uint8([[0, 1], [2, 3]]), SIZE[1] // 2, axis=0), SIZE[0] // 2, axis=1)
    file = io.BytesIO()
    tifffile.imwrite(file, numbers, photometric="palette", colormap=colours, metadata=None)
    return file.getvalue()


def psd(resources: bytes = b"", num_layers: int | None = None, hidden: bool = True) -> bytes:
    """A PSD with a fourth channel that hides the red quadrant, or without one."""
    channels = [see_through().getchannel(band).tobytes() for band in ("RGBA" if hidden else "RGB")]
    layers = b"" if num_layers is None else struct.pack(">Ih", 4, num_layers) + bytes(2)
    head = struct.pack(">4sH6xHIIHH", b"8BPS", 1, len(channels), SIZE[1], SIZE[0], 8, 3) + bytes(4)
    sections = b"".join(struct.pack(">I", len(part)) + part for part in (resources, layers))
    return head + sections + bytes(2) + b"".join(channels)


JPEG = whole(format="JPEG", quality=95, subsampling=0)
PHOTO = encode(photo("chelsea.png"), "JPEG", quality=90)
PHOTO_PNG = encode(photo("chelsea.png"), "PNG")
PHOTO_WEBP = encode(photo("chelsea.png"), "WEBP", quality=95)

PIXELS: dict[str, tuple[bytes, tuple[tuple[int, int, int], ...]]] = {
    "plain.jpg": (JPEG, QUADRANTS),
    "plain.png": (whole(), QUADRANTS),
    "plain.webp": (whole(format="WEBP", lossless=True), QUADRANTS),
    "plain.tif": (whole(format="TIFF", compression="tiff_lzw"), QUADRANTS),
    "plain.bmp": (whole(format="BMP"), QUADRANTS),
    "one_frame.gif": (encode(binary_palette(), "GIF"), QUADRANTS),
    "frame.gif": (frame_on_a_canvas(), (RED, WHITE, BLUE, WHITE)),
    "old_palette.tif": (palette_of_8_bits(), QUADRANTS),
    "plain.psd": (psd(hidden=False), QUADRANTS),
    "selection.psd": (psd(), QUADRANTS),
    "selection_and_layers.psd": (psd(num_layers=2), QUADRANTS),
    "transparency.psd": (psd(num_layers=-2), (WHITE, GREEN, BLUE, WHITE)),
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
    "never_written.webp": (PHOTO_WEBP[:9000] + bytes(5000) + PHOTO_WEBP[14000:], "truncated", "nothing but zeros"),
    "layers_alone.psd": (
        psd(b"8BIM" + struct.pack(">HHIIBI", 1057, 0, 9, 1, 0, 0) + bytes(1), num_layers=1, hidden=False),
        "unsupported",
        "PSD: it holds layers and no picture made of them",
    ),
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


def furthest(picture: Image.Image, colours: tuple[tuple[int, int, int], ...]) -> int:
    """Largest difference of a channel between an RGB picture and the colours of `PIXELS`."""
    places = [(picture.width * x // 4, picture.height * y // 4) for y in (1, 3) for x in (1, 3)]
    seen = [picture.getpixel(place) for place in places]
    return int(np.abs(np.subtract(seen, colours)).max())
