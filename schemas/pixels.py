"""The one meaning of a sample's pixels: upright, sRGB, 8 bit, RGB, transparency on white. Originals are stored
untouched, so curation, captioning and training must turn the same bytes into the same picture. This module does it for
all of them; curation decides which pictures are refused."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer
from numpy.typing import NDArray
from PIL import Image

from schemas.appearance import Appearance, Levels, appearance_of, upright_size
from schemas.colour import to_srgb
from schemas.limits import too_large
from schemas.opening import open_file
from schemas.reasons import ImageError, PixelError

MAX_PIXELS = 300_000_000
"""Largest picture that is decoded, in pixels; a 17k x 17k scan passes, a decompression bomb does not."""

DECODER_ERRORS = (
    OSError,  # truncated, unidentified, errors of the C decoders
    SyntaxError,  # a broken header
    ValueError,
    EOFError,
    LookupError,  # a tag or table entry that is not there
    ArithmeticError,  # a header that divides by zero or overflows
    TypeError,  # a tag of another type than its meaning needs
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""Errors that Pillow raises for damaged bytes. Running out of memory is not among them."""


class RefusedPixels(PixelError):
    """The bytes hold a whole picture that has no way to 8-bit sRGB."""

    def __init__(self, reason: ImageError, detail: str) -> None:
        """`reason` is `hdr` or `unsupported`."""
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Picture:
    """A decoded picture."""

    rgb: Image.Image
    """Upright, sRGB, 8 bit, mode RGB, without metadata."""
    see_through: float | None
    """Share of the original that was transparent, 0 to 1 (1 - mean alpha); None where every pixel was opaque."""


def open_rgb(
    data: bytes, longest_px: int | None = None, cover_px: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode to an upright 8-bit sRGB picture. Arguments and errors are those of `open_picture`."""
    return open_picture(data, longest_px, cover_px, max_pixels).rgb


def open_picture(
    data: bytes, longest_px: int | None = None, cover_px: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Decode a file of a format of `schemas.opening.FORMATS` to an upright 8-bit sRGB picture, and say how much of it
    was transparent. `longest_px`: shrink so that the longest side is at most this; never enlarges. `cover_px`: (height,
    width) that the result may shrink towards but still covers, a hint for the decoder, which halves a JPEG.
    `max_pixels`: refuse a larger picture by its header, before any memory is taken. Raises PixelError: not an image,
    cut short, too large, or without a way to sRGB."""
    try:
        image = open_limited(data, max_pixels)
        seen = appearance_of(image, data)
        draft(image, longest_px, cover_px, seen.orientation)
        image.load()
        return render(image, seen, longest_px)
    except PixelError:
        raise
    except DECODER_ERRORS as error:
        raise PixelError(describe(error)) from error


def clean(message: str) -> str:
    """An error message that is the same on every run: no memory address, one line, at most 200 characters."""
    message = re.sub(r"<[^<>]* object at 0x[0-9a-fA-F]+>", "the file", message)
    return " ".join(message.split())[:200]


def describe(error: BaseException) -> str:
    """A decoder's error as a detail."""
    return clean(str(error)) or type(error).__name__


def open_limited(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """`schemas.opening.open_file` of a picture that is not too large to be decoded. Raises PixelError: it is; and its
    own."""
    image = open_file(data)
    if image.width * image.height > max_pixels:
        raise PixelError(f"{image.width}x{image.height} px is over the limit of {max_pixels} px")
    if (large := too_large(image, data, image.size, max_pixels)) is not None:
        raise PixelError(large)
    return image


def draft(
    image: Image.Image, longest_px: int | None, cover_px: tuple[int, int] | None = None, orientation: int = 1
) -> None:
    """Ask a JPEG decoder to scale by 1/2, 1/4 or 1/8 while decoding, never below the size that is needed."""
    if image.format not in ("JPEG", "MPO"):
        return
    if longest_px is not None:
        image.draft(None, shrunk_size(image.size, longest_px))
    elif cover_px is not None:
        height, width = cover_px
        image.draft(None, upright_size(width, height, orientation))  # the picture as it is stored


def shrunk_size(size: tuple[int, int], longest_px: int) -> tuple[int, int]:
    """(width, height) scaled so that the longest side is `longest_px`, or the size itself where it is smaller."""
    longest = max(size)
    if longest <= longest_px:
        return size
    width, height = (max(1, round(side * longest_px / longest)) for side in size)
    return width, height


def render(image: Image.Image, seen: Appearance, longest_px: int | None = None) -> Picture:
    """A loaded picture of any mode as upright 8-bit sRGB RGB, and the share of it that was transparent. The order
    matters: the colour space describes the stored channels, so it is applied before the mode changes; transparency is
    laid on white before shrinking mixes neighbours; the orientation comes last, on the fewest pixels, and leaves no tag
    behind. Raises RefusedPixels: there is no way to 8-bit sRGB."""
    if seen.colour.refusal is not None:
        raise RefusedPixels(*seen.colour.refusal)
    original = image
    if image.mode == "YCbCr":
        image = image.convert("RGB")
    if image.mode == "RGBA" and seen.channels == "CMYK":
        image = Image.merge("CMYK", image.split())
    colours, alpha = _split_alpha(image, seen)
    if colours.mode == "L" and seen.channels == "RGB":
        colours = colours.convert("RGB")
    if colours.mode in ("I", "F") or colours.mode.startswith("I;16"):
        colours = _between(colours, seen.levels)
        if seen.colour.profile is None:
            colours = Image.fromarray(_HIGH_BYTE[np.asarray(colours)])
    if alpha is None and colours.mode not in ("I;16", "LAB"):
        colours = _shrunk(colours, longest_px)
    rgb = to_srgb(colours, seen.colour, seen.channels)
    if rgb.mode == "I;16":  # no profile could be applied after all
        rgb = Image.fromarray(_HIGH_BYTE[np.asarray(rgb)])
    rgb = rgb if rgb.mode == "RGB" else rgb.convert("RGB")
    if alpha is not None:
        white = Image.new("RGB", rgb.size, (255, 255, 255))
        white.paste(rgb, mask=alpha)
        rgb = white
    rgb = _shrunk(rgb, longest_px)
    transpose = None if original.format == "TIFF" else _TRANSPOSE.get(seen.orientation)  # Pillow has turned a TIFF
    rgb = rgb.copy() if rgb is original else rgb
    rgb = rgb if transpose is None else rgb.transpose(transpose)
    rgb.info.clear()
    return Picture(rgb, None if alpha is None else _share_hidden(alpha))


LANCZOS = ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.lanczos3), use_alpha=False)
"""For `Resizer.resize_pil`."""


