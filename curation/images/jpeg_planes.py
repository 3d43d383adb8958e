"""A JPEG of any layout as grey ones that hold the same codes: the strict decoder knows few layouts, but always grey.
Damage shows in the codes, and these do not depend on where their blocks are in the picture. So the blocks of a scan are
taken as those of a grey picture, whose pixels mean nothing."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from schemas.jpeg_segments import SCAN, is_frame

_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
"""Start-of-frame markers with Huffman codes (ITU-T T.81, table B.1); contexts of the others depend on the component."""
_RESTART_INTERVAL = 0xDD
_MOST_COLUMNS = 65_500 // 8
"""Blocks in a row of the widest picture that libjpeg decodes."""
_MOST_INTERVAL = 65_535

_FLAT_TABLE = bytes((0xFF, 0xC4, 0, 20, 3, 1, *bytes(15), 0))
"""Huffman table 3 of DC: the bit 0 says that a block is as bright as the one before it."""


class _Grid(NamedTuple):
    """Blocks of a grey picture, and how many of them a restart interval counts as one."""

    columns: int
    rows: int
    num_per_unit: int


def grey_views(pieces: Sequence[bytes]) -> Iterator[list[bytes]]:
    """One grey JPEG for each set of components that has scans of its own. Left out are interleaved scans whose
    components have different Huffman tables, and arithmetic coding. `pieces`: the start marker, then each segment in
    turn followed by the data behind it. Yields the pieces of a JPEG."""
    pairs = list(zip(pieces[1::2], pieces[2::2], strict=True))
    frame = next((head for head, _ in pairs if is_frame(head[1])), b"")
    is_cut = len(frame) < 13 or len(frame) < 10 + 3 * frame[9]
    if is_cut or not frame[9] or frame[1] not in (*_SEQUENTIAL, _PROGRESSIVE):
        return
    for members in dict.fromkeys(_members(head) for head, _ in pairs if head[1] == SCAN):
        grid = _grid(frame, members)
        if grid is not None:
            view = _view(pairs, frame, members, grid)
            if any(head[1] == SCAN for head in view[::2]):
                yield [pieces[0], *view]


def _members(scan: bytes) -> bytes:
    """The identifiers of the components of a scan (B.2.3); none where its header is cut."""
    return scan[5:-3:2]


def _grid(frame: bytes, members: bytes) -> _Grid | None:
    """None where libjpeg has no picture of so many blocks, or the scan is none of this frame."""
    height, width = struct.unpack_from(">HH", frame, 5)
    factors = {frame[at]: (frame[at + 1] >> 4, frame[at + 1] & 15) for at in range(10, 10 + 3 * frame[9], 3)}
    most_across, most_down = (max(each) for each in zip(*factors.values(), strict=True))
    if not members or not factors.keys() >= set(members) or not most_across * most_down:
        return None
    if len(members) == 1:
        across, down = factors[members[0]]
        grid = _Grid(-(-width * across // (8 * most_across)), -(-height * down // (8 * most_down)), 1)
    else:
        num = sum(across * down for across, down in (factors[member] for member in members))
        columns, rows = -(-width // (8 * most_across)), -(-height // (8 * most_down))
        in_rows, in_columns = _Grid(num * columns, rows, num), _Grid(columns, num * rows, num)
        grid = in_rows if in_rows.columns <= _MOST_COLUMNS else in_columns
    return grid if 0 < grid.columns <= _MOST_COLUMNS and 0 < grid.rows <= _MOST_COLUMNS else None


def _view(pairs: list[tuple[bytes, bytes]], frame: bytes, members: bytes, grid: _Grid) -> list[bytes]:
    """Segments and data in turn."""
    view, interval, is_first = list[bytes](), 0, True
    for head, samples in pairs:
        if is_frame(head[1]):
            view += (_grey_frame(frame, members, grid), b"")
        elif head[1] == _RESTART_INTERVAL:
            interval = int.from_bytes(head[4:6], "big") * grid.num_per_unit
        elif head[1] != SCAN:
            view += (head, samples)
        elif _members(head) == members and interval <= _MOST_INTERVAL and _has_one_table(head):
            first, _, bits = head[-3:]
            if is_first and frame[1] == _PROGRESSIVE and (first or bits >> 4):
                view += _flat_scan(grid, 0 if first else bits >> 4)
            scan = bytes((0xFF, SCAN, 0, 8, 1, 1, head[6])) + head[-3:]
            view += (_interval(interval), b"", scan, samples)
            is_first = False
    return view


def _has_one_table(scan: bytes) -> bool:
    """Whether all components of a scan have the same Huffman tables."""
    first, last, bits = scan[-3:]
    used = (0 if first or bits >> 4 else 0xF0) | (0x0F if last else 0)
    return len({table & used for table in scan[6:-3:2]}) == 1


def _grey_frame(frame: bytes, members: bytes, grid: _Grid) -> bytes:
    quantizer = next(frame[at + 2] for at in range(10, 10 + 3 * frame[9], 3) if frame[at] == members[0])
    size = struct.pack(">HH", 8 * grid.rows - 4, 8 * grid.columns - 4)
    return frame[:2] + bytes((0, 11, frame[4])) + size + bytes((1, 1, 0x11, quantizer))


def _flat_scan(grid: _Grid, lowest_bit: int) -> tuple[bytes, ...]:
    """The first scan of a progressive picture, which has to come before all others: each block is grey."""
    scan = bytes((0xFF, SCAN, 0, 8, 1, 1, 0x30, 0, 0, lowest_bit))
    return _FLAT_TABLE, b"", _interval(0), b"", scan, bytes(-(-grid.columns * grid.rows // 8))


def _interval(num: int) -> bytes:
    return bytes((0xFF, _RESTART_INTERVAL, 0, 4)) + num.to_bytes(2, "big")
