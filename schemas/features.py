"""Stored features: latents and text embeddings in tars next to the shards, their knobs, and the place of each array.

    FEATURES/<set>/features.json              the knobs of the set, and the shard index that it covers
    FEATURES/<set>/<shard>.tar                one .npy member per array, keys and their order as in the image shard
    FEATURES/<set>/<shard>.parquet            one row per sample: the places of its arrays, or why it has none

A set of latents has `<key>.latents.npy` per sample; a set of text `<key>.mixed.npy`; one for a toss `<key>.raw.npy`,
`<key>.synthetic.npy` and, where it is neither of the two, `<key>.mixed.npy`. numpy has no bfloat16: its bits are stored
as uint16.
"""

from __future__ import annotations

import io
import tokenize
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.files import find_files, is_file, open_file, parquet_source, read_file, sha256_of, size_of
from schemas.seal import check_file, read_json, write_json
from schemas.unread import is_unread, why_damaged

RECORD_FILE = "features.json"
NULL_FILE = "null.npy"
"""The null caption of a set of text, (max_tokens, channels) float32."""
VERSION = 1
"""Version of this layout and of the offline encoders, whose constants are no knobs."""

LATENTS = ("latents",)
"""Arrays of a set of latents: (1 or 2, channels, height / 8, width / 8), the mean and, where latents are drawn, the
standard deviation of the encoder's Gaussian, neither scaled."""
MIXED = ("mixed",)
"""Arrays of a set of text: the caption that the dataset chose, (tokens, channels), unpadded."""
TOSSED = ("raw", "synthetic", "mixed")
"""Arrays of a set of text for a toss. Equal captions share one array, which the first one names."""
PLACE = ("offset", "size", "crc32")
"""Per array in a set's table: its first byte in the tar, its bytes, and a checksum that older sets lack."""
CUT_COLUMN = "cut"
"""The column of a set of text that names the arrays whose caption was cut."""

SOURCE_KEY = b"sigma.source"
"""Parquet metadata: digest of the index rows that a shard was encoded from."""
MADE_BY_KEY = b"sigma.made_by"
"""Parquet metadata: fingerprint of the knobs that it was encoded with."""
TAR_BYTES_KEY = b"sigma.tar_bytes"
"""Parquet metadata: size of its tar."""
TAR_DIGEST_KEY = b"sigma.tar_sha256"
"""Parquet metadata: sha256 of its tar, which older sets lack."""


def places_schema(arrays: tuple[str, ...]) -> pa.Schema:
    """Columns of the Parquet file of a tar of features."""
    places = [(f"{array}_{what}", pa.int64()) for array in arrays for what in PLACE]
    cut = [] if arrays == LATENTS else [(CUT_COLUMN, pa.list_(pa.string()))]
    return pa.schema([pa.field("key", pa.string(), nullable=False), ("damage", pa.string()), *cut, *places])


def member_name(key: str, array: str) -> str:
    return f"{key}.{array}.npy"


MEMBER_DOTS = 2
"""Dots of a member's extension; the key holds none."""


@dataclass(frozen=True)
class SetRecord:
    """The facts of a set as a whole."""

    made_by: dict[str, Any]
    """The knobs that its numbers depend on, by their dotted path."""
    index: str | None = None
    """sha256 of the shard index of which every sample is there; None until then."""
    num_samples: int = 0
    num_damaged: int = 0
    """Samples that could not be encoded."""
    num_bytes: int = 0
    """Of the tars."""
    null_crc32: int | None = None
    """Checksum of the file of the null caption; None for latents."""


