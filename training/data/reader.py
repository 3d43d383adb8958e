"""Reads one sample of a shard: its bytes by offset from the index, never by walking the tar."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from schemas.foreign_tars import caption_of
from schemas.lru import Lru
from schemas.pixels import PixelError, open_rgb
from schemas.shard import BLOCK, content_of
from schemas.shard_index import ShardIndex
from training.data.captions import RAW, Captions, Cut, by_words, cut_captions
from training.data.order import Shape
from training.data.selection import MEMBERS, Entry, Selection
from training.data.tars import Copies, Tar, open_tar
from training.data.transform import Pixels, crop_to

MOST_OPEN = 256
"""Tars kept open; a dataset may have more of them than a process may have files."""


class DamagedSample(ValueError):
    """The sample's own bytes are no picture or no captions; another may take its place."""


@dataclass(frozen=True)
class Sample(Captions):
    """A training picture and its captions. `pixels`: (3, height, width) uint8, cropped."""

    image_id: str
    pixels: Pixels


class ShardReader:
    """Reads samples of the selected index rows, for several threads. `rows`: the selection, or an index as a table.
    `cut`: cuts captions that the mix has not cut. `copies`: of a dataset in a store. `folder`: of the tars."""

    def __init__(
        self, shards: Path, rows: Selection | pa.Table, cut: Cut = by_words, copies: Copies | None = None
    ) -> None:
        self._shards, self._cut, self._copies = shards, cut, copies
        self._rows = Selection(ShardIndex.of(rows)) if isinstance(rows, pa.Table) else rows
        self.folder = shards if self._rows.tars is None else Path(os.path.normpath(shards / self._rows.tars))
        self._tars = Lru[str, Tar](MOST_OPEN)

    def __len__(self) -> int:
        return self._rows.num_rows

    @property
    def _mend(self) -> str:
        return "rebuild the shards" if self._rows.tars is None else f"run sigma index {self.folder} again"

    def over(self, rows: Selection) -> ShardReader:
        """The same over other rows of the index."""
        return ShardReader(self._shards, rows, self._cut, self._copies)

    def read(self, row: int, shape: Shape) -> Sample:
        """The sample of an index row, its picture scaled to cover `shape` and cropped. Raises DamagedSample: the
        sample's bytes cannot be used. Raises ValueError: the index does not fit its tar, or the tar is gone."""
        entry = self._rows.entry(row)
        image, text, facts = self._members(entry, MEMBERS)
        captions = self._captions_in(entry, text, facts, image)
        try:
            pixels = crop_to(open_rgb(bytes(image), cover_px=shape), shape)
        except PixelError as error:
            raise DamagedSample(f"{entry.name} in {entry.shard}: {error}") from error
        return Sample(**vars(captions), image_id=entry.image_id, pixels=pixels)

    def captions(self, row: int) -> Captions:
        """The captions of an index row; its picture is not read. Raises DamagedSample, ValueError: as `read`."""
        entry = self._rows.entry(row)
        text, facts = self._members(entry, ("txt", "json"))
        return self._captions_in(entry, text, facts)

    def _captions_in(
        self, entry: Entry, text: memoryview, facts: memoryview, image: memoryview | None = None
    ) -> Captions:
        """The captions; where the image is given, both are what the index was written over."""
        if self._rows.tars is None:
            return _captions(entry, text, facts, self._cut, image)
        written = caption_of(bytes(text), bytes(facts))
        if written is None:
            raise DamagedSample(f"{entry.name} in {entry.shard}: has no caption")
        _check_content(entry, image, written, {})
        return cut_captions(self._cut(written), written, None, RAW, self._cut)

    def members(self, row: int) -> dict[str, memoryview]:
        """The undecoded members of an index row's sample: 'image', 'txt' and 'json'. Raises ValueError: as `read`."""
        return dict(zip(MEMBERS, self._members(self._rows.entry(row), MEMBERS), strict=True))

    def entry(self, row: int) -> Entry:
        """The sample of an index row, and its position."""
        return self._rows.entry(row)

    def close(self) -> None:
        self._tars.clear()

    def _members(self, entry: Entry, kinds: Sequence[str]) -> list[memoryview]:
        tar = self._tars.get(entry.shard, partial(self._open, entry.shard))
        places = [(kind, *entry.place(kind)) for kind in kinds if self._is_there(entry, kind)]
        spans = [(offset - BLOCK, offset + size) for _, offset, size in places]  # its header fills the block before
        begin, end = min(first for first, _ in spans), max(last for _, last in spans)
        # Neighbours add a header and padding each: then one read has them all.
        if end - begin <= sum(size for *_, size in places) + 2 * len(places) * BLOCK:
            whole = tar.read(begin, end)
            pieces = [whole[first - begin : last - begin] for first, last in spans]
        else:
            pieces = [tar.read(first, last) for first, last in spans]
        for (kind, offset, size), piece in zip(places, pieces, strict=True):
            name = f"{entry.image_id}.{entry.image_ext if kind == 'image' else kind}"
            fits = self._is_header(piece[:BLOCK], name, size)
            if len(piece) != BLOCK + size or not fits:
                found = member_of(bytes(piece[:BLOCK]))
                member = f"{found[0]} of {found[1]} bytes" if found else "no member"
                raise ValueError(
                    f"{self.folder / entry.shard}: the index says {name} of {size} bytes begins at {offset}, the tar "
                    f"{'ends inside of it' if fits else f'has {member} there'}; {self._mend}"
                )
        members = {kind: piece[BLOCK:] for (kind, *_), piece in zip(places, pieces, strict=True)}
        return [members.get(kind, memoryview(b"")) for kind in kinds]

    def _is_there(self, entry: Entry, kind: str) -> bool:
        """Whether a sample has a member; those of others' tars may lack a text."""
        return self._rows.tars is None or entry.place(kind)[0] > 0

    def _is_header(self, header: memoryview, name: str, size: int) -> bool:
        if self._rows.tars is None:
            return _is_header_of(header, name, size)
        found = member_of(bytes(header))  # a name may be long, linked or in any letters: the size has to do
        return found is not None and found[1] == size

    def _open(self, shard: str) -> Tar:
        path = self.folder / shard
        is_foreign = self._rows.tars is not None  # its tars may be links to other disks
        place = Path(os.path.normpath(path)) if is_foreign else path.resolve()
        if not place.is_relative_to(self.folder if is_foreign else self.folder.resolve()):
            raise ValueError(f"{shard}: the index names a shard outside {self.folder}")
        try:
            return open_tar(place if is_foreign else path, self._copies)
        except OSError as error:
            raise ValueError(f"{path}: the index names this shard, but {error.strerror}") from None


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


