"""Metadata of a picture that changes how its pixels look: profile, primaries, curve, EXIF and XMP, from its bytes."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

from schemas import png
from schemas.boxes import boxes
from schemas.slices import Sliced

LATE_BYTES = 64 * 1024
"""Bytes at the end of a PNG in which EXIF and XMP are searched where the file is read by range."""


class Cicp(NamedTuple):
    """Code points of a colour space (ITU-T H.273)."""

    primaries: int
    transfer: int
    narrow: bool = False
    """Whether the stored numbers leave room below black and above white (16 to 235 of 8 bits)."""


class Metadata(NamedTuple):
    """What a file says about its pixels, each None where it says nothing."""

    exif: bytes | None = None
    xmp: bytes | None = None
    icc: bytes | None = None
    cicp: Cicp | None = None
    srgb: bool = False
    """The chunk sRGB of a PNG, or the enumerated colour space of a JP2."""
    gamma: float | None = None
    """Exponent of the encoding, 0 to 1: the chunk gAMA of a PNG."""
    chromaticities: tuple[float, ...] | None = None
    """x and y of white, red, green and blue."""
    curves: tuple[tuple[int, ...], ...] | None = None
    """TransferFunction of a TIFF: for each channel, or for all, the light (0 to 65535) of every stored number."""
    enumerated: int | None = None
    """Enumerated colour space of a JP2 (ISO/IEC 15444-1 and 15444-2, table M.25)."""
    depth: int | None = None
    """Bits per sample of a PNG."""
    grey: bool = False
    """Whether a PNG is grey, with or without alpha: Pillow opens one of 16 bits with alpha as colour."""


def read_metadata(image: Image.Image, data: Sliced) -> Metadata:
    """The metadata of an opened picture that is not loaded yet. `image`: opened from `data`. `data`: the whole file.
    Where it is read by range, EXIF and XMP behind the pixels of a PNG are only found in its last `LATE_BYTES`."""
    info = image.info
    found = Metadata(exif=info.get("exif"), xmp=_as_bytes(info.get("xmp")), icc=info.get("icc_profile"))
    try:
        match image.format:
            case "PNG":
                return _png(data)
            case "TIFF":
                return _tiff(image, found)
            case "AVIF" | "HEIF":
                return found._replace(cicp=_nclx(data))
            case "JPEG2000":
                return _jpeg2000(data)
            case "GIF":
                return found._replace(icc=_gif_profile(data[0:_GIF_HEAD_BYTES]))
            case "BMP":
                return found._replace(icc=_bmp_profile(data))
    except (ArithmeticError, LookupError, OSError, TypeError, ValueError, struct.error):
        pass  # broken metadata around a picture that may be good
    return found


def _as_bytes(value: object) -> bytes | None:
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    return value if isinstance(value, bytes) else None


def _png(data: Sliced) -> Metadata:
    """Chunks with a wrong checksum are passed over. Colour counts before the pixels, EXIF and XMP anywhere."""
    found: dict[str, object] = {}
    texts: list[tuple[bytes, bytes]] = []
    for name, payload, early in _png_payloads(data):
        if name == b"IHDR" and len(payload) >= 13:
            found |= {"depth": payload[8], "grey": payload[9] in (0, 4)}
        elif name == b"eXIf":
            found.setdefault("exif", payload)
        elif name in png.TEXTS:
            texts.append(_png_text(name, payload))
        elif early:
            found |= _png_colour(name, payload)
    for key, text in texts:
        if key == b"XML:com.adobe.xmp":
            found.setdefault("xmp", text)
        elif key in (b"Raw profile type exif", b"Raw profile type APP1", b"Raw profile type xmp"):
            profile = _raw_profile(text)
            is_xmp = key.endswith(b"xmp") or profile.startswith(b"http://ns.adobe.com/xap/")
            found.setdefault("xmp" if is_xmp else "exif", profile)
    return Metadata(**found)  # type: ignore[arg-type]


_PNG_METADATA = (b"IHDR", b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf", b"tEXt", b"zTXt", b"iTXt")


def _png_payloads(
    data: Sliced, begin: int = len(png.SIGNATURE), early: bool = True
) -> Iterator[tuple[bytes, bytes, bool]]:
    """(type, payload, whether it is before the pixels) of each chunk that `_png` reads, from the one at `begin` on."""
    alike: Counter[bytes] = Counter()
    for chunk in png.chunks(data, begin):
        name, start, length = chunk
        if name == b"IDAT":
            if early and not isinstance(data, bytes):  # a file that is read by range is not walked to its end
                behind = start + length + 4
                late = max(behind, len(data) - LATE_BYTES)
                end = data[late : len(data)]
                first = 0 if late == behind else end.rfind(b"IDAT") - 4
                yield from _png_payloads(end, first, False) if first >= 0 else _late_png_payloads(end)
                return
            early = False
        elif name in _PNG_METADATA and png.is_metadata(data, chunk) and alike[name] < png.MOST_ALIKE:
            alike[name] += 1
            payload = data[start : start + length]
            if zlib.crc32(name + payload) == int.from_bytes(data[start + length : start + length + 4], "big"):
                yield name, payload, early


def _late_png_payloads(end: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Those in the last bytes of a file, where it is not known at which of them a chunk begins."""
    for name in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
        at = end.find(name)
        while at >= 4:
            stop = at + 4 + int.from_bytes(end[at - 4 : at], "big")
            if stop + 4 <= len(end) and zlib.crc32(end[at:stop]) == int.from_bytes(end[stop : stop + 4], "big"):
                yield name, end[at + 4 : stop], False
            at = end.find(name, at + 1)


