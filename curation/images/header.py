"""Format, size and orientation of an image from its header, or the reason why the bytes are no image."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, fields
from typing import Any

from PIL import Image, UnidentifiedImageError

from curation.images import formats
from curation.images.flavours import camera_raw, lacking
from curation.images.lazy_bytes import FIRST_BYTES, LazyBytes
from curation.images.whole import cut_short
from schemas import tiff
from schemas.appearance import Appearance, appearance_of
from schemas.limits import too_large
from schemas.opening import LEFT_OUT, open_file, picture_formats
from schemas.parts import TooManyParts
from schemas.pixels import DECODER_ERRORS, MAX_PIXELS, describe, has_alpha
from schemas.reasons import FetchError, ImageError

NOT_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow names but that hold no raster picture: their extensions name no input."""

STILL = frozenset({"MPO", "PSD", "HEIF"})
"""Formats whose further frames are no animation: a phone's second picture or depth map, layers, burst shots."""

PLUGINS = {"HEIF": "pillow-heif", "JXL": "pillow-jxl-plugin", "AVIF": "pillow>=11.3"}
"""Format -> the package with which Pillow reads it."""


@dataclass(frozen=True)
class Header:
    format: str
    """Pillow's name: JPEG, MPO, PNG, WEBP, ..."""
    mode: str
    """Pillow's mode of the stored picture."""
    width: int
    """px, upright."""
    height: int
    """px, upright."""
    exif_orientation: int
    """1 to 8, from EXIF or else XMP; 1 where there is none."""
    frames: int
    """Pictures in the file: frames of an animation, pages of a TIFF, views of an MPO."""
    icc: bool
    """A colour profile is embedded."""
    colour: str | None
    """What describes the colours, as in `images.colour`."""
    alpha: bool
    """Transparent pixels are possible."""
    metadata_left_out: int = 0
    """Chunks of metadata that cannot be used."""
    appearance: Appearance = field(default=Appearance(), compare=False, repr=False)
    """How to see the stored pixels."""

    @property
    def animated(self) -> bool:
        """More than one picture, and not of a format where only the first counts."""
        return self.frames > 1 and self.format not in STILL

    def columns(self) -> dict[str, Any]:
        """The columns of `headers` and `images` that a header fills, in their order."""
        return {name: getattr(self, name) for name in _COLUMNS}


_COLUMNS = tuple(each.name for each in fields(Header) if each.name not in ("alpha", "appearance"))


class Unreadable(Exception):
    """The bytes give no picture; a row with this reason, never a crash."""

    def __init__(self, reason: ImageError | FetchError, detail: str, header: Header | None = None) -> None:
        """`header` is None where it could not be read."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.header = header


def read_header(data: bytes | LazyBytes, max_pixels: int = MAX_PIXELS) -> Header:
    """Read the header; no pixel is decoded and no memory taken for any. Arguments and errors are `open_image`'s."""
    return open_image(data, max_pixels)[1]


def open_image(data: bytes | LazyBytes, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, Header]:
    """Open an image and read its header; it can then be loaded.

    Args:
        data: the whole file. One that is read lazily gives the same header from a few KiB (GIF, AVIF and HEIF, whose
            frames and tags may be anywhere, are read whole); EXIF and XMP of a PNG behind its pixels are only found in
            the last `schemas.metadata.LATE_BYTES`. See `LazyBytes.failed`.
        max_pixels: a larger picture is refused.

    Raises:
        Unreadable: empty, not_an_image, unsupported, truncated (the header itself is cut), corrupt,
            too_many_pixels, hdr.
    """
    if not len(data):
        raise Unreadable(ImageError.EMPTY, "zero bytes")
    kind = formats.sniff(data)
    if kind is not None and not kind.is_image:
        raise Unreadable(ImageError.NOT_AN_IMAGE, f"the file holds {kind.name}")
    known = picture_formats()
    if kind is not None and kind.name not in known:
        raise Unreadable(ImageError.UNSUPPORTED, _no_decoder(kind.name))
    if kind is not None and kind.name == "TIFF" and (raw := camera_raw(data)) is not None:
        raise Unreadable(ImageError.UNSUPPORTED, _no_decoder(raw))
    try:
        decoders = known if kind is None else (kind.name,)
        image = _opened(data, kind, decoders)
        header = header_of(image, data)
        if header.format == "GIF" and image.tell():  # counting its frames broke off behind the first one
            image = _opened(data, kind, decoders)
    except DECODER_ERRORS as error:
        raise _not_opened(data, kind, error) from error
    if (large := too_large(image, data, (header.width, header.height), max_pixels)) is not None:
        raise Unreadable(ImageError.TOO_MANY_PIXELS, large, header)
    if header.appearance.colour.refusal is not None:
        reason, detail = header.appearance.colour.refusal
        raise Unreadable(reason, f"{header.format}: {detail}", header)
    return image, header


