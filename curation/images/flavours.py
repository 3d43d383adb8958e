"""Whole files that the decoder lacks: camera raw in a TIFF, and depths, channels and codings of known formats."""

from __future__ import annotations

import struct

from PIL import PsdImagePlugin, TiffImagePlugin

from schemas import tiff
from schemas.jpeg_segments import is_frame, segments
from schemas.slices import Sliced

_RAW_PHOTOMETRIC = (32803, 34892)
"""A mosaic of colour filters, and linear raw (DNG specification, PhotometricInterpretation)."""
_RAW_COMPRESSION = (262, 32767, 32769, 32770, 34713, 34892, 65000, 65535)
"""Codings that only cameras write: Kodak, Sony, packed, Samsung, Nikon, lossy DNG, Kodak, Pentax."""


def camera_raw(data: Sliced) -> str | None:
    """What a TIFF that is a camera's raw file is called, or None where it is a picture. Its first directory holds a
    preview. The photograph is in another one that no decoder of TIFF reads: a mosaic, or a larger picture below a
    directory that is itself marked as a smaller copy."""
    if data[8:10] == b"CR":
        return "Canon CR2"
    for directory in tiff.directories(data):
        below = tuple(tiff.sub_directories(data, directory))
        is_mosaic = any(_is_mosaic(data, each) for each in (directory, *below))
        is_preview = not directory.is_page(data) and any(each.is_page(data) for each in below)
        if is_mosaic or is_preview:
            return "Adobe DNG" if tiff.DNG_VERSION in directory.fields else "camera raw"
    return None


def _is_mosaic(data: Sliced, directory: tiff.Directory) -> bool:
    photometric, compression = directory.number(data, tiff.PHOTOMETRIC), directory.number(data, tiff.COMPRESSION)
    return photometric in _RAW_PHOTOMETRIC or compression in _RAW_COMPRESSION


def lacking(data: bytes, image_format: str) -> str | None:
    """The flavour of a refused file; None where the decoder has it, or the header is not sound."""
    find = _FLAVOURS.get(image_format)
    return find(data) if find else None


def _jpeg(data: bytes) -> str | None:
    frame = next((segment for segment in segments(data) if is_frame(segment.marker)), None)
    if frame is None or len(frame.payload) < 6 or len(frame.payload) < 6 + 3 * frame.payload[5]:
        return None
    bits, height, num = frame.payload[0], int.from_bytes(frame.payload[1:3], "big"), frame.payload[5]
    if frame.marker in _JPEG_CODINGS:
        return f"{_JPEG_CODINGS[frame.marker]} coding"
    if bits != 8 and 2 <= bits <= 16:
        return f"{bits} bits per channel"
    if num not in (1, 3, 4) and num:
        return f"{num} channels"
    return "a height that is given behind its pixels" if height == 0 else None


_JPEG_CODINGS = {
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical"),
    0xCB: "lossless arithmetic",
}
"""Start-of-frame marker (T.81, table B.1) -> its coding, of those that few decoders have."""


def _tiff(data: bytes) -> str | None:
    directories = tuple(tiff.directories(data))
    if not directories:
        return None
    page = directories[tiff.first_page(data)]

    def number(tag: int, default: int) -> int:
        return page.number(data, tag, default)

    bits, formats = page.numbers(data, tiff.BITS) or (1,), page.numbers(data, tiff.SAMPLE_FORMAT) or (1,)
    colours, coding = number(tiff.PHOTOMETRIC, -1), number(tiff.COMPRESSION, 1)
    num = number(tiff.CHANNELS, 1)
    sound = number(tiff.WIDTH, 0) and number(tiff.HEIGHT, 0) and len(bits) in (1, num) and set(bits) <= _TIFF_BITS
    if not sound or colours not in _TIFF_COLOURS or not set(formats) <= _TIFF_NUMBERS.keys():
        return None
    if coding not in TiffImagePlugin.COMPRESSION_INFO:
        return f"compression {_TIFF_CODINGS.get(coding, coding)}"
    known = ((key[1], key[2], set(key[4]), len(key[4])) for key in TiffImagePlugin.OPEN_INFO)
    if (colours, (formats[0],), set(bits), num) in known:
        return None
    depth = "/".join(str(each) for each in sorted(set(bits)))
    channels = f"{num} channel{'s' * (num > 1)}"
    return f"{channels} of {depth}-bit {_TIFF_NUMBERS[formats[0]]} {_TIFF_COLOURS[colours]}"


_TIFF_BITS = {1, 2, 4, 6, 8, 10, 12, 14, 16, 24, 32, 64, 128}
_TIFF_NUMBERS = {1: "unsigned", 2: "signed", 3: "float", 4: "untyped", 5: "complex signed", 6: "complex float"}
_TIFF_COLOURS = {
    **dict.fromkeys((0, 1), "grey"),
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "separated",
    6: "YCbCr",
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32844: "LogL",
    32845: "LogLuv",
    51177: "depth",
}
_TIFF_CODINGS = {
    34661: "JBIG",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG",
    50002: "JPEG XL",
    52546: "JPEG XL",
}


def _png(data: bytes) -> str | None:
    return "pixels as iOS keeps them (CgBI)" if data[12:16] == b"CgBI" else None


def _psd(data: bytes) -> str | None:
    if data[4:6] == b"\0\2":
        return "a large document (PSB)"
    if len(data) < 26 or data[4:6] != b"\0\1":
        return None
    channels, bits, mode = (*struct.unpack_from(">H", data, 12), *struct.unpack_from(">HH", data, 22))
    if bits not in (1, 8, 16, 32) or mode not in _PSD_MODES or (mode, bits) in PsdImagePlugin.MODES:
        return None
    return f"{channels} channels of {bits}-bit {_PSD_MODES[mode]}"


_PSD_MODES = {0: "bitmap", 1: "grey", 2: "palette", 3: "RGB", 4: "CMYK", 7: "multichannel", 8: "duotone", 9: "Lab"}


def _bmp(data: bytes) -> str | None:
    if len(data) < 34 or int.from_bytes(data[14:18], "little") < 40:
        return None
    bits, coding = struct.unpack_from("<HI", data, 28)
    is_common = (coding in (0, 3) and bits in (1, 4, 8, 16, 24, 32)) or (coding, bits) in ((1, 8), (2, 4))
    if not is_common and coding in _BMP_CODINGS and bits in (0, 1, 2, 4, 8, 16, 24, 32, 64):
        return f"{bits} bits per pixel, {_BMP_CODINGS[coding]}"
    return None


_BMP_CODINGS = {
    0: "not compressed",
    1: "run lengths",
    2: "run lengths",
    3: "bit fields",
    4: "a JPEG inside",
    5: "a PNG inside",
}


def _jpeg2000(data: bytes) -> str | None:
    size = data.find(b"\xff\x4f\xff\x51")
    if size < 0 or len(data) < size + 42:
        return None
    num = int.from_bytes(data[size + 40 : size + 42], "big")
    fields = data[size + 42 : size + 42 + 3 * num]
    if not num or len(fields) < 3 * num:
        return None
    bits = {(depth & 0x7F) + 1 for depth in fields[::3]}
    if num > 4 or max(bits) > 16:
        return f"{num} channels of {max(bits)} bits"
    return None


_FLAVOURS = {"JPEG": _jpeg, "PNG": _png, "TIFF": _tiff, "PSD": _psd, "BMP": _bmp, "JPEG2000": _jpeg2000}
