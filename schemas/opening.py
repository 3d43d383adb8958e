"""Opens the bytes of a picture: its format is read from them, and is on a closed list. Pillow knows formats that hold a
file of any other format, or a program: it would decode a picture whose size nobody has checked, or start Ghostscript.
Whoever opens a picture opens it here."""

from __future__ import annotations

import ctypes
import io
import logging
import warnings
from contextlib import suppress
from functools import lru_cache
from typing import IO, cast

from PIL import Image, ImageFile, ImagePalette, TiffImagePlugin

from schemas import png, tiff
from schemas.parts import SCANS, check_parts
from schemas.slices import Sliced

Image.MAX_IMAGE_PIXELS = None  # the limit is ours, checked from the header: see `schemas.pixels.open_picture`

# What libraries say about a file does not reach the terminal: the reason is on the row. Set once, and not around each
# picture: `catch_warnings` is not safe with threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)
with suppress(OSError, AttributeError):
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "BMP", "HEIF", "JXL", "JPEG2000"),
    *("PPM", "PSD", "QOI", "DDS", "SGI", "SUN", "PCX", "TGA"),  # TGA has no signature, so it is tried last
)
"""The formats that are opened, by Pillow's names, frequent ones first. Each holds the pixels of its own header, and no
other file. A phone's MPO is opened as JPEG."""


@lru_cache(maxsize=1)
def picture_formats() -> tuple[str, ...]:
    """The formats of `FORMATS` that this installation decodes."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_file(data: Sliced, formats: tuple[str, ...] | None = None, *, header_only: bool = False) -> Image.Image:
    """Pillow's view of a file whose header is read; of a TIFF, of its first page. It is not decoded yet. What is left
    out of the metadata of a PNG (`schemas.png.tidy`) is counted in `info[LEFT_OUT]`, the scans of a JPEG with more
    than `USUAL_SCANS` in `info[SCANS]`. `data`: the whole file; one that is read lazily must also be a file. `formats`:
    those of `FORMATS` that it may have; None allows all. `header_only`: the picture will not be loaded. Raises errors
    of `schemas.pixels.DECODER_ERRORS`: the bytes are none of these formats, or their header is damaged."""
    num_scans = check_parts(data).get(SCANS, 0)
    num_left_out = 0
    if data.startswith(png.SIGNATURE):
        data, num_left_out = png.tidy(data, header_only=header_only)
    file = io.BytesIO(data) if isinstance(data, bytes) else cast(IO[bytes], data)
    image = Image.open(file, formats=picture_formats() if formats is None else formats)
    if num_left_out:
        image.info[LEFT_OUT] = num_left_out
    if num_scans:
        image.info[SCANS] = num_scans
    if image.format == "TIFF":
        if page := tiff.first_page(data):
            image.seek(page)
        _read_natively(image)
    if image.format == "TGA" and image.tile:
        _read_alpha_by_its_kind(image, data)
    if image.format == "PSD" and image.mode == "RGBA":
        _read_transparency_alone(image, data)
    return image


def _read_natively(image: Image.Image) -> None:
    """Have Pillow read what libtiff gives, numbers in the order of this machine, as such: it swaps signed numbers and
    floats of a compressed big-endian TIFF once more. It takes planes of 16 bits for planes of 8, so libtiff reads them.
    """
    file = cast(TiffImagePlugin.TiffImageFile, image)
    tags = file.tag_v2
    colours = tags.get(320, (256,))
    if file.palette and max(colours) < 256:  # old writers give 8 of the 16 bits, as libtiff knows
        file.palette = ImagePalette.raw("RGB;L", bytes(colours))
    planes = tags.get(284) == 2 and max(tags.get(258, (8,))) > 8 and not file.use_load_libtiff
    if planes and tags.get(338, (2,)) == (2,) and file.mode in ("RGB", "RGBA", "CMYK"):
        file.use_load_libtiff = True
        file.tile = [
            ImageFile._Tile("libtiff", (0, 0, tags[256], tags[257]), 0, (f"{file.mode};16N", False, tags.offset))
        ]
    elif planes:
        raise SyntaxError("unknown planes of more than 8 bits")
    for number, tile in enumerate(file.tile):
        if tile.codec_name == "libtiff" and isinstance(tile.args, tuple):
            raw_mode, *others = tile.args
            file.tile[number] = tile._replace(args=(_NATIVE.get(str(raw_mode), raw_mode), *others))


_NATIVE = {"I;16BS": "I;16NS", "I;32B": "I;32N", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
"""Pillow's raw modes of big-endian numbers -> those of numbers in the order of this machine."""

_BIG_ENDIAN = TiffImagePlugin.MM
TiffImagePlugin.OPEN_INFO |= {
    # grey that Pillow has in the other byte order only
    (_BIG_ENDIAN, 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
    (_BIG_ENDIAN, 1, (1,), 1, (32,), ()): ("I", "I;32B"),
    # grey of signed bytes, which Pillow takes for unsigned ones
    (TiffImagePlugin.II, 1, (2,), 1, (8,), ()): ("I", "I;8S"),
    (_BIG_ENDIAN, 1, (2,), 1, (8,), ()): ("I", "I;8S"),
}


def _read_alpha_by_its_kind(image: Image.Image, data: Sliced) -> None:
    """Have Pillow read a fourth channel of a TGA as what the file calls it (Truevision TGA 2.0, fields 5.6 and 24):
    writers leave bytes empty that are no alpha. The extension area decides, else the bits of the image descriptor."""
    tile = image.tile[0]  # type: ignore[attr-defined]
    raw_mode, *others = tile.args
    footer = data[max(0, len(data) - 26) : len(data)]
    place = int.from_bytes(footer[:4], "little") if footer.endswith(b"TRUEVISION-XFILE.\0") else 0
    kind = data[place + 494 : place + 495] if place else b""
    has_alpha = kind[0] in (3, _MULTIPLIED) if kind else data[17:18][0] & 15
    if raw_mode not in _WITHOUT_ALPHA or (has_alpha and kind != bytes((_MULTIPLIED,))):
        return
    if has_alpha:
        raw_mode = "BGRa" if raw_mode == "BGRA" else raw_mode
    else:
        image._mode, raw_mode = "RGB", _WITHOUT_ALPHA[raw_mode]
    image.tile = [tile._replace(args=(raw_mode, *others))]  # type: ignore[attr-defined]


def _read_transparency_alone(image: Image.Image, data: Sliced) -> None:
    """Have Pillow pass over a fourth channel of a PSD that is none of transparency, such as a saved selection: the
    number of layers is below zero where it is (Adobe Photoshop File Formats Specification, Layer info)."""
    place = image._layers_position  # type: ignore[attr-defined]
    if place is None or data[place : place + 1] < b"\x80":
        image._mode = "RGB"
        image.tile = [tile for tile in image.tile if tile.args[0] != "A"]  # type: ignore[attr-defined]


_MULTIPLIED = 4
"""The kind of alpha by which the colours are multiplied already."""
_WITHOUT_ALPHA = {"BGRA": "BGRX", "BGRA;15Z": "BGR;15"}
"""Pillow's raw modes of TGA -> those that pass over their last channel."""


LEFT_OUT = "metadata left out"
"""Key of Pillow's `info`: chunks of metadata that cannot be used."""