def _shrunk(image: Image.Image, longest_px: int | None) -> Image.Image:
    """Shrunk by Lanczos: Pillow's own to a rounding, in an eighth of its time, and alike on every CPU."""
    if longest_px is None or max(image.size) <= longest_px:
        return image
    if image.mode not in ("L", "RGB", "CMYK"):  # bits, Lab and the like do not mix as they are
        image = image.convert("RGB")
    small = Image.new(image.mode, shrunk_size(image.size, longest_px), None)
    Resizer().resize_pil(image, small, LANCZOS)
    return small


_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation (TIFF 6.0 tag 0x0112) -> the turn that makes it upright."""


def has_alpha(image: Image.Image) -> bool:
    """Whether the header allows transparent pixels."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _split_alpha(image: Image.Image, seen: Appearance) -> tuple[Image.Image, Image.Image | None]:
    """Colours without alpha, and the alpha channel; None where every pixel is opaque."""
    key = image.info.get("transparency")
    frame = getattr(image, "dispose_extent", None)
    if frame not in (None, (0, 0, *image.size)):  # of a GIF, whose canvas is transparent around its frame
        inside = Image.new("L", image.size, 0)
        inside.paste(image.convert("RGBA").getchannel("A").crop(frame), frame)
        image = image.convert("RGB")
        image.putalpha(inside)
    if not has_alpha(image):
        return (image.convert("RGB") if image.mode in ("P", "PA") else image), None
    if image.mode in ("L", "I;16") and isinstance(key, int):
        alpha = _without(image, key, seen.depth)
        colours = image
    else:
        if image.mode == "RGB" and isinstance(key, tuple) and seen.depth == 16:
            image.info["transparency"] = tuple(level >> 8 for level in key)  # all that Pillow keeps of 16 bits
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        alpha = rgba.getchannel("A")
        colours = rgba.getchannel("R") if seen.channels == "GRAY" else rgba.convert("RGB")
    return colours, (None if alpha.getextrema() == (255, 255) else alpha)


def _without(image: Image.Image, key: int, depth: int) -> Image.Image:
    """The alpha channel of a grey picture, one stored number of which is transparent (PNG, 11.3.1.1)."""
    key &= (1 << depth) - 1
    level = key if depth in (8, 16) else key * 255 // ((1 << depth) - 1)
    return Image.fromarray(np.where(np.asarray(image) == level, 0, 255).astype(np.uint8))


def _share_hidden(alpha: Image.Image) -> float:
    opaque = sum(level * count for level, count in enumerate(alpha.histogram())) / 255
    return 1 - opaque / (alpha.width * alpha.height)


_HIGH_BYTE = ((np.arange(65536, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
"""0..65535 -> 0..255, rounded."""

_MOST_BEYOND = 0.01
"""Share of the pixels of a float picture that may be brighter than white or darker than black: highlights, noise."""


def _between(image: Image.Image, levels: Levels) -> Image.Image:
    """Grey of 16 or 32 bits, or of floats, as 16 bits between black and white; what is beyond them is clipped. Raises
    RefusedPixels: so much of a float picture is beyond them that they cannot be its black and white."""
    values = np.asarray(image)
    if values.dtype.kind == "u" and levels == (0, 65535):
        return Image.fromarray(values.astype(np.uint16))
    if max(levels) > 0x7FFFFFFF:
        values = values.view(np.uint32)  # Pillow keeps unsigned numbers of 32 bits as signed ones
    wide: NDArray[np.floating] = values.astype(np.float32 if values.dtype.kind == "f" else np.float64)
    with np.errstate(all="ignore"):  # infinite or not a number, in the file or here
        shares = (wide - levels.black) / (levels.white - levels.black)
    if values.dtype.kind == "f":
        beyond = float(np.mean((shares > 1.001) | (shares < -0.001)))
        if beyond > _MOST_BEYOND:
            raise RefusedPixels(
                ImageError.HDR,
                f"{beyond:.0%} of its floats are not between {min(levels):g} and {max(levels):g}, "
                "and it does not say which numbers are black and white",
            )
        shares = np.nan_to_num(shares, posinf=1.0, neginf=0.0)
    return Image.fromarray(np.rint(np.clip(shares, 0, 1) * 65535).astype(np.uint16))
