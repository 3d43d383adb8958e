"""How the stored pixels of a file are to be seen: which way up, in which colours, and between which black and white.
Whoever reads a header and whoever decodes asks here, so that both agree."""

from __future__ import annotations

import math
import re
import struct
from contextlib import suppress
from typing import NamedTuple

from PIL import Image

from schemas.colour import Colour, colour_of
from schemas.metadata import Metadata, read_metadata
from schemas.reasons import ImageError
from schemas.slices import Sliced

_ORIENTATION, _EXIF_IFD, _COLOUR_SPACE, _INTEROPERABILITY_IFD = 0x0112, 0x8769, 0xA001, 0xA005
_BROKEN = (ArithmeticError, AttributeError, LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error)
"""Errors of Pillow about broken EXIF."""


class Levels(NamedTuple):
    """The stored numbers that are black and white, of a grey picture of more than 8 bits or of floats."""

    black: float
    white: float
    """Less than black where the file says that its least number is white."""


class Appearance(NamedTuple):
    """How to see the stored pixels."""

    size: tuple[int, int] = (0, 0)
    """(width, height) of the upright picture, px."""
    orientation: int = 1
    """1 to 8, as EXIF counts."""
    colour: Colour = Colour()
    channels: str = "RGB"
    """What the stored numbers are: RGB, GRAY, CMYK or LAB."""
    icc: bool = False
    """A colour profile is embedded."""
    levels: Levels = Levels(0, 65535)
    depth: int = 8
    """Bits per sample of a PNG, in which its transparent colour counts."""


def appearance_of(image: Image.Image, data: Sliced) -> Appearance:
    """How an opened picture that is not loaded yet is to be seen. Arguments are those of `read_metadata`. The
    orientation of a TIFF is set here: Pillow would otherwise turn it by rules of its own when it is loaded."""
    found = read_metadata(image, data)
    exif = _read_exif(image, found.exif)
    orientation = _orientation(exif, found.xmp)
    size = image.size
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        size = tags[256], tags[257]
        image.getexif()[_ORIENTATION] = orientation
    channels = _channels(image, found)
    colour = colour_of(image.format or "", found, channels, _is_adobe_rgb(image, exif))
    if image.format == "DDS" and str(getattr(image, "pixel_format", "")).startswith("BC6H"):
        colour = Colour(refusal=(ImageError.HDR, "its numbers are floats (BC6H), and it does not say which is white"))
    if image.format == "PSD" and not _has_picture_of_layers(image):
        detail = "it holds layers and no picture made of them; save it with maximized compatibility"
        colour = Colour(refusal=(ImageError.UNSUPPORTED, detail))
    upright, levels = upright_size(*size, orientation), _levels(image, found)
    return Appearance(upright, orientation, colour, channels, bool(found.icc), levels, found.depth or 8)


def _has_picture_of_layers(image: Image.Image) -> bool:
    """Whether a PSD says that the picture behind its layers is theirs (resource 1057, Version info); the picture is
    blank where they were saved alone."""
    resources = image.resources  # type: ignore[attr-defined]
    return next((value[4:5] for number, _, value in resources if number == 1057), b"") != b"\0"


def upright_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """(width, height) after the EXIF orientation is applied: 5 to 8 turn it on its side."""
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def _read_exif(image: Image.Image, block: bytes | None) -> Image.Exif | None:
    """EXIF of a block, or of the tags of a TIFF; what is broken of it is left out."""
    if image.format == "TIFF":
        try:
            return image.getexif()
        except _BROKEN:
            return image.getexif()  # what was read before it broke
    if not block:
        return None
    exif = Image.Exif()
    with suppress(*_BROKEN):
        exif.load(block)
    return exif


def _orientation(exif: Image.Exif | None, xmp: bytes | None) -> int:
    """EXIF's orientation; where EXIF has none, XMP's (Metadata Working Group, Guidelines 2.0, 5.5); else 1."""
    try:
        value = None if exif is None else exif.get(_ORIENTATION)
    except _BROKEN:
        value = None
    if value is None and xmp:
        value = _xmp_orientation(xmp)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _xmp_orientation(xmp: bytes) -> int | None:
    """The property `Orientation` of the namespace of TIFF, as an attribute or as an element."""
    text = xmp.replace(b"\0", b"")  # UTF-16 and UTF-32, read as their ASCII
    prefixes = {b"tiff", *re.findall(rb"xmlns:([\w.-]+)\s*=\s*[\"']http://ns\.adobe\.com/tiff/1\.0/[\"']", text)}
    for match in _XMP_ORIENTATION.finditer(text):
        prefix = _NAME_AT_END.search(text[max(0, match.start() - 99) : match.start()])
        if prefix and prefix[0] in prefixes:
            return int(match[1])
    return None


_XMP_ORIENTATION = re.compile(rb":Orientation\s*(?:=\s*[\"']|>)\s*([1-8])\s*[<\"']")
"""The property behind any prefix, looked at afterwards: a pattern that begins with names is slow in long words."""
_NAME_AT_END = re.compile(rb"[\w.-]+\Z")


def _is_adobe_rgb(image: Image.Image, exif: Image.Exif | None) -> bool:
    """Whether a camera says in EXIF that the picture is in the optional colour space of DCF 2.0."""
    if exif is None or image.format not in ("JPEG", "MPO", "TIFF"):
        return False  # in other formats EXIF is a remnant of another file
    try:
        space = exif.get_ifd(_EXIF_IFD).get(_COLOUR_SPACE)
        index = str(exif.get_ifd(_INTEROPERABILITY_IFD).get(1, "")).strip("\0 ")
    except _BROKEN:
        return False
    return space == 2 or (space == 0xFFFF and index == "R03")


def _channels(image: Image.Image, found: Metadata) -> str:
    mode = image.mode
    if image.format == "GIF":
        return "RGB"  # Pillow takes a palette of greys for none
    if image.format == "JPEG2000" and mode == "RGBA" and found.icc and found.icc[16:20] == b"CMYK":
        return "CMYK"  # Pillow takes four channels for colour and alpha
    if found.grey or mode in ("1", "L", "LA", "La", "I", "F") or mode.startswith("I;16"):
        return "GRAY"
    return mode if mode in ("CMYK", "LAB") else "RGB"


def _levels(image: Image.Image, found: Metadata) -> Levels:
    """Black and white by the format, or as its metadata says; never by the numbers themselves. Floats are 0 to 1 (times
    the scale of a PFM), integers the whole range of their type, as TIFF 6.0 (section 19) has it for a file without
    SMinSampleValue and SMaxSampleValue."""
    if image.format == "PPM" and image.mode == "F":
        return Levels(0, 1 / image.info.get("scale", 1.0))
    if image.format != "TIFF":
        narrow = bool(found.cicp and found.cicp.narrow)
        return Levels(16 << 8, 235 << 8) if narrow else Levels(0, 65535)
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits, kind = int(_first(tags.get(258), 1)), _first(tags.get(339), 1)
    if kind == 3:
        black, white = 0.0, 1.0
    elif kind == 2:
        black, white = -float(2 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    else:
        black, white = 0.0, 2.0**bits - 1
    low, high = _first(tags.get(340), black), _first(tags.get(341), white)
    if math.isfinite(low) and math.isfinite(high) and low < high:
        black, white = low, high
    is_inverted = tags.get(262) == 0
    return Levels(white, black) if is_inverted else Levels(black, white)


def _first(value: object, default: float) -> float:
    """The first number of a tag, or the default where it is missing or no number."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    try:
        return default if value is None else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return default