def read_record(folder: Path) -> SetRecord | None:
    """The record of a set; None where none was begun. Raises ValueError: it is damaged."""
    path = folder / RECORD_FILE
    try:
        return SetRecord(**read_json(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: damaged ({why_damaged(error)}); remove {folder} and encode it anew") from None


def write_record(folder: Path, record: SetRecord) -> None:
    write_json(folder / RECORD_FILE, asdict(record))


def difference(made_by: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first knob in which a set differs from the wanted one, with both values; None where there is none. A wanted
    value of None is unknown and not compared."""
    for key in sorted({*made_by, *wanted}):
        if key in wanted and wanted[key] is None:
            continue
        if made_by.get(key) != wanted.get(key):
            return f"{key} = {made_by.get(key)}, the recipe now has {wanted.get(key)}"
    return None


def encode_npy(array: NDArray[Any]) -> bytes:
    """An array as the bytes of a .npy file; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def damaged_files(folder: Path, shards: Path) -> list[Path]:
    """The files of a set that are not as they were written, that are missing, or that belong to no shard."""
    bad, null = [], folder / NULL_FILE
    try:
        record = read_record(folder)
        promised = None if record is None else record.null_crc32
        if promised is not None and not (is_file(null) and zlib.crc32(read_file(null)) == promised):
            bad.append(null)
    except ValueError:
        bad.append(folder / RECORD_FILE)
    written = {path for path in find_files(folder, "**/*-*.*") if path.suffix in (".tar", ".parquet")}
    for tar in sorted({path.with_suffix(".tar") for path in written}):
        places = tar.with_suffix(".parquet")
        if not is_file(shards / tar.relative_to(folder)) or not _fit(tar, places):
            bad += [path for path in (tar, places) if path in written]
    return bad


def _fit(tar: Path, places: Path) -> bool:
    """Whether a tar is the one that its table was written with, to the last byte; of older sets, each of its arrays."""
    try:
        with parquet_source(places, whole=True) as source:
            check_file(source)
            table = pq.read_table(source, partitioning=None)
        promised = table.schema.metadata or {}
        if TAR_DIGEST_KEY in promised:
            return sha256_of(tar).encode() == promised[TAR_DIGEST_KEY]
        whole = size_of(tar) == int(promised.get(TAR_BYTES_KEY, -1))
        return whole and wrong_array(tar, table.to_pydict()) is None
    except (ValueError, OSError, pa.ArrowException) as error:
        if is_unread(error):
            raise
        return False


def wrong_array(tar: Path, places: Mapping[str, Sequence[Any]]) -> str | None:
    """The key of the first sample of a tar with an array whose bytes are not those that were written; or None.
    `places`: the columns of its table. Raises OSError: the tar cannot be read."""
    with open_file(tar) as file:
        for column in [name for name in places if name.endswith("_crc32")]:
            array = column.removesuffix("_crc32")
            found = zip(places["key"], places[f"{array}_offset"], places[f"{array}_size"], places[column], strict=True)
            for key, offset, size, checksum in found:
                if checksum is not None:
                    file.seek(offset)
                    if zlib.crc32(file.read(size)) != checksum:
                        return str(key)
    return None


def decode_npy(data: memoryview) -> NDArray[Any]:
    """The array in the bytes of a .npy file; it shares them. Raises ValueError: they are none."""
    prefix = np.lib.format.MAGIC_LEN + 2
    start = prefix + int.from_bytes(data[prefix - 2 : prefix], "little")
    try:
        shape, dtype = _npy_header(bytes(data[:start]))
    except (SyntaxError, tokenize.TokenError, TypeError) as error:  # numpy reads the header as Python
        raise ValueError(f"no header of .npy ({error})") from None
    count = int(np.prod(shape))
    if len(data) != start + count * dtype.itemsize:
        raise ValueError(f"{len(data) - start} bytes for an array of {shape} {dtype}")
    return np.frombuffer(data, dtype, count, start).reshape(shape)


@lru_cache(maxsize=4096)  # parsing one takes longer than reading a small array, and they repeat
def _npy_header(header: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    buffer = io.BytesIO(header)
    if np.lib.format.read_magic(buffer) != (1, 0):
        raise ValueError("another version of .npy")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
    if fortran or dtype.hasobject:
        raise ValueError("no plain C-ordered array")
    return shape, dtype