def _png_colour(name: bytes, payload: bytes) -> dict[str, object]:
    if name == b"cICP" and len(payload) == 4 and payload[2] == 0:
        return {"cicp": Cicp(payload[0], payload[1], payload[3] == 0)}
    if name == b"iCCP":
        return {"icc": _inflated(payload[payload.find(b"\0") + 2 :], png.MAX_METADATA_BYTES)}
    if name == b"sRGB":
        return {"srgb": True}
    if name == b"gAMA" and len(payload) == 4:
        return {"gamma": int.from_bytes(payload, "big") / 100_000}
    if name == b"cHRM" and len(payload) == 32:
        return {"chromaticities": tuple(value / 100_000 for value in struct.unpack(">8I", payload))}
    return {}


def _png_text(name: bytes, payload: bytes) -> tuple[bytes, bytes]:
    """(keyword, text) of a text chunk, inflated."""
    key, _, text = payload.partition(b"\0")
    if name == b"zTXt":
        return key, _inflated(text[1:]) or b""
    if name == b"iTXt" and len(text) >= 2:
        is_compressed, text = text[0], text[2:].split(b"\0", 2)[-1]
        return key, (_inflated(text) or b"") if is_compressed else text
    return key, text


def _inflated(stream: bytes, most: int = png.MAX_TEXT_BYTES) -> bytes | None:
    """None where it is damaged, or longer than metadata may be."""
    try:
        found = zlib.decompressobj().decompress(stream, most + 1)
    except zlib.error:
        return None
    return found if len(found) <= most else None


def _raw_profile(text: bytes) -> bytes:
    """The bytes of a profile that ImageMagick wrote as text: a name, a length, then hexadecimal digits."""
    try:
        return bytes.fromhex(b"".join(text.split()[2:]).decode("ascii"))
    except ValueError:
        return b""


def _tiff(image: Image.Image, found: Metadata) -> Metadata:
    tags = getattr(image, "tag_v2", {})
    white, primaries = _numbers(tags.get(318), 2) or (0.3127, 0.3290), _numbers(tags.get(319), 6)
    return found._replace(
        exif=None,  # its orientation is a tag, too: see `schemas.appearance`
        chromaticities=(*white, *primaries) if primaries else None,
        curves=_tables(tags.get(301)),
    )


def _numbers(values: object, count: int) -> tuple[float, ...] | None:
    """The numbers of a tag, or None where they are not as many."""
    return tuple(map(float, values)) if isinstance(values, tuple) and len(values) == count else None


def _tables(values: object) -> tuple[tuple[int, ...], ...] | None:
    """One table for all channels or three, each of 2 to the power of the bits per sample entries."""
    if not isinstance(values, tuple) or not all(isinstance(value, int) for value in values):
        return None
    for num in (1, 3):
        size = len(values) // num
        if size * num == len(values) and size in (4, 16, 256, 65536):
            return tuple(tuple(values[at : at + size]) for at in range(0, len(values), size))
    return None


