from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine import counts
from engine.dataset import Dataset, as_stored, commit_table
from engine.duck import stream
from engine.names import NOTHING, PartName
from engine.part_file import PartFile, commit_batches, part_files, shard_digests
from schemas.columns import SHARDS_PER_PART
from schemas.tables import schema_of
from tests.building import put, table_of

REASONS = ("too_small", None, "duplicate", None, "too_small")


def selection(num_rows: int) -> pa.Table:
    return table_of(
        "selection",
        (
            {"row_id": row, "image_id": f"id{row}", "rejected_by": REASONS[row % 5], "kept": False, "subsets": []}
            for row in range(num_rows)
        ),
    )


@pytest.mark.parametrize("num_rows", [0, 1, 99, 100, 101, 250])
@pytest.mark.parametrize("batch_rows", [1, 7, 100, 1000])
def test_the_bytes_do_not_depend_on_the_batches(tmp_path: Path, num_rows: int, batch_rows: int) -> None:
    table, metadata = selection(num_rows), {"sigma.made_by": "abc"}
    batches = table.to_batches(max_chunksize=batch_rows)
    rows = commit_batches(tmp_path / "batches", batches, schema_of("selection"), metadata, 100)
    commit_table(tmp_path / "whole", table, schema_of("selection"), metadata, 100)
    assert (tmp_path / "batches").read_bytes() == (tmp_path / "whole").read_bytes()
    assert rows == num_rows


def test_row_groups_are_of_one_size(tmp_path: Path) -> None:
    commit_batches(tmp_path / "rows", selection(250).to_batches(max_chunksize=33), schema_of("selection"), {}, 100)
    footer = pq.read_metadata(tmp_path / "rows")
    assert [footer.row_group(group).num_rows for group in range(footer.num_row_groups)] == [100, 100, 50]


def test_an_error_on_the_way_leaves_no_file(tmp_path: Path) -> None:
    sql = "SELECT range AS row_id, CASE WHEN range < 90000 THEN 'x' ELSE error('no such luck') END AS image_id, "
    sql += "NULL AS rejected_by, NULL AS kept, NULL AS subsets FROM range(100000)"
    narrow = pa.schema([schema_of("selection").field("row_id"), schema_of("selection").field("image_id")])
    with duckdb.connect() as connection, pytest.raises(duckdb.Error, match="no such luck"):
        commit_batches(tmp_path / "rows", stream(connection, sql, 4096), narrow, {}, 4096)
    assert list(tmp_path.iterdir()) == []


NUM_SHARDS = 2 * SHARDS_PER_PART + 1


def plan(num_rows: int) -> pa.Table:
    """Rows of a plan of `NUM_SHARDS` shards."""
    shards = sorted(random.Random(0).randrange(NUM_SHARDS) for _ in range(num_rows - NUM_SHARDS))
    rows = [{"shard_id": shard, "row_id": row} for row, shard in enumerate(sorted([*shards, *range(NUM_SHARDS)]))]
    filled = {pa.string(): "a", pa.bool_(): False, pa.list_(pa.string()): []}
    common = {field.name: filled.get(field.type, 0) for field in schema_of("shard_plan") if not field.nullable}
    return as_stored("shard_plan", table_of("shard_plan", [common | row for row in rows]))


@pytest.mark.parametrize("table", ["selection", "shard_plan"])
@pytest.mark.parametrize("cuts", [(), (0,), (1, 2, 3), (999, 1000, 1001), (4095, 4097, 4500)])
def test_a_part_is_what_it_is_when_it_is_committed_whole(tmp_path: Path, table: str, cuts: tuple[int, ...]) -> None:
    rows = as_stored(table, selection(5000) if table == "selection" else plan(5000))
    pieces = [rows.slice(begin, end - begin) for begin, end in pairwise([0, *cuts, len(rows)])]
    whole = Dataset(tmp_path / "whole").commit_part(table, 3, NOTHING, rows)
    streamed = PartFile(Dataset(tmp_path / "streamed"), table, 3, pieces).commit(
        Dataset(tmp_path / "streamed"), NOTHING
    )
    assert streamed.name == whole.name and streamed.read_bytes() == whole.read_bytes()
    assert counts.read_counts(table, [streamed]) == [counts.counts_of(table, rows)]


def test_the_shards_of_a_plan_are_digested_on_the_way(tmp_path: Path) -> None:
    dataset, rows = Dataset(tmp_path), plan(3000)
    parts = list(part_files(rows.to_batches(max_chunksize=100), dataset.held(), "shard_plan"))
    assert [digest for part in parts for digest in part.shards()] == shard_digests(rows, range(NUM_SHARDS))
    paths = [part.commit(dataset, NOTHING) for part in parts]
    assert [PartName.of(path).number for path in paths] == [0, 1, 2]
    assert pa.concat_tables([pq.read_table(path) for path in paths]).equals(rows)


def test_each_part_of_the_listing_has_one_of_the_table(tmp_path: Path) -> None:
    """Also where no row of it is in the table, at the end and in between."""
    dataset = Dataset(tmp_path)
    for number in range(5):
        listed = [
            {"row_id": row, "source": "/", "source_name": "a", "member": "b"}
            for row in range(10 * number, 10 * number + 10)
        ]
        put(dataset, "listing", number, table_of("listing", listed))
    rows = as_stored("selection", selection(50))
    some = pa.concat_tables([rows.slice(3, 9), rows.slice(31, 2)])
    paths = [part.commit(dataset, NOTHING) for part in part_files(some.to_batches(), dataset.held(), "selection")]
    found = [pq.read_table(path)["row_id"].to_pylist() for path in paths]
    assert found == [[3, 4, 5, 6, 7, 8, 9], [10, 11], [], [31, 32], []]
