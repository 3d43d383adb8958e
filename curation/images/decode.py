"""Bytes to an upright 8-bit sRGB picture, or the reason why they are not one."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from curation.images.formats import cut_short
from curation.images.header import Header, Unreadable, clean, probe, refuse_animated
from curation.images.jpeg_blocks import has_flat_corner, missing_blocks
from curation.images.jpeg_scan import missing_scans
from curation.images.png_rows import missing_rows
from schemas.pixels import MAX_PIXELS, PixelError, open_picture
from schemas.reasons import ImageError

_ENDS_EARLY = (
    "truncated",
    "not enough image data",
    "unexpected end",
    "premature",
    "ended before",
    "ends before",
    "no more data",
)
"""What decoders say of data that stops too early."""


@dataclass(frozen=True)
class Decoded:
    """A picture and what its header said."""

    image: Image.Image
    """RGB, upright, sRGB, 8 bit, shrunk where it was asked for."""
    header: Header
    alpha: float | None
    """Share of the original that is see-through, 0 to 1, measured before shrinking; None where all is opaque."""


def decode(data: bytes, *, longest_px: int | None = None, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode one still picture.

    Args:
        data: the whole file.
        longest_px: shrink so that the longest side is at most this; JPEG is scaled while it is decoded.
        max_pixels: refuse a larger picture from its header, before any memory is taken.

    Raises:
        Unreadable: with a reason of `schemas.reasons.ImageError` and a detail that names no path and no address;
            carries the header where that could be read.
    """
    header = probe(data, max_pixels)
    refuse_animated(header)
    try:
        picture = open_picture(data, longest_px=longest_px, max_pixels=max_pixels, whole=True)
    except PixelError as error:
        raise _refused(data, header, clean(str(error))) from error
    cut = missing_scans(data) if header.format in ("JPEG", "MPO") else cut_short(data, header.format)
    if cut is None and header.format == "PNG":
        cut = missing_rows(data)
    if cut is None and header.mode == "CMYK" and has_flat_corner(picture.rgb):
        cut = missing_blocks(data)  # inks that are subsampled are beyond the strict decoder
    if cut is not None:  # the decoder was content, but the file is not whole
        raise Unreadable(ImageError.TRUNCATED, f"{header.format}: {cut}", header)
    return Decoded(picture.rgb, header, picture.see_through)


def _refused(data: bytes, header: Header, message: str) -> Unreadable:
    cut = cut_short(data, header.format)
    early = any(word in message.lower() for word in _ENDS_EARLY)
    reason = ImageError.TRUNCATED if cut is not None or early else ImageError.CORRUPT
    return Unreadable(reason, f"{header.format}: {message}", header)
