"""Opens the bytes of a picture: its format is read from them, and is on a closed list.

Pillow knows formats that hold a file of any other format, or a program: it would decode a picture whose size nobody
has checked, or start Ghostscript. Whoever opens a picture opens it here.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import IO

from PIL import Image

Image.MAX_IMAGE_PIXELS = None  # the limit is ours, checked from the header: see `schemas.pixels.open_picture`

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


def open_file(data: bytes | IO[bytes], formats: tuple[str, ...] | None = None) -> Image.Image:
    """Pillow's view of a file whose header is read; it is not decoded yet.

    Args:
        formats: names of `FORMATS` that the file may have; None allows all that can be decoded.

    Raises:
        Errors of `schemas.pixels.DECODER_ERRORS`: the bytes are none of these formats, or their header is damaged.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    return Image.open(file, formats=picture_formats() if formats is None else formats)
