"""Directories of a TIFF (6.0) or BigTIFF: which of its pictures are pages, and which are copies or masks of another."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from schemas.slices import Sliced, most_parts

SUBFILE, OLD_SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
STRIPS, CHANNELS, STRIP_BYTES, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 273, 277, 279, 322, 323, 324, 325
SUB_DIRECTORIES, SAMPLE_FORMAT, DNG_VERSION = 330, 339, 50706

MOST_DIRECTORIES = 1000
"""Pages are counted up to here."""
_MOST_FIELDS = 1024
_REDUCED, _MASK = 1, 4
"""Bits of NewSubfileType (TIFF 6.0, section 8): a smaller copy of another picture, and its mask."""
_OLD_REDUCED = 2
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Field type -> bytes per value (TIFF 6.0 section 2 and BigTIFF)."""
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


class Layout(NamedTuple):
    """Byte order and field sizes of a file."""

    order: str
    big: bool
    first: int
    """Place of the first directory."""

    @classmethod
    def of(cls, data: Sliced) -> Layout | None:
        """None where the file ends before its header."""
        if len(data) < 16:
            return None
        head = data[0:16]
        order = "<" if head[:2] == b"II" else ">"
        big = head[2:4] in (b"+\x00", b"\x00+")
        return cls(order, big, struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)[0])


class Field(NamedTuple):
    type: int
    num: int
    value: bytes
    """The value itself, or its place in the file."""


class Directory(NamedTuple):
    """One picture of a file."""

    layout: Layout
    fields: dict[int, Field]
    num_fields: int
    """Those that have the same tag as another are counted, too."""
    next: int
    """Place of the next directory; 0 behind the last."""

    @classmethod
    def at(cls, data: Sliced, layout: Layout, place: int) -> Directory | None:
        """None where the file ends before the directory does, or it has more fields than any file that is a picture."""
        order, head, size, link = (layout.order, 8, 20, 8) if layout.big else (layout.order, 2, 12, 4)
        if place < 8 or place + head > len(data):
            return None
        count = struct.unpack(order + ("Q" if layout.big else "H"), data[place : place + head])[0]
        end = place + head + count * size
        if end + link > len(data) or count > _MOST_FIELDS:
            return None
        table = data[place + head : end + link]
        entry = struct.Struct(order + ("HHQ8s" if layout.big else "HHI4s"))
        fields = {tag: Field(*rest) for tag, *rest in (entry.unpack_from(table, n * size) for n in range(count))}
        return cls(layout, fields, count, struct.unpack(order + ("Q" if layout.big else "I"), table[-link:])[0])

    def numbers(self, data: Sliced, tag: int, most: int = 64) -> tuple[int, ...]:
        """The first values of a field; empty where there is none, or no whole number."""
        field = self.fields.get(tag)
        if field is None or field.type not in _WHOLE_NUMBERS:
            return ()
        count = min(field.num, most)
        size = count * _SIZES[field.type]
        place = self.place(field)
        raw = field.value[:size] if place is None else data[place : place + size]
        return struct.unpack(f"{self.layout.order}{count}{_WHOLE_NUMBERS[field.type]}", raw) if len(raw) == size else ()

    def number(self, data: Sliced, tag: int, default: int = 0) -> int:
        """The first value of a field."""
        return next(iter(self.numbers(data, tag, 1)), default)

    def place(self, field: Field) -> int | None:
        """Where the values of a field begin; None where they are in the directory itself."""
        if field.num * _SIZES.get(field.type, 0) <= len(field.value):
            return None
        return int(struct.unpack(self.layout.order + ("Q" if self.layout.big else "I"), field.value)[0])

    def end_of_values(self) -> int:
        """First byte behind the values of all fields."""
        places = ((self.place(field), field) for field in self.fields.values())
        return max((at + field.num * _SIZES[field.type] for at, field in places if at is not None), default=0)

    def is_page(self, data: Sliced) -> bool:
        """Whether it is a picture of its own: no smaller copy and no mask."""
        is_part = self.number(data, SUBFILE) & (_REDUCED | _MASK)
        return not is_part and self.number(data, OLD_SUBFILE) != _OLD_REDUCED


def directories(data: Sliced) -> Iterator[Directory]:
    """The directories of a file in their order, at most `MOST_DIRECTORIES`, and no more fields in all than the file may
    have parts. A loop in the chain ends it."""
    layout, left = Layout.of(data), most_parts(len(data))
    place, seen = layout.first if layout else 0, set[int]()
    while layout and place and place not in seen and len(seen) < MOST_DIRECTORIES:
        found = Directory.at(data, layout, place)
        if found is None or found.num_fields > left:
            return
        seen.add(place)
        left -= found.num_fields
        yield found
        place = found.next


def sub_directories(data: Sliced, directory: Directory) -> Iterator[Directory]:
    """The directories that a field of another names: larger or smaller copies of its picture."""
    for place in directory.numbers(data, SUB_DIRECTORIES, most=16):
        if (found := Directory.at(data, directory.layout, place)) is not None:
            yield found


def num_pages(data: Sliced) -> int:
    """Number of pictures of their own; a file whose every picture is marked as a copy has one."""
    found = [directory.is_page(data) for directory in directories(data)]
    return max(sum(found), 1) if found else 0


def first_page(data: Sliced) -> int:
    """Which directory holds the picture, counted from 0: the first that is no smaller copy and no mask."""
    return next((number for number, found in enumerate(directories(data)) if found.is_page(data)), 0)


def num_pieces(data: Sliced) -> int:
    """Strips or tiles of the first page; all of them can be the same bytes."""
    found = next((found for found in directories(data) if found.is_page(data)), None) or next(directories(data), None)
    return max((found.fields[tag].num for tag in (STRIPS, TILES) if tag in found.fields), default=0) if found else 0
