from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands.order import pipeline
from engine import reduce_job
from engine.dataset import Dataset, commit_table
from engine.duck import stream
from engine.reduce_job import ReduceJob, commit_batches
from schemas.files import remove_folder
from schemas.recipe import Balance, DataRecipe
from schemas.tables import schema_of
from tests.building import table_of

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


def test_too_little_memory_is_told_apart(tmp_path: Path) -> None:
    config: dict[str, Any] = {"memory_limit": "20MB", "threads": "1", "temp_directory": ""}
    sql = "SELECT range::VARCHAR || repeat('x', 200) AS row_id FROM range(1000000) ORDER BY hash(range)"
    with duckdb.connect(config=config) as connection, pytest.raises(duckdb.OutOfMemoryException):
        for _ in stream(connection, sql, 4096):
            pass


@pytest.mark.parametrize("table", ["selection", "noun_uses", "balance", "shard_plan"])
def test_the_rows_are_the_same_however_many_parts_are_read_at_a_time(
    demo: Dataset, copy_of: Callable[[Dataset], Dataset], monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """The name of a part has the digest of its rows."""
    dataset, made = copy_of(demo), DataRecipe.load(demo.recipe)
    assert dataset.held().num_parts("listing") > 1
    made = made.model_copy(update={"balance": Balance(most_images=3)}) if table == "balance" else made
    (job,) = (job for job in pipeline(made) if job.outputs == (table,))
    assert isinstance(job, ReduceJob) and job.by_parts
    names = []
    for num_rows in (1, 1_000_000):
        monkeypatch.setattr(reduce_job, "RUN_ROWS", num_rows)
        monkeypatch.setattr(reduce_job, "COUNTED_ROWS", num_rows)
        remove_folder(dataset.folder(table))
        job.prepare(dataset, job.state(dataset.held()), redo=False)
        job.run(dataset)
        names.append([path.name for path in dataset.parts(table)])
    assert names[0] == names[1] and names[0]
