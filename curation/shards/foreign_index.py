"""Indexes tars that others wrote, WebDataset's or img2dataset's, so that the trainer reads them where they are."""

from __future__ import annotations

import hashlib
import os
import posixpath
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.images.header import Header, Unreadable, read_header, refuse_animated
from curation.images.lazy_bytes import FIRST_BYTES, LazyBytes
from curation.shards.rewriter import COPY_BYTES
from curation.sources.folder import image_extensions
from curation.sources.item import SourceListing, member_name
from curation.sources.patterns import find_files
from curation.sources.tars import TarContents, members, split_key
from engine.ahead import ahead
from engine.dataset import ROW_GROUP_ROWS
from engine.part_file import commit_batches
from schemas.buckets import LABELS, nearest_codes
from schemas.files import open_file, sweep_folder
from schemas.foreign_tars import caption_of
from schemas.ids import image_id
from schemas.locations import absolute, on_disk
from schemas.shard import content_of
from schemas.shard_index import INDEX_FILE, INDEX_SCHEMA, TARS_KEY
from schemas.texts import LONGEST_CAPTION, LONGEST_TEXT_BYTES, counted
from schemas.tokens import count_tokens

THREADS = 4
"""Tars whose headers are read at the same time."""
Place = tuple[int, int]
"""(first byte of a member's data in the tar, its bytes)"""


@dataclass
class Indexed:
    """What an index holds, and what it leaves out. `buckets`: samples of each aspect bucket. `left_out`: what is no
    sample, by the reason."""

    path: Path
    num_tars: int
    buckets: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


def find_tars(tars: str) -> list[str]:
    """The local tars of a folder or a pattern. Raises ValueError: there is none, or they are in a store."""
    return find_files(absolute(on_disk(tars)), (".tar",), "tar", SourceListing([], {}))


def index_tars(tars: list[str], dataset: Path | None, progress: Callable[[int], None]) -> Indexed:
    """Write `shards/index.parquet` over tars, whose bytes are left alone.

    A sample is a picture whose header can be read, with a caption in its `.txt` or its `.json`. Its id is a hash of its
    place, so that it keeps its place in training where its bytes change; `content` tells that they did.

    Args:
        dataset: the folder that the index goes to; None is the folder of the tars.
        progress: called after each tar.

    Raises:
        ValueError: no sample is found, or `dataset` holds shards of its own.
    """
    root = Path(os.path.commonpath([os.path.dirname(tar) for tar in tars]))  # noqa: PTH120 - names may be no UTF-8
    dataset = root if dataset is None else dataset.absolute()
    path = dataset / "shards" / INDEX_FILE
    if path.is_file() and TARS_KEY not in (pq.read_schema(path).metadata or {}):
        raise ValueError(f"{dataset}: is a dataset that sigma build made, with an index; train on it as it is")
    sweep_folder(path.parent)
    found = Indexed(path, len(tars))
    where = os.path.relpath(root, path.parent) if dataset == root else str(root)
    commit_batches(
        path, _batches(tars, root, found, progress), INDEX_SCHEMA, {TARS_KEY.decode(): where}, ROW_GROUP_ROWS
    )
    return found


def _batches(tars: list[str], root: Path, found: Indexed, progress: Callable[[int], None]) -> Iterator[pa.RecordBatch]:
    for rows, left_out in ahead(partial(_scan, root), tars, THREADS):
        found.left_out.update(left_out)
        found.buckets.update(row["bucket"] for row in rows)
        progress(1)
        yield from pa.Table.from_pylist(rows, schema=INDEX_SCHEMA).to_batches()
    if not found.buckets:
        why = (
            ", ".join(f"{count:,} {reason}" for reason, count in found.left_out.most_common()) or "they hold no picture"
        )
        raise ValueError(f"{root}: no sample in {counted(len(tars), 'tar')} has a picture and a caption ({why})")