def refuse_animated(header: Header) -> None:
    """Refuse animations and files of several pages. Raises Unreadable: animated."""
    if header.animated:
        word = "pages" if header.format == "TIFF" else "frames"
        raise Unreadable(ImageError.ANIMATED, f"{header.frames} {word}", header)


def _no_decoder(name: str) -> str:
    if name in PLUGINS:
        return f"{name}: no decoder installed (pip install {PLUGINS[name]})"
    return f"{name}: no decoder for this format"


def _opened(data: bytes | LazyBytes, kind: formats.Kind | None, decoders: tuple[str, ...]) -> Image.Image:
    """Pillow's view of a file whose header is read."""
    name = kind.name if kind else ""
    if isinstance(data, bytes) or name == "PNG":
        return open_file(data, decoders, header_only=not isinstance(data, bytes))
    for num in _FRONTS.get(name, ()):
        try:
            front = formats.webp_outline(data) if name == "WEBP" else data[0:num]
            return open_file(front, decoders)
        except DECODER_ERRORS:
            pass  # the header is longer, or broken
    if name in _ANYWHERE:
        return open_file(bytes(data), decoders)
    return open_file(data, decoders)


_FRONTS = {"JPEG": (FIRST_BYTES, 8 * FIRST_BYTES, 64 * FIRST_BYTES), "WEBP": (FIRST_BYTES,)}
"""Formats whose header ends before their pixels, and that Pillow does not open before it has read all of it: the parts
in which it is looked for, before the whole file is read."""
_ANYWHERE = ("GIF", "AVIF", "HEIF", "WEBP", "JPEG")
"""Formats that Pillow reads whole to know their frames and tags, or whose parts are counted in the whole file."""


def header_of(image: Image.Image, data: bytes | LazyBytes) -> Header:
    image_format = image.format or "unknown"
    seen = appearance_of(image, data)
    return Header(
        format=image_format,
        mode=image.mode,
        width=seen.size[0],
        height=seen.size[1],
        exif_orientation=seen.orientation,
        frames=max(1, tiff.num_pages(data) if image_format == "TIFF" else _num_frames(image)),
        icc=seen.icc,
        colour=seen.colour.source,
        alpha=has_alpha(image),
        metadata_left_out=image.info.get(LEFT_OUT, 0),
        appearance=seen,
    )


def _num_frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except DECODER_ERRORS:  # the chain of frames breaks somewhere behind the first
        return 1


def _not_opened(data: bytes | LazyBytes, kind: formats.Kind | None, error: Exception) -> Unreadable:
    """The reason behind an image that Pillow would not open."""
    if isinstance(error, TooManyParts):
        return Unreadable(ImageError.CORRUPT, f"{kind.name if kind else 'PPM'}: {error}")
    if kind is None:
        return Unreadable(ImageError.NOT_AN_IMAGE, f"unknown format, begins with {data[0:8].hex(' ')}")
    reason, detail = why_refused(bytes(data), kind.name)
    if detail is not None:
        return Unreadable(reason, f"{kind.name}: {detail}")
    if isinstance(error, UnidentifiedImageError | struct.error):
        return Unreadable(ImageError.CORRUPT, f"{kind.name}: the header cannot be read")
    return Unreadable(ImageError.CORRUPT, f"{kind.name}: {describe(error)}")


def why_refused(data: bytes, image_format: str) -> tuple[ImageError, str | None]:
    """Why the decoder refused a file, as far as its structure tells: its end is missing, or the decoder lacks its
    flavour. Otherwise it is corrupt, and what the decoder said is the detail."""
    if (missing := cut_short(data, image_format)) is not None:
        return ImageError.TRUNCATED, missing
    if (flavour := lacking(data, image_format)) is not None:
        return ImageError.UNSUPPORTED, f"no decoder for {flavour}"
    return ImageError.CORRUPT, None
