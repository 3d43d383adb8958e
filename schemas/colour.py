"""The colour space of stored pixels, by what their file says, and the way from there to sRGB. Every description becomes
an ICC profile, so that one piece of code converts them all."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
from PIL import Image, ImageCms

from schemas.metadata import Cicp, Metadata
from schemas.reasons import ImageError

Curve = tuple[float, float, float, float, float]
"""(g, a, b, c, d): light = (a v + b) ** g from v = d on, and c v below, for stored v of 0 to 1."""

SRGB: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709: Curve = (1 / 0.45, 1 / 1.099297, 0.099297 / 1.099297, 1 / 4.5, 4.5 * 0.018054)
_TRANSFERS: dict[int, Curve] = {
    **dict.fromkeys((1, 6, 11, 14, 15), _BT709),
    4: (2.2, 1, 0, 0, 0),
    5: (2.8, 1, 0, 0, 0),
    7: (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 4 * 0.0228),
    8: (1, 1, 0, 0, 0),
    **dict.fromkeys((2, 13), SRGB),
    17: (2.6, (52.37 / 48) ** (1 / 2.6), 0, 0, 0),
}
"""Transfer characteristics of ITU-T H.273, table 3, inverted; 2 is "unspecified"."""
_HDR = {16: "PQ", 18: "HLG"}

_D65 = (0.3127, 0.3290)
BT709 = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_SMPTE = (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
_PRIMARIES = {
    **dict.fromkeys((1, 2), BT709),
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    **dict.fromkeys((6, 7), _SMPTE),
    8: (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
"""Colour primaries of ITU-T H.273, table 2: x and y of white, red, green and blue; 2 is "unspecified"."""

_ADOBE_RGB = ((*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06), ((563 / 256, 1.0, 0.0, 0.0, 0.0),))
"""Adobe RGB (1998), 4.3: the optional colour space of DCF 2.0."""
_ROMM_RGB = (
    (0.3457, 0.3585, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001),
    ((1.8, 1.0, 0.0, 1 / 16, 16 / 512),),
)  # ISO 22028-2

_SRGB_GAMMA = 1 / 2.2
"""What a PNG in sRGB says as gAMA (PNG, third edition, 11.3.2.5), within a rounding."""


class Colour(NamedTuple):
    """The colour space of a picture's stored numbers."""

    source: str | None = None
    """What describes it, as in the column `images.colour`; None where nothing does, and it is taken as sRGB."""
    profile: bytes | None = None
    """The ICC profile to apply; None where the numbers are those of sRGB."""
    narrow: bool = False
    """As of `Cicp`."""
    refusal: tuple[ImageError, str] | None = None
    """Why there is no way to sRGB: `hdr` or `unsupported`, and the detail."""


def colour_of(image_format: str, found: Metadata, channels: str, is_adobe_rgb: bool) -> Colour:
    """The colour space of a picture: the first description that is whole and fits its channels (RGB, GRAY, CMYK or
    LAB). The order is that of the PNG specification, third edition (4.3): code points, ICC profile, sRGB, then
    primaries and curve; a HEIF's ICC profile comes first. `is_adobe_rgb`: EXIF names the optional colour space of
    DCF."""
    in_heif = image_format in ("AVIF", "HEIF")
    by_code = found.cicp and _by_code_points(found.cicp, "nclx" if in_heif else "cicp", channels)
    by_profile = found.icc and _by_profile(found.icc, channels)
    first, second = (by_profile, by_code) if in_heif else (by_code, by_profile)
    if colour := first or second:
        return colour
    if found.srgb:
        return Colour("srgb")
    if found.enumerated is not None:
        return _by_number(found.enumerated, channels)
    if found.curves:
        return Colour("tags", profile_of(found.chromaticities or BT709, found.curves, channels))
    if (found.gamma or found.chromaticities) and channels != "CMYK":
        source = "tags" if image_format == "TIFF" else "gamma"
        return Colour(source, _by_numbers(found.gamma, found.chromaticities or BT709, channels))
    if is_adobe_rgb and channels == "RGB":
        return Colour("exif", profile_of(*_ADOBE_RGB, channels))
    return Colour()


