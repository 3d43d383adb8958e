"""Bombs that the number of pixels does not show: refused from the structure of the file, before it is decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, islice

from PIL import Image

from schemas import tiff
from schemas.boxes import coding_styles, first_samples, items, num_tiles
from schemas.parts import SCANS, USUAL_SCANS
from schemas.slices import Sliced, most_parts

MAX_SIDE = 1_000_000
"""Longest side, px: each row costs its decoder some 70 bytes, however short it is."""
_MOST_SLOW_PIXELS = 32_000_000
"""Pixels that are decoded one by one, at up to 2 microseconds each."""
_MOST_SLOW_BYTES = 24
"""Bytes that a pixel of these may have; three numbers of five digits and a space take 18."""
_MOST_COMMENTS = 1000
"""Comments of a PPM in letters, each of which costs a copy of a megabyte."""
_SMALL_TILE = 2048 * 2048
"""Pixels of a tile that may be larger than the picture."""
_MOST_ENLARGED = 4
_MOST_SCANNED = 500_000_000
"""Pixels that all scans of a JPEG read together, at up to 10 ns each."""
_MOST_BLOCKS = 300_000
"""Code-blocks of a channel of a JPEG 2000, at up to 5 KB of memory each; 300 megapixels usually have 73,000."""
_PIXELS_PER_BLOCK = 128
"""The usual blocks have 4096 pixels, and small ones 256."""
_TILE_BLOCKS = 9
"""Twice as many code-blocks as cost what any tile costs, 13 KB; 300 megapixels in tiles of 128 px pass."""
_MOST_FRAMES = 16
"""Frames of one AV1 picture: one, or a few layers; all but the last can be hidden."""
_SEQUENCE_HEADER = 1
"""Type of the unit that holds the size of an AV1 picture (AV1 specification, 6.2.2)."""
_FRAMES = (3, 6)


def too_large(image: Image.Image, data: Sliced, size: tuple[int, int], max_pixels: int) -> str | None:
    """Why a picture is too large to be decoded: by its header, or because its file makes the decoder take time or
    memory for more. `image`: opened from `data` by `schemas.opening.open_file`, not loaded. `size`: by its header,
    px."""
    num_pixels = size[0] * size[1]
    if num_pixels > max_pixels:
        return f"{size[0]}x{size[1]} px, the limit is {max_pixels} px"
    if max(size) > MAX_SIDE:
        return f"{size[0]}x{size[1]} px, the limit of a side is {MAX_SIDE} px"
    check = _CHECKS.get(image.format or "")
    hidden = check(data, num_pixels, max_pixels) if check else _scans(image.info.get(SCANS, 0), num_pixels)
    if any(tile.codec_name in Image.DECODERS for tile in getattr(image, "tile", ())[:1]):
        hidden = _slow(data, num_pixels)
    return hidden and f"{image.format}: {hidden}"


def _slow(data: Sliced, num_pixels: int) -> str | None:
    """Pillow decodes some formats in Python: QOI, run lengths of BMP, DDS without blocks, PPM in letters or odd
    whites."""
    if num_pixels > _MOST_SLOW_PIXELS:
        return f"it is of a kind that is decoded slowly, and the limit for these is {_MOST_SLOW_PIXELS} px"
    if data[0:2] in (b"P1", b"P2", b"P3") and (num := data[0 : len(data)].count(b"#")) > _MOST_COMMENTS:
        return f"it has {num} comments, the limit is {_MOST_COMMENTS}"
    most = _MOST_SLOW_BYTES * num_pixels + (1 << 20)
    return f"it has {len(data)} bytes, where {num_pixels} px need at most {most}" if len(data) > most else None


def _tiff(data: Sliced, num_pixels: int, max_pixels: int) -> str | None:
    page = next(islice(tiff.directories(data), tiff.first_page(data), None), None)
    if page is None:
        return None
    width, height = (page.number(data, tag) for tag in (tiff.TILE_WIDTH, tiff.TILE_HEIGHT))
    if width * height > max(_SMALL_TILE, _MOST_ENLARGED * num_pixels):
        return f"it has tiles of {width}x{height} px"
    return None


def _avif(data: Sliced, num_pixels: int, max_pixels: int) -> str | None:
    """The decoder believes the coded size of each picture and tile, and scales it to what the boxes say."""
    num_coded = num_bytes = num_units = 0
    for spans in chain(items(data), first_samples(data)):
        num_bytes += sum(max(0, min(end, len(data)) - start) for start, end in spans)
        if num_bytes > _MOST_ENLARGED * len(data):
            return "its items overlap"
        units, size, num_frames = b"".join(data[start:end] for start, end in spans), (0, 0), 0
        for kind, start in _av1_units(units):
            num_units += 1
            num_frames += kind in _FRAMES
            if kind == _SEQUENCE_HEADER:
                size = max(size, _Bits(units[start : start + 256]).av1_size(), key=math.prod)
            if num_units > most_parts(len(data)):
                return f"it has more than {most_parts(len(data))} units"
        width, height = size
        if width * height > max_pixels:
            return f"it is coded as {width}x{height} px, the limit is {max_pixels} px"
        if num_frames > _MOST_FRAMES:
            return f"it is coded in more than {_MOST_FRAMES} frames"
        num_coded += width * height
    most = max(max_pixels, _MOST_ENLARGED * num_pixels)
    return f"it is coded as {num_coded} px in all, the limit is {most} px" if num_coded > most else None


def _jpeg2000(data: Sliced, num_pixels: int, max_pixels: int) -> str | None:
    tiles = num_tiles(data)
    most = min(most_parts(0) + num_pixels // _PIXELS_PER_BLOCK, _MOST_BLOCKS)
    for style in coding_styles(data):
        num = num_pixels * _blocks_per_pixel(style) + tiles * _TILE_BLOCKS
        if num > most:
            return f"it is coded in {num:.0f} blocks, the limit is {most}"
    return None


def _scans(num: int, num_pixels: int) -> str | None:
    """`schemas.parts` counts the scans of a JPEG; of a small picture it is content with many."""
    most = max(_MOST_SCANNED // max(num_pixels, 1), USUAL_SCANS)
    return f"it has {num} scans, the limit for {num_pixels} px is {most}" if num > most else None


_CHECKS = {"TIFF": _tiff, "AVIF": _avif, "JPEG2000": _jpeg2000}


def _blocks_per_pixel(style: bytes) -> float:
    """Code-blocks of a JPEG 2000 per pixel and channel, which the sizes of blocks and precincts bound (A.6.1)."""
    if len(style) < 5:
        return 0
    levels, width, height = style[0], (style[1] & 15) + 2, (style[2] & 15) + 2
    num = 0.0
    for resolution in range(levels + 1):
        precinct = style[5 + resolution] if len(style) > 5 + resolution else 0xFF
        halved = int(resolution > 0)
        across, down = min(width, (precinct & 15) - halved), min(height, (precinct >> 4) - halved)
        num += 1 / (1 << max(across, 0) + max(down, 0)) / 4 ** (levels - resolution)
    return num


def _av1_units(data: bytes) -> Iterator[tuple[int, int]]:
    """(type, first byte behind its header) of each unit of an AV1 picture."""
    at = 0
    while at + 2 < len(data):
        kind, has_size, extended = data[at] >> 3 & 15, data[at] & 2, data[at] >> 2 & 1
        at += 1 + extended
        length, shift = 0, 0
        while has_size and at < len(data):
            length |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if not data[at - 1] & 128:
                break
        yield kind, at
        if not has_size or shift > 56:
            return
        at += length


class _Bits:
    """Reads numbers of any width from bytes; zeros follow the end."""

    def __init__(self, data: bytes) -> None:
        self._left = len(data) * 8
        self._data = int.from_bytes(data, "big")

    def take(self, num: int) -> int:
        self._left -= num
        return (self._data >> self._left if self._left >= 0 else 0) & ((1 << num) - 1)

    def av1_size(self) -> tuple[int, int]:
        """The largest size of a sequence header (AV1 specification, 5.5.1)."""
        self.take(4)
        if self.take(1):  # the short header of a still picture
            self.take(5)
        else:
            self._skip_operating_points()
        widths, heights = self.take(4) + 1, self.take(4) + 1
        return self.take(widths) + 1, self.take(heights) + 1

    def _skip_operating_points(self) -> None:
        delay_bits = 0
        if self.take(1):  # timing
            self.take(64)
            if self.take(1):
                zeros = 0
                while zeros < 32 and not self.take(1):
                    zeros += 1
                self.take(zeros)
            if self.take(1):  # decoder model
                delay_bits = self.take(5) + 1
                self.take(42)
        has_delays = self.take(1)
        for _ in range(self.take(5) + 1):
            self.take(12)
            if self.take(5) > 7:
                self.take(1)
            if delay_bits and self.take(1):
                self.take(2 * delay_bits + 1)
            if has_delays and self.take(1):
                self.take(4)