def _scan(root: Path, tar: str) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The rows of one tar in its order, and counts of what is no sample."""
    left_out, contents = Counter[str](), TarContents()
    shard = member_name(os.fsencode(os.path.relpath(tar, root)))
    try:
        with open_file(Path(tar)) as file:
            samples = _samples(file, contents, left_out)
            rows = [row for sample in samples if (row := _row(file, shard, *sample, left_out)) is not None]
    except OSError as error:
        return [], Counter({f"tars that cannot be read ({error.strerror})": 1})
    if contents.broken is not None:
        left_out[f"tars whose end is lost ({contents.broken[0].value})"] += 1
    return sorted(rows, key=lambda row: row["image_offset"]), left_out


def _samples(
    file: IO[bytes], contents: TarContents, left_out: Counter[str]
) -> list[tuple[tuple[int, str], dict[str, Place]]]:
    """The members of each sample with a picture by their extension; key and number of the tar in the file name it."""
    samples: dict[tuple[int, str], dict[str, Place]] = {}
    places: dict[tuple[int, str], Place] = {}
    for number, info in members(file, contents):
        path = info.name.removeprefix("./")
        place = _place(number, info, path, places)
        key, extension = split_key(path)
        if info.isdir() or path.rpartition("/")[2].startswith("."):
            continue
        if place is None:
            left_out["links and special members"] += 1
            continue
        places[number, posixpath.normpath(path)] = place
        extension = "txt" if extension == "caption" else extension
        sample = samples.setdefault((number, key), {})
        is_image = f".{extension.rpartition('.')[2]}" in image_extensions()
        if is_image and any(name not in ("txt", "json") for name in sample):
            left_out["further pictures of a sample"] += 1
        elif is_image or (extension in ("txt", "json") and place[1] <= LONGEST_TEXT_BYTES):
            sample.setdefault(extension, place)
    return [(name, sample) for name, sample in samples.items() if set(sample) - {"txt", "json"}]


def _place(number: int, info: tarfile.TarInfo, path: str, places: dict[tuple[int, str], Place]) -> Place | None:
    """The place of a member's bytes, of a link those of what it leads to; None where there are none."""
    if info.isreg() and not info.issparse():
        return info.offset_data, info.size
    if not info.islnk() and not info.issym():
        return None
    target = info.linkname if info.islnk() else posixpath.join(posixpath.dirname(path), info.linkname)
    return places.get((number, posixpath.normpath(target)))


def _row(
    file: IO[bytes], shard: str, name: tuple[int, str], sample: dict[str, Place], left_out: Counter[str]
) -> dict[str, Any] | None:
    """The index row of a sample; None where it cannot be trained on, which is counted."""
    number, key = name
    extension = next(extension for extension in sample if extension not in ("txt", "json"))
    none = (0, 0)
    text, facts = (sample.get(kind, none) for kind in ("txt", "json"))
    caption = caption_of(*(os.pread(file.fileno(), size, offset) for offset, size in (text, facts)))
    if caption is None:
        left_out["without a caption"] += 1
        return None
    try:
        header = _header(file, *sample[extension])
    except Unreadable as error:
        left_out[f"pictures that are {error.reason.value}"] += 1
        return None
    key = member_name(os.fsencode(key))
    content = hashlib.sha256(f"{shard}\0{number}\0{key}".encode()).hexdigest()
    image_sha256 = _sha256(file, *sample[extension])
    row: dict[str, Any] = {"content": content_of(image_sha256, caption, {})}
    row |= {"key": key, "image_id": image_id(content), "shard": shard, "image_ext": extension}
    row |= {"bucket": LABELS[nearest_codes(np.array([header.height / header.width]))[0]]}
    row |= {"width": header.width, "height": header.height, "num_tokens": count_tokens(caption[:LONGEST_CAPTION])}
    row |= {"caption_source": "raw", "subsets": [], "weight": 1.0}
    for kind, (offset, size) in (("image", sample[extension]), ("txt", text), ("json", facts)):
        row |= {f"{kind}_offset": offset, f"{kind}_size": size}
    return row


def _sha256(file: IO[bytes], offset: int, size: int) -> str:
    digest = hashlib.sha256()
    for begin in range(offset, offset + size, COPY_BYTES):
        digest.update(os.pread(file.fileno(), min(COPY_BYTES, offset + size - begin), begin))
    return digest.hexdigest()


def _header(file: IO[bytes], offset: int, size: int) -> Header:
    """The header of a picture; only its first bytes are read where it ends there."""
    first = os.pread(file.fileno(), min(size, FIRST_BYTES), offset)
    data = LazyBytes(first, size, lambda begin, count: os.pread(file.fileno(), count, offset + begin))
    header = read_header(first if size <= FIRST_BYTES else data)
    refuse_animated(header)
    return header
