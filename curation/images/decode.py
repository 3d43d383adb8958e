"""Bytes to an upright 8-bit sRGB picture, or the reason why they are not one."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from dataclasses import dataclass

from PIL import Image

from curation.images.header import Header, Unreadable, open_image, refuse_animated, why_refused
from curation.images.whole import mark_last_row, missing_part
from curation.images.whole_jpeg import decode_whole
from schemas.pixels import DECODER_ERRORS, MAX_PIXELS, RefusedPixels, describe, draft, render
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
"""Words of decoders' errors about data that stops too early."""


@dataclass(frozen=True)
class Decoded:
    image: Image.Image
    """RGB, upright, sRGB, 8 bit, shrunk to `longest_px`."""
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
    image, header = open_image(data, max_pixels)
    refuse_animated(header)
    try:
        draft(image, longest_px, None)
        checked = decode_whole(image, data) if header.format in ("JPEG", "MPO") else None
        if checked is None:
            if header.format == "PNG":
                mark_last_row(image)
            image.load()
        loaded = checked or image
        picture = render(loaded, header.appearance, longest_px)
    except RefusedPixels as refused:
        raise Unreadable(refused.reason, f"{header.format}: {refused}", header) from refused
    except DECODER_ERRORS as error:
        raise _refused(data, header, describe(error)) from error
    missing = missing_part(data, header.format, loaded, checked is not None)
    if missing is not None:  # the decoder took the file, but it is not whole
        raise Unreadable(ImageError.TRUNCATED, f"{header.format}: {missing}", header)
    return Decoded(picture.rgb, header, picture.see_through)


def keep_freed_memory() -> None:
    """Have the C library keep the memory that one picture has freed for the next one, in this process from now on. It
    gives large pieces back to the system at once otherwise, and clearing fresh pages for each picture takes longer than
    encoding its proxy. No more than `_KEPT_BYTES` are kept for each thread. Other C libraries than glibc are left as
    they are."""
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        for parameter in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            library.mallopt(parameter, _KEPT_BYTES)


_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Parameters of glibc's mallopt: from which size on memory comes from the system, and how much of it is kept."""
_KEPT_BYTES = 32 << 20


def _refused(data: bytes, header: Header, message: str) -> Unreadable:
    reason, flavour = why_refused(data, header.format)
    if any(word in message.lower() for word in _ENDS_EARLY):
        reason = ImageError.TRUNCATED
    detail = flavour if reason == ImageError.UNSUPPORTED else message
    return Unreadable(reason, f"{header.format}: {detail}", header)
