"""Entries are the index's rows, whatever is selected, however they are asked for, in little memory."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.shard_index import INDEX_FILE, INDEX_SCHEMA, ShardIndex
from training.data import selection
from training.data.selection import MEMBERS, Selection

NUM_ROWS = 3000


def index_table(num_rows: int = NUM_ROWS, shard_rows: int = 250) -> pa.Table:
    """Rows that differ in every column that an entry has."""
    numbers = np.arange(num_rows)
    columns = {
        "image_id": [f"{number:032x}" for number in numbers],
        "shard": [f"1.0/1.0-{number // shard_rows:06d}.tar" for number in numbers],
        "image_ext": [("jpg", "png", "webp")[number % 3] for number in numbers],
    }
    columns |= {f"{kind}_offset": numbers * 100 + place for place, kind in enumerate(MEMBERS)}
    columns |= {f"{kind}_size": numbers * 100 + 50 + place for place, kind in enumerate(MEMBERS)}
    other = {"string": "a", "int32": 1, "int64": 1, "float": 1.0}
    return pa.table(
        {f.name: columns.get(f.name, [other.get(str(f.type))] * num_rows) for f in INDEX_SCHEMA}, schema=INDEX_SCHEMA
    )


TABLE = index_table()
INDEX = ShardIndex.of(TABLE, part_rows=700)


def check(rows: Selection, row: int, number: int) -> None:
    entry = rows.entry(row)
    assert (entry.image_id, entry.shard) == (f"{number:032x}", f"1.0/1.0-{number // 250:06d}.tar")
    assert entry.image_ext == ("jpg", "png", "webp")[number % 3]
    assert entry.offsets == tuple(number * 100 + place for place in range(3))
    assert entry.sizes == tuple(number * 100 + 50 + place for place in range(3))


@pytest.mark.slow
@given(
    chosen=st.sets(st.integers(0, NUM_ROWS - 1), min_size=1, max_size=60) | st.none(), block=st.sampled_from([7, 1024])
)
@settings(max_examples=40, deadline=None)
def test_any_selection_in_any_blocks_has_the_rows_of_the_index(chosen, block):
    numbers = list(range(NUM_ROWS)) if chosen is None else sorted(chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "BLOCK_ROWS", block)
        rows = Selection(INDEX, None if chosen is None else np.array(numbers, np.int32))
        assert rows.num_rows == len(numbers)
        for row in {0, len(numbers) - 1, len(numbers) // 2, len(numbers) // 3}:
            check(rows, row, numbers[row])
    read = [value for part in rows.parts(["image_size"]) for value in part["image_size"].to_pylist()]
    assert read == [number * 100 + 50 for number in numbers]
    shards = [number // 250 for number in numbers]
    codes = rows.codes("shard").tolist()
    assert [a == b for a, b in pairwise(codes)] == [a == b for a, b in pairwise(shards)]


@pytest.mark.slow
def test_threads_share_it_and_old_blocks_go(monkeypatch):
    monkeypatch.setattr(selection, "BLOCK_ROWS", 100)
    monkeypatch.setattr(selection, "MOST_BLOCKS", 3)
    rows = Selection(INDEX)
    order = np.random.default_rng(0).permutation(NUM_ROWS)[:300].tolist()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda row: check(rows, row, row), order))
    assert len(rows._blocks) == 3


@given(chosen=st.none() | st.sets(st.integers(0, NUM_ROWS - 1), min_size=1))
@settings(max_examples=20, deadline=None)
def test_shards_come_in_tar_order_with_their_rows(chosen):
    numbers = None if chosen is None else np.array(sorted(chosen), np.int32)
    rows = range(NUM_ROWS) if chosen is None else sorted(chosen)
    expected = Counter(f"1.0/1.0-{row // 250:06d}.tar" for row in rows)
    found = Selection(INDEX, numbers)
    assert list(found.shards().items()) == list(expected.items())
    assert set(found.whole.shards().values()) == {250} and found.whole.num_rows == NUM_ROWS


def test_a_damaged_part_of_the_index_is_named(tmp_path):
    path = tmp_path / INDEX_FILE
    pq.write_table(TABLE, path, compression="zstd")
    column = pq.ParquetFile(path).metadata.row_group(0).column(INDEX_SCHEMA.get_field_index("image_offset"))
    data = bytearray(path.read_bytes())
    begin = column.dictionary_page_offset or column.data_page_offset
    data[begin + 30 : begin + column.total_compressed_size] = bytes(column.total_compressed_size - 30)
    path.write_bytes(data)
    rows = Selection(ShardIndex(tmp_path))
    assert len(rows.codes("shard")) == NUM_ROWS  # the other columns are whole
    with pytest.raises(ValueError, match=r"index\.parquet: the index cannot be read .*rebuild it"):
        rows.entry(5)