def _captions(
    entry: Entry, text: memoryview, json_member: memoryview, cut: Cut = by_words, image: memoryview | None = None
) -> Captions:
    """The mixed, the raw and the first synthetic caption of a sample; empty ones count as missing."""
    try:
        mixed, facts = str(text, "utf-8").strip(), json.loads(bytes(json_member))
        if not isinstance(facts, dict):
            raise ValueError("its json is no mapping")
        raw = facts.get("caption_raw") or None
        synthetic = next((found.get("caption") for found in facts.get("captions_synthetic") or []), None) or None
        if any(not isinstance(caption, str | None) for caption in (raw, synthetic)):
            raise ValueError("a caption in its json is no text")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:  # it may be any JSON
        raise DamagedSample(f"{entry.name} in {entry.shard}: its json is no sample's ({error})") from error
    if not (mixed or raw or synthetic):
        raise DamagedSample(f"{entry.name} in {entry.shard}: has no caption")
    _check_content(entry, image, str(text, "utf-8"), facts)
    return cut_captions(mixed, raw, synthetic, facts.get("caption_source"), cut)


def _check_content(entry: Entry, image: memoryview | None, text: str, facts: Mapping[str, Any]) -> None:
    if entry.content is None or image is None:
        return
    if content_of(hashlib.sha256(image).hexdigest(), text, facts) != entry.content:
        raise DamagedSample(f"{entry.name} in {entry.shard}: has another picture or caption than when it was indexed")
