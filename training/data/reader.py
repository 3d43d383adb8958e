"""One sample from a shard: its bytes by offset from the index, never by walking the tar."""

from __future__ import annotations

import json
import os
import tarfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from schemas.pixels import PixelError, open_rgb
from schemas.shard_index import ShardIndex
from training.data.order import Shape
from training.data.selection import MEMBERS, Entry, Selection
from training.data.transform import Pixels, crop_to

TAR_BLOCK = 512
"""A member's header fills the 512 bytes before its data."""
MOST_OPEN = 256
"""Tars kept open; a dataset may have more of them than a process may have files."""


class DamagedSample(ValueError):
    """The sample's own bytes are no picture or no captions; another may take its place."""


@dataclass(frozen=True)
class Sample:
    """A training picture and its captions.

    Attributes:
        pixels: (3, height, width) uint8, cropped.
        mixed: the caption the dataset chose.
        raw, synthetic: either may be missing, not both.
    """

    image_id: str
    pixels: Pixels
    mixed: str
    raw: str | None
    synthetic: str | None

    def caption(self, synthetic: bool) -> str:
        """The synthetic or the raw caption; where the one asked for is missing, the other."""
        first, second = (self.synthetic, self.raw) if synthetic else (self.raw, self.synthetic)
        return first or second or self.mixed


class Members(NamedTuple):
    """A sample's members as they lie in the tar: views of what was read in one go."""

    image: memoryview
    txt: memoryview
    json: memoryview


class ShardReader:
    """Reads samples of the selected index rows. Safe to share between threads.

    Args:
        rows: the selection, or an index as a table.
    """

    def __init__(self, shards: Path, rows: Selection | pa.Table) -> None:
        self._shards = shards
        self._rows = Selection(ShardIndex.of(rows)) if isinstance(rows, pa.Table) else rows
        self._tars: OrderedDict[str, _Tar] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._rows.num_rows

    def read(self, row: int, shape: Shape) -> Sample:
        """The sample of an index row, its picture scaled to cover `shape` and cropped.

        Raises:
            DamagedSample: the sample's bytes cannot be used.
            ValueError: the index does not fit its tar, or the tar is gone.
        """
        entry = self._rows.entry(row)
        members = self._members(entry)
        try:
            pixels = crop_to(open_rgb(bytes(members.image), cover_px=shape), shape)
            mixed = str(members.txt, "utf-8").strip()
            raw, synthetic = captions_of(json.loads(bytes(members.json)))
        except (PixelError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DamagedSample(f"{entry.image_id} in {entry.shard}: {error}") from error
        if not (mixed or raw or synthetic):
            raise DamagedSample(f"{entry.image_id} in {entry.shard}: has no caption")
        return Sample(entry.image_id, pixels, mixed, raw, synthetic)

    def members(self, row: int) -> Members:
        """The bytes of an index row's sample, undecoded.

        Raises:
            ValueError: the index does not fit its tar, or the tar is gone.
        """
        return self._members(self._rows.entry(row))

    def close(self) -> None:
        with self._lock:
            self._tars.clear()

    def _members(self, entry: Entry) -> Members:
        tar = self._open(entry.shard)
        spans = [(at - TAR_BLOCK, at + size) for at, size in zip(entry.offsets, entry.sizes, strict=True)]
        begin, end = min(first for first, _ in spans), max(last for _, last in spans)
        # Members that lie next to each other add a header and padding each: then one read has them all.
        if end - begin <= sum(entry.sizes) + 2 * len(spans) * TAR_BLOCK:
            whole = tar.read(begin, end)
            pieces = [whole[first - begin : last - begin] for first, last in spans]
        else:
            pieces = [tar.read(first, last) for first, last in spans]
        for kind, piece, offset, size in zip(MEMBERS, pieces, entry.offsets, entry.sizes, strict=True):
            name = f"{entry.image_id}.{entry.image_ext if kind == 'image' else kind}"
            if len(piece) != TAR_BLOCK + size or not _is_header_of(piece[:TAR_BLOCK], name, size):
                found = member_of(bytes(piece[:TAR_BLOCK]))
                raise ValueError(
                    f"{self._shards / entry.shard}: the index says {name} of {size} bytes lies at {offset}, the tar "
                    f"has {f'{found[0]} of {found[1]} bytes' if found else 'no member'} there; rebuild the shards"
                )
        return Members(*(piece[TAR_BLOCK:] for piece in pieces))

    def _open(self, shard: str) -> _Tar:
        with self._lock:
            tar = self._tars.get(shard)
            if tar is None:
                path = self._shards / shard
                if not path.resolve().is_relative_to(self._shards.resolve()):
                    raise ValueError(f"{shard}: the index names a shard outside {self._shards}")
                try:
                    tar = self._tars[shard] = _Tar(os.open(path, os.O_RDONLY))
                except OSError as error:
                    raise ValueError(f"{path}: the index names this shard, but {error.strerror}") from None
                if len(self._tars) > MOST_OPEN:
                    self._tars.popitem(last=False)
            self._tars.move_to_end(shard)
            return tar


class _Tar:
    """An open tar; closed when the last thread that reads from it lets go of it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __del__(self) -> None:
        os.close(self._descriptor)

    def read(self, begin: int, end: int) -> memoryview:
        """Bytes begin..end - 1, fewer at the tar's end; moves no file position that threads would share."""
        return memoryview(os.pread(self._descriptor, end - begin, begin) if 0 <= begin < end else b"")


def _is_header_of(header: memoryview, name: str, size: int) -> bool:
    """Whether a tar header is that of a member, without parsing it where the fields are the plain ones."""
    plain = header[:100] == name.encode().ljust(100, b"\0") and header[124:136] == b"%011o\0" % size
    return plain or member_of(bytes(header)) == (name, size)


def member_of(header: bytes) -> tuple[str, int] | None:
    """Name and size in a tar header block, or None where the bytes are no header."""
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return info.name, info.size


def captions_of(facts: Any) -> tuple[str | None, str | None]:
    """The raw and the first synthetic caption in a sample's json; empty ones count as missing."""
    if not isinstance(facts, dict):
        raise DamagedSample("its json is no mapping")
    synthetic = next((entry.get("caption") for entry in facts.get("captions_synthetic") or []), None)
    return facts.get("caption_raw") or None, synthetic or None
