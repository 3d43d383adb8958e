"""Only formats on a closed list are opened, and none that holds a file of another format or a program."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation.images.decode import decode
from curation.images.header import Unreadable, read_header
from schemas.opening import FORMATS, open_file
from schemas.pixels import DECODER_ERRORS, PixelError, open_rgb
from schemas.reasons import ImageError
from tests.bombs import EPS, WRAPPED
from tests.photos import encode, quadrants


def test_the_trap_for_ghostscript_works(ghostscript_log: Path) -> None:
    """Pillow by itself starts the program that the next test forbids."""
    Image.init()
    with pytest.raises(subprocess.CalledProcessError):
        Image.open(io.BytesIO(EPS)).load()
    assert ghostscript_log.exists()


@pytest.mark.parametrize("name", WRAPPED)
def test_a_file_inside_another_is_never_opened(name: str, ghostscript_log: Path) -> None:
    data = WRAPPED[name]
    for read in (read_header, decode):
        with pytest.raises(Unreadable) as caught:
            read(data)
        assert caught.value.reason == ImageError.UNSUPPORTED
        assert "no decoder for this format" in caught.value.detail
    with pytest.raises(PixelError):
        open_rgb(data)
    assert not ghostscript_log.exists()


def test_a_format_that_is_not_on_the_list_is_not_opened() -> None:
    for image_format in ("IM", "MSP", "SPIDER", "XBM"):
        data = encode(Image.new("1" if image_format in ("MSP", "XBM") else "F", (16, 16)), image_format)
        with pytest.raises(DECODER_ERRORS):
            open_file(data)
        with pytest.raises(Unreadable):
            decode(data)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "BMP", "JPEG2000", "PPM"])
def test_common_formats_are_opened_whatever_their_name(image_format: str) -> None:
    assert open_file(encode(quadrants(), image_format)).size == (64, 32)


@pytest.mark.parametrize("image_format", ["QOI", "SGI", "PCX", "TGA", "DDS"])
def test_formats_of_one_header_and_its_pixels_stay(image_format: str) -> None:
    assert image_format in FORMATS
    assert decode(encode(quadrants(), image_format)).header.format == image_format


def damaged_tiff() -> bytes:
    """Pillow warns of its tag of 300 channels."""
    tiff = encode(quadrants(), "TIFF")
    samples = tiff.index(struct.pack("<HHI", 277, 3, 1)) + 8
    return tiff[: samples - 4] + struct.pack("<IHH", 1 << 30, 300, 0) + tiff[samples + 4 :]


def test_warnings_of_pillow_do_not_reach_the_terminal() -> None:
    """In a process of its own: pytest shows what the filters of the product hide."""
    code = "import sys; from schemas.pixels import open_rgb; open_rgb(sys.stdin.buffer.read())"
    command = [sys.executable, "-W", "always", "-c", code]
    ran = subprocess.run(command, input=damaged_tiff(), capture_output=True, check=False)
    assert b"Warning" not in ran.stderr
    with pytest.warns(UserWarning, match="Tag data larger than file"), suppress(PixelError):
        open_rgb(damaged_tiff())


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
def test_nothing_that_a_library_says_reaches_the_terminal(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Pillow logs, and the C libraries behind it write to the terminal themselves."""
    tiff, rng = encode(quadrants(), "TIFF"), random.Random(3)
    samples = tiff.index(struct.pack("<HHI", 277, 3, 1)) + 8
    damaged = [tiff[:samples] + struct.pack("<H", 300) + tiff[samples + 2 :], damaged_tiff()]
    for image_format in ("TIFF", "AVIF", "JPEG", "JPEG2000", "WEBP", "PNG", "GIF"):
        options = [{"compression": each} for each in ("jpeg", "tiff_lzw", "zstd", "lzma", "tiff_adobe_deflate")]
        for option in options if image_format == "TIFF" else [{}]:
            whole = encode(quadrants(), image_format, **option)
            for _ in range(30):
                data = bytearray(whole)
                for _ in range(3):
                    data[rng.randrange(4, len(data))] = rng.randrange(256)
                damaged.append(bytes(data))
    for data in damaged:
        with suppress(Unreadable):
            decode(data, max_pixels=100_000)
        with suppress(PixelError):
            open_rgb(data, max_pixels=100_000)
    said = capfd.readouterr()
    assert (said.out, said.err, caplog.records) == ("", "", [])


def tga(alpha: int, attribute_bits: int, kind: int | None, **options: str) -> bytes:
    """A TGA of 32 bits whose fourth channel is one number; `kind` is the attributes type of its extension area."""
    image = Image.new("RGBA", (8, 8), (100, 50, 25, alpha))
    data = bytearray(encode(image, "TGA", **options)[:-26])
    data[17] = data[17] & 0xF0 | attribute_bits
    place = len(data) if kind is not None else 0
    area = struct.pack("<H", 495) + bytes(492) + bytes([kind]) if kind is not None else b""
    return bytes(data) + area + struct.pack("<II", place, 0) + b"TRUEVISION-XFILE.\0"


@pytest.mark.parametrize("options", [{}, {"compression": "tga_rle"}], ids=["plain", "run lengths"])
@pytest.mark.parametrize(
    ("attribute_bits", "kind", "counts"),
    [(8, None, True), (0, None, False), (8, 0, False), (8, 1, False), (8, 2, False), (8, 3, True), (0, 3, True)],
)
def test_a_fourth_channel_of_a_tga_is_alpha_where_the_file_says_so(
    attribute_bits: int, kind: int | None, counts: bool, options: dict[str, str]
) -> None:
    for alpha in (0, 128, 255):
        decoded = decode(tga(alpha, attribute_bits, kind, **options))
        white = 1 - alpha / 255 if counts else 0
        expected = [round(level + (255 - level) * white) for level in (100, 50, 25)]
        assert np.abs(np.subtract(decoded.image.getpixel((3, 3)), expected)).max() <= 1
        assert decoded.header.alpha == counts
        assert (decoded.alpha or 0) == pytest.approx(white)


def test_colours_of_a_tga_that_are_multiplied_by_alpha_are_divided() -> None:
    """100 of 128 is 199, half of which on white is 227."""
    assert np.abs(np.subtract(open_rgb(tga(128, 8, 4)).getpixel((3, 3)), (227, 177, 152))).max() <= 1


def test_the_fourth_channel_of_a_tga_of_15_bits_is_read_by_the_same_rule() -> None:
    head = bytes((0, 0, 2)) + bytes(9) + struct.pack("<HH", 4, 4) + bytes((16, 0))
    for pixel in (b"\x1f\x00", b"\x1f\x80"):
        assert open_rgb(head + pixel * 16).getpixel((1, 1)) == (0, 0, 255)
