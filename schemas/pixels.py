"""The one meaning of a sample's pixels: upright, sRGB, 8 bit, RGB, transparency on white.

Originals are stored untouched, so curation, captioning and training must turn the same bytes into the same picture.
This module does it for all of them; curation decides which pictures are refused.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import cast

import numpy as np
from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image, ImageCms

from schemas.opening import open_file

# A warning about odd metadata does not concern the pixels. Set once: `catch_warnings` is not safe with threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

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


class PixelError(ValueError):
    """The bytes do not hold one whole picture."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture."""

    rgb: Image.Image
    """Upright, sRGB, 8 bit, mode RGB, without metadata."""
    see_through: float | None
    """Share of the original that was transparent, 0 to 1 (1 - mean alpha); None where every pixel was opaque."""


def open_rgb(
    data: bytes,
    longest_px: int | None = None,
    cover_px: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Decode to an upright 8-bit sRGB picture. Arguments and errors are those of `open_picture`."""
    return open_picture(data, longest_px, cover_px, max_pixels).rgb


def open_picture(
    data: bytes,
    longest_px: int | None = None,
    cover_px: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Picture:
    """Decode to an upright 8-bit sRGB picture, and say how much of it was transparent.

    Args:
        data: the bytes of an image file of a format of `schemas.opening.FORMATS`.
        longest_px: shrink so that the longest side is at most this; never enlarges.
        cover_px: (height, width) that the result may shrink towards but still covers; only a hint for
            the decoder (JPEG halves, quarters or eighths while decoding), no exact size.
        max_pixels: refuse a larger picture from its header, before any memory is taken.

    Raises:
        PixelError: not an image, cut short, or too large.
    """
    try:
        image = open_file(data)
        if image.width * image.height > max_pixels:
            raise PixelError(f"{image.width}x{image.height} px is over the limit of {max_pixels} px")
        draft(image, longest_px, cover_px)
        image.load()
        return render(image, longest_px)
    except PixelError:
        raise
    except DECODER_ERRORS as error:
        raise PixelError(str(error) or type(error).__name__) from error


def draft(image: Image.Image, longest_px: int | None, cover_px: tuple[int, int] | None) -> None:
    """Ask a JPEG decoder to scale by 1/2, 1/4 or 1/8 while decoding, never below the size that is needed."""
    if image.format not in ("JPEG", "MPO"):
        return
    if longest_px is not None:
        image.draft(None, shrunk_size(image.size, longest_px))
    elif cover_px is not None:
        height, width = cover_px
        image.draft(None, upright_size(width, height, exif_orientation(image)))  # the picture as it is stored


def shrunk_size(size: tuple[int, int], longest_px: int) -> tuple[int, int]:
    """(width, height) scaled so that the longest side is `longest_px`, or the size itself where it is smaller."""
    longest = max(size)
    if longest <= longest_px:
        return size
    width, height = (max(1, round(side * longest_px / longest)) for side in size)
    return width, height


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded picture of any mode as upright 8-bit sRGB RGB."""
    return render(image).rgb


def render(image: Image.Image, longest_px: int | None = None) -> Picture:
    """A loaded picture of any mode as upright 8-bit sRGB RGB, and the share of it that was transparent.

    Order matters: the colour profile describes the stored channels, so it is applied before the mode changes;
    transparency is laid on white before neighbours are mixed by shrinking; the EXIF orientation is applied last,
    to the fewest pixels, and leaves no tag behind.
    """
    profile = image.info.get("icc_profile")
    orientation = exif_orientation(image)
    if image.mode == "YCbCr":
        image = image.convert("RGB")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_8_bit(image)
        profile = None  # a profile of 16-bit grey is a tone curve that Pillow cannot apply
    colours, alpha, see_through = _split_alpha(image)
    if alpha is None:
        colours = _shrunk(colours, longest_px)
    rgb = _to_srgb(colours, profile) if profile else colours
    rgb = rgb if rgb.mode == "RGB" else rgb.convert("RGB")
    if alpha is not None:
        white = Image.new("RGB", rgb.size, (255, 255, 255))
        white.paste(rgb, mask=alpha)
        rgb = _shrunk(white, longest_px)
    transpose = _TRANSPOSE.get(orientation)
    rgb = rgb.copy() if rgb is image else rgb
    rgb = rgb if transpose is None else rgb.transpose(transpose)
    rgb.info.clear()
    return Picture(rgb, see_through)


LANCZOS = ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.lanczos3), use_alpha=False)
"""For `Resizer.resize_pil`."""


def _shrunk(image: Image.Image, longest_px: int | None) -> Image.Image:
    """Shrunk by Lanczos: Pillow's own to a rounding, in an eighth of its time, and alike on every CPU."""
    if longest_px is None or max(image.size) <= longest_px:
        return image
    if image.mode not in ("L", "RGB", "CMYK"):  # bits, Lab and the like do not mix as they are
        image = image.convert("RGB")
    small = Image.new(image.mode, shrunk_size(image.size, longest_px))
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


def exif_orientation(image: Image.Image) -> int:
    """The EXIF orientation still to be applied, 1 to 8; 1 where there is none or the EXIF block is broken.

    A TIFF has its orientation until it is loaded; Pillow then applies it and removes the tag.
    """
    try:
        value = image.getexif().get(0x0112, 1)
    except DECODER_ERRORS:  # broken metadata around a good picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """(width, height) after the EXIF orientation is applied: 5 to 8 turn it on its side."""
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def has_alpha(image: Image.Image) -> bool:
    """Whether the header allows transparent pixels."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None, float | None]:
    """Colours without alpha, the alpha channel where it hides anything, and the share it hides."""
    if not has_alpha(image):
        return (image.convert("RGB") if image.mode in ("P", "PA") else image), None, None
    grey = image.mode in ("LA", "La", "L")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    alpha = rgba.getchannel("A")
    colours = rgba.getchannel("R") if grey else rgba.convert("RGB")
    if alpha.getextrema() == (255, 255):
        return colours, None, None
    opaque = sum(level * count for level, count in enumerate(alpha.histogram())) / 255
    return colours, alpha, 1 - opaque / (alpha.width * alpha.height)


_HIGH_BYTE = ((np.arange(65536, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
"""0..65535 -> 0..255, rounded."""


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit and 32-bit grey as 8-bit grey: 0..65535 -> 0..255; floats are taken as 0..1 where they fit it."""
    values = np.asarray(image)
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, posinf=1.0)
        scale = 255.0 if float(values.max(initial=0.0)) <= 1.0 else 1.0
        return Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))
    return Image.fromarray(_HIGH_BYTE[np.clip(values, 0, 65535).astype(np.uint16)])


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Apply an embedded ICC profile; a profile that is broken or of other channels is as good as none."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space) != image.mode:
            return image
        target = ImageCms.createProfile("sRGB")
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        converted = ImageCms.profileToProfile(image, source, target, renderingIntent=intent, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return cast(Image.Image, converted)