def _nclx(data: Sliced) -> Cicp | None:
    """Code points of the primary item of a HEIF (ISO/IEC 23008-12): a property of the type `colr`."""
    meta = next(((begin + 4, end) for name, begin, end in boxes(data, 0, len(data)) if name == b"meta"), None)
    if meta is None:
        return None
    inner = {name: (begin, end) for name, begin, end in boxes(data, *meta)}
    if b"pitm" not in inner or b"iprp" not in inner:
        return None
    begin, end = inner[b"pitm"]
    primary = int.from_bytes(data[begin + 4 : end], "big")
    containers = {name: (begin, end) for name, begin, end in boxes(data, *inner[b"iprp"])}
    if b"ipco" not in containers or b"ipma" not in containers:
        return None
    properties = list(boxes(data, *containers[b"ipco"]))
    for index in _associated(data[slice(*containers[b"ipma"])], primary):
        if 0 < index <= len(properties):
            name, begin, end = properties[index - 1]
            if name == b"colr" and data[begin : begin + 4] == b"nclx":
                primaries, transfer = struct.unpack(">HH", data[begin + 4 : begin + 8])
                return Cicp(primaries, transfer)  # the decoder has undone its matrix and its range
    return None


def _associated(ipma: bytes, item: int) -> list[int]:
    """Numbers of the properties of an item, from 1."""
    id_size = 2 if ipma[0] == 0 else 4
    index_size, mask = (2, 0x7FFF) if ipma[3] & 1 else (1, 0x7F)
    at = 8
    for _ in range(int.from_bytes(ipma[4:8], "big")):
        if at + id_size >= len(ipma):
            break
        num = ipma[at + id_size]
        first = at + id_size + 1
        if int.from_bytes(ipma[at : at + id_size], "big") == item:
            places = range(first, first + num * index_size, index_size)
            return [int.from_bytes(ipma[place : place + index_size], "big") & mask for place in places]
        at = first + num * index_size
    return []


_UUID_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_UUID_EXIF = b"JpgTiffExif->JP2"


def _jpeg2000(data: Sliced) -> Metadata:
    """The first `colr` box counts, as ISO/IEC 15444-1 (I.5.3.3) has it; EXIF and XMP are in `uuid` boxes."""
    found: dict[str, object] = {}
    if not data.startswith(b"\0\0\0\x0cjP"):
        return Metadata()  # a bare codestream
    for name, begin, end in boxes(data, 0, len(data)):
        if name == b"jp2h" and not found.keys() & {"icc", "cicp", "enumerated"}:
            colours = (data[inner:stop] for kind, inner, stop in boxes(data, begin, end) if kind == b"colr")
            found |= _jp2_colour(next(colours, b""))
        elif name == b"uuid":
            uuid, content = data[begin : begin + 16], slice(begin + 16, end)
            if uuid in (_UUID_XMP, _UUID_EXIF):
                found["xmp" if uuid == _UUID_XMP else "exif"] = data[content]
    return Metadata(**found)  # type: ignore[arg-type]


def _jp2_colour(colr: bytes) -> dict[str, object]:
    method = colr[0] if len(colr) >= 7 else 0
    if method == 1:
        return {"enumerated": int.from_bytes(colr[3:7], "big")}
    if method in (2, 3):
        return {"icc": colr[3:]}
    if method == 5 and len(colr) >= 10:
        primaries, transfer, _, flags = struct.unpack_from(">HHHB", colr, 3)
        return {"cicp": Cicp(primaries, transfer, not flags & 0x80)}
    return {}


def _bmp_profile(data: Sliced) -> bytes | None:
    """The profile that a BITMAPV5HEADER embeds, which Pillow does not read."""
    head = data[14:138]
    if len(head) < 124 or struct.unpack_from("<I", head)[0] != 124 or head[56:60] != b"DEBM":
        return None
    offset, size = struct.unpack_from("<II", head, 112)
    return data[14 + offset : 14 + offset + size] or None


_GIF_HEAD_BYTES = 1 << 20
"""A profile of a GIF is only found whole in its first megabyte."""


def _gif_profile(head: bytes) -> bytes | None:
    """The application extension `ICCRGBG1012` in front of the first picture (ICC.1:2022, B.6)."""
    at = 13 + (3 * (2 << (head[10] & 7)) if head[10] & 0x80 else 0)
    while head[at] == 0x21:
        is_profile = head[at + 1 : at + 14] == b"\xff\x0bICCRGBG1012"
        at, blocks = at + 2, list[bytes]()
        while head[at]:
            blocks.append(head[at + 1 : (at := at + 1 + head[at])])
        at += 1
        if is_profile:
            return b"".join(blocks[1:])
    return None
