"""Reads arrays of a set of features: found by key in the table next to each tar, read by offset."""

from __future__ import annotations

import zlib
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from schemas.features import CUT_COLUMN, decode_npy, member_name
from schemas.lru import Lru
from schemas.seal import check_file
from schemas.shard import BLOCK
from schemas.unread import why_damaged
from training.data.reader import DamagedSample, member_of
from training.data.tars import Copies, open_tar

SHARDS_OPEN = 128
"""Shards of a set whose tables are kept in memory; a window of the order touches fewer."""


MEND = "sigma encode RECIPE writes it again"
"""The way out where features do not fit."""


class StoredShard:
    """One tar of features and its table."""

    def __init__(self, tar: Path, copies: Copies | None = None) -> None:
        is_remote = copies is not None and tar.is_relative_to(copies.folder)
        self._name = copies.shown(tar) if copies is not None and is_remote else str(tar)
        places = tar.with_suffix(".parquet")
        try:
            if copies is not None and is_remote and not places.is_file():
                copies.store.fetch(copies.key(places), places)
            check_file(places)
            self._places = pq.read_table(places, partitioning=None, memory_map=False).to_pydict()
            self._tar = open_tar(tar, copies)
        except (OSError, pa.ArrowException) as error:
            why = why_damaged(error).splitlines()[0]
            raise ValueError(f"{self._name}: cannot be read ({why}); delete it, then {MEND}") from None
        self._row_of = {key: row for row, key in enumerate(self._places["key"])}

    def read(self, key: str, array: str) -> Tensor | None:
        """An array of a sample as it is stored; None where it has none of that name. Raises DamagedSample: it could not
        be encoded. Raises ValueError: the set does not fit its own table, or its shard."""
        row = self._row_of.get(key)
        if row is None:
            raise ValueError(f"{self._name}: holds no features of {key}; {MEND}")
        if self._places["damage"][row] is not None:
            raise DamagedSample(f"{self._places['damage'][row]} (when it was encoded)")
        offset, size = self._places[f"{array}_offset"][row], self._places[f"{array}_size"][row]
        if offset is None:
            return None
        checksum = self._places.get(f"{array}_crc32", {row: None})[row]
        data = self._tar.read(offset - BLOCK, offset + size)
        found = member_of(bytes(data[:BLOCK]))
        try:  # an equal caption is stored under another array's name
            if len(data) != BLOCK + size or found is None or found[1] != size or not found[0].startswith(f"{key}."):
                raise ValueError(f"{member_name(key, array)} is not at {offset}, where its table says")
            if checksum is not None and zlib.crc32(data[BLOCK:]) != checksum:
                raise ValueError(f"the checksum of {member_name(key, array)} is wrong")
            return as_tensor(decode_npy(data[BLOCK:]))
        except ValueError as error:
            raise ValueError(f"{self._name}: damaged ({error}); delete it, then {MEND}") from None

    def is_cut(self, key: str, array: str) -> bool:
        """Whether the caption was cut before it was encoded; false in sets that do not say."""
        names = self._places[CUT_COLUMN][self._row_of[key]] if CUT_COLUMN in self._places else None
        return array in (names or ())


class StoredArrays:
    """Reads the arrays of a set. Safe to share between threads; keeps the shards that it used last."""

    def __init__(self, folder: Path, copies: Copies | None = None) -> None:
        self.folder, self._copies = folder, copies
        self._shards = Lru[str, StoredShard](SHARDS_OPEN)

    def read(self, shard: str, key: str, array: str) -> Tensor | None:
        return self._shard(shard).read(key, array)

    def is_cut(self, shard: str, key: str, array: str) -> bool:
        return self._shard(shard).is_cut(key, array)

    def _shard(self, shard: str) -> StoredShard:
        return self._shards.get(shard, partial(StoredShard, self.folder / shard, self._copies))


def as_stored(values: Tensor, dtype: str) -> Any:
    """A float tensor as a numpy array to store: float32, or the bits of bfloat16 as uint16."""
    values = values.detach().cpu().contiguous()
    return values.float().numpy() if dtype == "fp32" else values.bfloat16().view(torch.uint16).numpy()


def as_tensor(array: Any) -> Tensor:
    """The inverse of `as_stored`: float32 or bfloat16."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if tensor.dtype == torch.uint16 else tensor
