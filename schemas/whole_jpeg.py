"""Decode a JPEG that has to be whole: what libjpeg only warns of, and Pillow drops, is an error here.

Some tools put an end marker behind half a JPEG. libjpeg fills the rest, with flat blocks or with coarser ones where
the file is progressive, and gives a warning. `simplejpeg` is the same libjpeg-turbo and gives the same pixels, but says
what was warned of.
"""

from __future__ import annotations

import simplejpeg
from PIL import Image

_LAYOUTS = {"RGB": ("RGB", "RGB"), "L": ("GRAY", "L"), "CMYK": ("CMYK", "CMYK;I")}
"""Pillow's mode -> the decoder's colour space, and how Pillow reads its rows: it stores the ink of CMYK inverted."""

_ENDINGS = {
    "premature end of data segment": "its data ends before its last block",
    "premature end of jpeg file": "the file ends before its end marker",
}
"""What libjpeg says of data that ends early -> what is missing."""


class EndsEarly(ValueError):
    """The data of a JPEG ends before its picture is whole."""


def decode_whole(image: Image.Image, data: bytes) -> Image.Image | None:
    """The pixels of an opened JPEG, of which nothing is filled in.

    Args:
        image: opened from `data` and not loaded; its size after `draft` is the size that comes out.
        data: the whole file.

    Returns:
        A loaded picture with the metadata of `image`. None where the decoder objects to anything but a missing end:
        bytes between two segments do no harm, and what does is for Pillow to refuse.

    Raises:
        EndsEarly: says what is missing.
    """
    if image.mode not in _LAYOUTS:
        return None
    colours, raw_mode = _LAYOUTS[image.mode]
    try:
        pixels = simplejpeg.decode_jpeg(data, colours, min_width=image.width, min_height=image.height)
    except ValueError as objection:
        what = next((what for words, what in _ENDINGS.items() if words in str(objection).lower()), None)
        if what is not None:
            raise EndsEarly(what) from None
        return None
    if pixels.shape[:2] != (image.height, image.width):
        return None
    whole = Image.frombuffer(image.mode, image.size, pixels, "raw", raw_mode, 0, 1)
    whole.info = dict(image.info)
    return whole
