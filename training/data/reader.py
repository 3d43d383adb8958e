"""One sample from a shard: its bytes by offset from the index, never by walking the tar."""

from __future__ import annotations

import json
import os
import tarfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from schemas.pixels import PixelError, open_rgb
from training.data.order import Shape
from training.data.transform import Pixels, crop_to

TAR_BLOCK = 512
"""A member's header fills the 512 bytes before its data."""


class DamagedSample(ValueError):
    """The sample's own bytes are no picture or no captions; another may take its place."""


@dataclass(frozen=True)
class Captions:
    """The captions of a picture.

    Attributes:
        mixed: the caption the dataset chose.
        raw, synthetic: either may be missing, not both.
    """

    mixed: str
    raw: str | None
    synthetic: str | None

    def caption(self, synthetic: bool) -> str:
        """The synthetic or the raw caption; where the one asked for is missing, the other."""
        first, second = (self.synthetic, self.raw) if synthetic else (self.raw, self.synthetic)
        return first or second or self.mixed


@dataclass(frozen=True)
class Sample(Captions):
    """A training picture and its captions.

    Attributes:
        pixels: (3, height, width) uint8, cropped.
    """

    image_id: str
    pixels: Pixels


class ShardReader:
    """Reads samples of the selected index rows. Safe to share between threads."""

    def __init__(self, shards: Path, index: pa.Table) -> None:
        self._shards = shards
        self._index = index
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._index.num_rows

    def read(self, row: int, shape: Shape) -> Sample:
        """The sample of an index row, its picture scaled to cover `shape` and cropped.

        Raises:
            DamagedSample: the sample's bytes cannot be used.
            ValueError: the index does not fit its tar, or the tar is gone.
        """
        entry = self._index.slice(row, 1).to_pylist()[0]
        image = self._member(entry, "image")
        captions = self._captions(entry)
        try:
            pixels = crop_to(open_rgb(image, cover_px=shape), shape)
        except PixelError as error:
            raise DamagedSample(f"{entry['image_id']} in {entry['shard']}: {error}") from error
        return Sample(captions.mixed, captions.raw, captions.synthetic, entry["image_id"], pixels)

    def captions(self, row: int) -> Captions:
        """The captions of an index row; its picture is not read.

        Raises:
            DamagedSample, ValueError: as `read`.
        """
        return self._captions(self._index.slice(row, 1).to_pylist()[0])

    def close(self) -> None:
        with self._lock:
            for descriptor in self._files.values():
                os.close(descriptor)
            self._files.clear()

    def _captions(self, entry: dict[str, Any]) -> Captions:
        text, facts = self._member(entry, "txt"), self._member(entry, "json")
        try:
            mixed = text.decode("utf-8").strip()
            raw, synthetic = captions_of(json.loads(facts))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DamagedSample(f"{entry['image_id']} in {entry['shard']}: {error}") from error
        if not (mixed or raw or synthetic):
            raise DamagedSample(f"{entry['image_id']} in {entry['shard']}: has no caption")
        return Captions(mixed, raw, synthetic)

    def _member(self, entry: dict[str, Any], kind: str) -> bytes:
        extension = entry["image_ext"] if kind == "image" else kind
        name, offset, size = f"{entry['key']}.{extension}", entry[f"{kind}_offset"], entry[f"{kind}_size"]
        descriptor = self._open(entry["shard"])
        # A thread-safe read that moves no shared file position.
        data = os.pread(descriptor, TAR_BLOCK + size, offset - TAR_BLOCK) if offset >= TAR_BLOCK else b""
        found = member_of(data[:TAR_BLOCK])
        if len(data) != TAR_BLOCK + size or found != (name, size):
            raise ValueError(
                f"{self._shards / entry['shard']}: the index says {name} of {size} bytes lies at {offset}, the tar has "
                f"{f'{found[0]} of {found[1]} bytes' if found else 'no member'} there; rebuild the shards"
            )
        return data[TAR_BLOCK:]

    def _open(self, shard: str) -> int:
        with self._lock:
            if shard not in self._files:
                path = self._shards / shard
                if not path.resolve().is_relative_to(self._shards.resolve()):
                    raise ValueError(f"{shard}: the index names a shard outside {self._shards}")
                try:
                    self._files[shard] = os.open(path, os.O_RDONLY)
                except OSError as error:
                    raise ValueError(f"{path}: the index names this shard, but {error.strerror}") from None
            return self._files[shard]


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
