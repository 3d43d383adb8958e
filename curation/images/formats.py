"""Containers of pictures, read from their bytes: which format a file has, and how it is laid out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from schemas.boxes import Span
from schemas.slices import Sliced


class Kind(NamedTuple):
    """The format of a file, recognised by its first bytes."""

    name: str
    """Pillow's name where Pillow may know the format, else its common name."""
    is_image: bool


_SIGNATURES: tuple[tuple[bytes, Kind], ...] = (
    (b"\xff\xd8\xff", Kind("JPEG", True)),
    (b"\x89PNG\r\n\x1a\n", Kind("PNG", True)),
    (b"GIF87a", Kind("GIF", True)),
    (b"GIF89a", Kind("GIF", True)),
    (b"II*\x00", Kind("TIFF", True)),
    (b"MM\x00*", Kind("TIFF", True)),
    (b"II+\x00", Kind("TIFF", True)),
    (b"MM\x00+", Kind("TIFF", True)),
    (b"8BPS", Kind("PSD", True)),
    (b"qoif", Kind("QOI", True)),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", Kind("JPEG2000", True)),
    (b"\xff\x4f\xff\x51", Kind("JPEG2000", True)),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", Kind("JXL", True)),
    (b"\xff\x0a", Kind("JXL", True)),
    (b"II\xbc", Kind("JPEG XR", True)),
    (b"IIRO", Kind("Olympus ORF", True)),
    (b"IIRS", Kind("Olympus ORF", True)),
    (b"MMOR", Kind("Olympus ORF", True)),
    (b"IIU\x00", Kind("Panasonic RW2", True)),
    (b"II\x1a\x00\x00\x00HEAPCCDR", Kind("Canon CRW", True)),
    (b"FUJIFILMCCD-RAW", Kind("Fujifilm RAF", True)),
    (b"FOVb", Kind("Sigma X3F", True)),
    (b"\x00MRM", Kind("Minolta MRW", True)),
    (b"BPG\xfb", Kind("BPG", True)),
    (b"FLIF", Kind("FLIF", True)),
    (b"%!PS", Kind("EPS", True)),
    (b"\xc5\xd0\xd3\xc6", Kind("EPS", True)),
    *((bytes((0x1C, record)), Kind("IPTC", True)) for record in range(1, 10)),
    (b"\x00\x00\x01\x00", Kind("ICO", True)),
    (b"icns", Kind("ICNS", True)),
    (b"BLP1", Kind("BLP", True)),
    (b"BLP2", Kind("BLP", True)),
    (b"SIMPLE  =", Kind("FITS", True)),
    (b"v/1\x01", Kind("OpenEXR", True)),
    (b"#?RADIANCE", Kind("Radiance HDR", True)),
    (b"#?RGBE", Kind("Radiance HDR", True)),
    (b"PF\n", Kind("PFM in colour", True)),
    (b"%PDF", Kind("PDF", False)),
    (b"PK\x03\x04", Kind("a zip archive", False)),
    (b"\x1f\x8b", Kind("gzip data", False)),
    (b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", False)),
    (b"Rar!", Kind("a rar archive", False)),
    (b"\x1aE\xdf\xa3", Kind("a Matroska or WebM video", False)),
    (b"OggS", Kind("Ogg media", False)),
    (b"ID3", Kind("an MP3", False)),
    (b"\x7fELF", Kind("a program", False)),
    (b"SQLite format 3\x00", Kind("an SQLite database", False)),
    (b"\x89HDF", Kind("HDF5 data", False)),
)

_SIGNATURE_BYTES = max(len(signature) for signature, _ in _SIGNATURES)
_SIGNATURES_BY_BYTE = {
    first: [each for each in _SIGNATURES if each[0].startswith(first)]
    for first in {each[0][:1] for each in _SIGNATURES}
}
"""First byte -> the signatures that begin with it."""

_RIFF = {b"WEBP": Kind("WEBP", True), b"AVI ": Kind("an AVI video", False), b"WAVE": Kind("a WAV sound", False)}

_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), Kind("AVIF", True)),
    **dict.fromkeys(
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2"), Kind("HEIF", True)
    ),
    b"crx ": Kind("Canon CR3", True),
}
"""Major brand of an ISO base media file (ISO/IEC 14496-12 `ftyp`) -> format; other brands are video."""

