from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from engine import reduce_job
from engine import sorted_on_disk as module
from engine.catalog import connect
from engine.dataset import Dataset
from engine.duck import SPILLED
from engine.reduce_job import some_parts_at_a_time
from engine.sorted_on_disk import sorted_on_disk
from tests.building import put, table_of

NUM_PARTS, PART_ROWS = 7, 50


def dataset_of(root: Path) -> tuple[Dataset, list[tuple[int, int, str]]]:
    """A dataset of some parts, and its rows as (width, row_id, member) in order; few widths are of one row alone."""
    dataset, chance, found = Dataset(root), random.Random(0), []
    for number in range(NUM_PARTS):
        rows = [
            {"row_id": row_id, "source": "/photos", "source_name": "photos", "member": f"{row_id}.jpg"}
            | {"image_id": f"{row_id}", "width": chance.randint(1, 40)}
            for row_id in range(number * PART_ROWS, (number + 1) * PART_ROWS)
        ]
        for table in ("listing", "images"):
            put(dataset, table, number, table_of(table, rows))
        found += [(row["width"], row["row_id"], row["member"]) for row in rows]
    return dataset, sorted(found)


@pytest.mark.parametrize("run_rows", [1, 150, 5000])
@pytest.mark.parametrize("stretch_bytes", [1, 2_000, 1_000_000])
def test_rows_come_in_order_however_they_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_rows: int, stretch_bytes: int
) -> None:
    monkeypatch.setattr(reduce_job, "RUN_ROWS", run_rows)
    monkeypatch.setattr(module, "STRETCH_BYTES", stretch_bytes)
    monkeypatch.setattr(module, "BLOCK_BYTES", 200)
    dataset, wanted = dataset_of(tmp_path / "data")
    with connect(dataset, reads=["listing", "images"]) as connection:
        sql = "SELECT width, row_id, listing.member FROM listing JOIN images USING (row_id) ORDER BY width, row_id"
        runs = some_parts_at_a_time(connection, dataset.held(), ["listing", "images"], sql, 64)
        batches = list(sorted_on_disk(runs, dataset.root / SPILLED, ["width", "row_id"], batch_rows=64))
    table = pa.Table.from_batches(batches)
    assert list(zip(*(column.to_pylist() for column in table.columns), strict=True)) == wanted
    assert all(len(batch) <= 64 for batch in batches)
    assert not [*(dataset.root / SPILLED).iterdir()]


@pytest.mark.parametrize(
    ("run_rows", "text_bytes", "wanted"),
    [(8 * 2 * PART_ROWS, 1, [2, 5]), (8 * 2 * PART_ROWS, 200, [2, 3, 2]), (8, 1000, [1] * NUM_PARTS), (10**9, 1, [7])],
)
def test_a_run_is_of_fewer_rows_where_these_are_wide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_rows: int, text_bytes: int, wanted: list[int]
) -> None:
    monkeypatch.setattr(reduce_job, "RUN_ROWS", run_rows)
    monkeypatch.setattr(reduce_job, "RUN_BYTES", 40_000)
    dataset, _ = dataset_of(tmp_path / "data")
    with connect(dataset, reads=["listing", "images"]) as connection:
        sql = f"SELECT row_id, repeat('x', {text_bytes}) AS text FROM images"
        runs = some_parts_at_a_time(connection, dataset.held(), ["listing", "images"], sql, 64)
        assert [sum(len(batch) for batch in run) for run in runs] == [PART_ROWS * num_parts for num_parts in wanted]


def test_no_rows_give_no_batch(tmp_path: Path) -> None:
    none = pa.table({"width": pa.array([], pa.int32()), "row_id": pa.array([], pa.int64())}).to_batches()
    assert not list(sorted_on_disk([none, [], none], tmp_path, ["width", "row_id"], 64))


def test_some_parts_alone_are_those_of_tables_cut_as_the_listing_is(tmp_path: Path) -> None:
    held = dataset_of(tmp_path / "data")[0].held()
    some = held.only([5, 1])
    assert list(some.parts("images")) == [5, 1] and len(some.paths("images")) == 2
    assert len(held.paths("images")) == NUM_PARTS