def to_srgb(image: Image.Image, colour: Colour, channels: str) -> Image.Image:
    """Apply a colour space to a picture of its channels, without alpha; one that cannot be applied is as good as none.
    `image`: L, I;16, RGB, CMYK or LAB. `channels`: as in `colour_of`; a picture of other channels stays as it is."""
    if colour.narrow and image.mode in ("L", "RGB"):
        widened = [min(max(round((level - 16) * 255 / 219), 0), 255) for level in range(256)]
        image = image.point(widened * len(image.getbands()))
    is_lab = image.mode == "LAB"
    if not (colour.profile or is_lab) or _CHANNELS.get(image.mode) != channels:
        return image
    try:
        source = (
            ImageCms.createProfile("LAB") if is_lab else ImageCms.ImageCmsProfile(io.BytesIO(colour.profile or b""))
        )
        target = ImageCms.createProfile("sRGB")
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        converted = ImageCms.profileToProfile(image, source, target, renderingIntent=intent, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return cast(Image.Image, converted)


_CHANNELS = {"L": "GRAY", "I;16": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "LAB"}


def _by_code_points(cicp: Cicp, source: str, channels: str) -> Colour | None:
    """None where the code points name nothing that is known; a decoder then goes on to the next description."""
    if name := _HDR.get(cicp.transfer):
        return Colour(source, refusal=(ImageError.HDR, f"its numbers are {name}, and it has no rendering for a screen"))
    if cicp.primaries not in _PRIMARIES or cicp.transfer not in _TRANSFERS:
        return None
    curves = (_TRANSFERS[cicp.transfer],)
    return Colour(source, profile_of(_PRIMARIES[cicp.primaries], curves, channels), cicp.narrow)


def _by_profile(icc: bytes, channels: str) -> Colour | None:
    if _is_endless(icc):
        return None
    try:
        space = ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile.xcolor_space.strip()
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if name := _HDR.get(_profile_transfer(icc)):
        return Colour("icc", refusal=(ImageError.HDR, f"its colour profile says {name}"))
    return Colour("icc", icc) if space == channels else None


def _profile_transfer(icc: bytes) -> int:
    """The transfer characteristics in the tag `cicp` of a profile (ICC.1:2022, 9.2.17), or 0."""
    values = (value for name, value in _profile_tags(icc) if name == b"cicp" and len(value) >= 12)
    return next((value[9] for value in values), 0)


def _profile_tags(icc: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(signature, value) of the tags of a profile (ICC.1:2022, 7.3), as many as the converter reads."""
    for at in range(132, min(len(icc), 132 + 12 * 100) - 11, 12):
        name, offset, size = struct.unpack_from(">4sII", icc, at)
        yield name, icc[offset : offset + size]


_MOST_ELEMENTS = 64
_MOST_CURVE_BYTES = 256 * 1024


def _is_endless(icc: bytes) -> bool:
    """Whether a profile has a chain of elements (`multiProcessElementsType`, ICC.1:2022, 10.16) that no maker writes.
    The converter evaluates the whole chain 36,000 times, and a kilobyte can name one element a hundred thousand times.
    """
    for _, value in _profile_tags(icc):
        if value[:4] != b"mpet" or len(value) < 16:
            continue
        num = int.from_bytes(value[12:16], "big")
        places = [
            struct.unpack_from(">II", value, at) for at in range(16, min(len(value) - 7, 16 + 8 * _MOST_ELEMENTS), 8)
        ]
        curves = sum(size for place, size in places[:num] if value[place : place + 4] == b"cvst")
        if num > _MOST_ELEMENTS or curves > _MOST_CURVE_BYTES:
            return True
    return False


def _by_numbers(gamma: float | None, chromaticities: tuple[float, ...], channels: str) -> bytes | None:
    """The profile of gAMA and cHRM. A gamma of 1/2.2 with the primaries of sRGB is how sRGB itself is written there."""
    is_srgb = _is_bt709(chromaticities) and gamma is not None and abs(gamma - _SRGB_GAMMA) < 0.005
    curve = SRGB if not gamma or is_srgb else (1 / gamma, 1.0, 0.0, 0.0, 0.0)
    return profile_of(chromaticities, (curve,), channels)


def _is_bt709(chromaticities: Sequence[float]) -> bool:
    return bool(np.abs(np.subtract(chromaticities, BT709)).max() < 0.001)


def _by_number(enumerated: int, channels: str) -> Colour:
    """Enumerated colour spaces of JPEG 2000 that the decoder gives as RGB, grey or CMYK."""
    if enumerated == 21:
        return Colour("enumerated", profile_of(*_ROMM_RGB, channels))
    if enumerated in (0, 12, 15, 16, 17, 18):  # two bilevel ones, CMYK, sRGB, grey, sYCC
        return Colour("enumerated")
    detail = f"the enumerated colour space {enumerated} of JPEG 2000 is not known"
    return Colour("enumerated", refusal=(ImageError.UNSUPPORTED, detail))


@lru_cache(maxsize=64)
def profile_of(chromaticities: Sequence[float], curves: tuple[Sequence[float], ...], channels: str) -> bytes | None:
    """An ICC profile (ICC.1:2022, 8.3) of primaries and curves; None where the numbers are those of sRGB, or
    impossible, or channels are neither RGB nor GRAY. `chromaticities`: x and y of white, red, green and blue. `curves`:
    one for all channels or one for each: a `Curve`, or a table of light of 0 to 65535."""
    is_grey = channels == "GRAY"
    same_primaries = is_grey or _is_bt709(chromaticities)
    if channels not in ("GRAY", "RGB") or (same_primaries and set(curves) == {SRGB}):
        return None
    columns = _columns(chromaticities)
    if columns is None or not all(np.isfinite(curve).all() for curve in curves):
        return None
    tags = [(b"wtpt", _xyz(_D50))]
    if is_grey:
        tags.append((b"kTRC", _curve(curves[0])))
    else:
        each = curves * 3 if len(curves) == 1 else curves
        for name, column, curve in zip((b"r", b"g", b"b"), columns.T, each, strict=True):
            tags += [(name + b"XYZ", _xyz(column)), (name + b"TRC", _curve(curve))]
    table, payload, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, value in tags:
        table += struct.pack(">4sII", name, start + len(payload), len(value))
        payload += value + bytes(-len(value) % 4)
    header = struct.pack(
        ">II4s4s4s4s12s4s28s", start + len(payload), 0, b"\x04\x30\0\0", b"mntr", f"{channels:4}".encode(), b"XYZ ",
        bytes(12), b"acsp", bytes(28),
    )  # fmt: skip
    return header + struct.pack(">3i", *_fixed(_D50)) + bytes(48) + table + payload


_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def _columns(chromaticities: Sequence[float]) -> np.ndarray | None:
    """XYZ of red, green and blue as columns, adapted to D50 by Bradford (ICC.1:2022, annex E); None if impossible."""
    xy = np.asarray(chromaticities, float).reshape(4, 2)
    if not np.isfinite(xy).all() or not (xy[:, 1] > 0).all() or not (xy >= 0).all():
        return None
    xyz = np.column_stack([xy[:, 0], xy[:, 1], 1 - xy.sum(axis=1)]) / xy[:, 1:]  # (4, 3), each of luminance 1
    white, primaries = xyz[0], xyz[1:].T
    if abs(np.linalg.det(primaries)) < 1e-6:
        return None
    columns = primaries * np.linalg.solve(primaries, white)
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.asarray(np.linalg.inv(_BRADFORD) @ (cones[:, None] * (_BRADFORD @ columns)))


def _fixed(values: Sequence[float] | np.ndarray) -> list[int]:
    """s15Fixed16Number."""
    return [min(max(round(float(value) * 65536), -(1 << 31)), (1 << 31) - 1) for value in values]


def _xyz(values: Sequence[float] | np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *_fixed(values))


def _curve(curve: Sequence[float]) -> bytes:
    if len(curve) == 5:
        return b"para\0\0\0\0" + struct.pack(">HH5i", 3, 0, *_fixed(curve))
    return b"curv\0\0\0\0" + struct.pack(f">I{len(curve)}H", len(curve), *(min(max(int(v), 0), 65535) for v in curve))