_MARKUP = (
    (b"<!doctype html", Kind("HTML", False)),
    (b"<html", Kind("HTML", False)),
    (b"<head", Kind("HTML", False)),
    (b"<body", Kind("HTML", False)),
    (b"<svg", Kind("SVG", True)),
)


def sniff(data: Sliced) -> Kind | None:
    """The format of a file by its first bytes, or None if they fit none."""
    head = data[:_SIGNATURE_BYTES]
    for signature, kind in _SIGNATURES_BY_BYTE.get(head[:1], ()):
        if head.startswith(signature):
            return kind
    if head[:2] == b"BM" and head[6:10] == bytes(4):  # the fields that are reserved
        return Kind("BMP", True)
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    if head[4:8] == b"ftyp":
        return _sniff_iso_media(data)
    return _sniff_text(data[:1024])


def _sniff_iso_media(data: Sliced) -> Kind:
    if (kind := _BRANDS.get(data[8:12])) and kind.name != "HEIF":
        return kind
    size = min(int.from_bytes(data[:4], "big"), 256)
    compatible = [data[at : at + 4] for at in range(16, size, 4)]
    if b"avif" in compatible:  # `mif1` says only "a still picture"; the codec is among the compatible brands
        return Kind("AVIF", True)
    return kind or Kind("an MP4 or QuickTime video", False)


def _sniff_text(start: bytes) -> Kind | None:
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for tag, kind in _MARKUP:
        if text.startswith(tag):
            return kind
    if text.startswith((b"<?xml", b"<!--", b"<!doctype")):
        inner = next((kind for tag, kind in _MARKUP if tag in text), None)
        return inner or Kind("XML", False)
    if re.match(rb'[\[{]\s*(["\[{\]}]|-?\d|true|false|null)', text):
        return Kind("JSON", False)
    if text[:2] in (b"p1", b"p2", b"p3", b"p4", b"p5", b"p6", b"p7", b"pf") or text.startswith((b"#define", b"/* xpm")):
        return None  # picture formats that begin with readable letters
    printable = sum(32 <= byte < 127 or byte in b"\t\n\r" or byte >= 128 for byte in start)
    if start and printable == len(start):
        try:
            start[:1000].decode("utf-8", errors="strict" if len(start) < 1000 else "ignore")
        except UnicodeDecodeError:
            return None
        return Kind("text", False)
    return None


def webp_outline(data: Sliced) -> bytes:
    """A WebP of the same length and header, whose coded pixels are zeros. It keeps the size, frames, colour profile,
    EXIF and XMP (RIFF container of the WebP specification). Chunk heads and chunks without pixels are read; a file of
    very many chunks is read whole, which is less work."""
    outline = bytearray(len(data))
    outline[:12] = data[0:12]
    at, num_chunks = 12, 0
    while at + 8 <= len(data):
        num_chunks += 1
        if num_chunks > _WEBP_MOST_CHUNKS:
            return bytes(data)
        head = data[at : at + 8 + _WEBP_HEAD_BYTES]
        name, length = head[:4], int.from_bytes(head[4:8], "little")
        if name not in _WEBP_PIXELS and name != b"ANMF":
            head = data[at : at + 8 + length]
        outline[at : at + len(head)] = head
        # the chunks of a frame follow its 16 bytes, and those of the next frame follow them
        at += 8 + (16 if name == b"ANMF" else length + length % 2)
    return bytes(outline)


def webp_pixels(data: bytes) -> Iterator[Span]:
    """The parts of a still WebP with its lossy pixels. A plain ground of a lossless one may be coded as zeros."""
    at = 12
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"VP8 ":
            yield at + 8, end
        at = end + end % 2


_WEBP_PIXELS = (b"VP8 ", b"VP8L", b"ALPH")
_WEBP_MOST_CHUNKS = 64
_WEBP_HEAD_BYTES = 32
"""Bytes of a chunk that are kept: they hold the size of its picture and whether it has alpha, or a frame's head."""
