from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from commands.order import pipeline
from engine import reduce_job
from engine.dataset import Dataset
from engine.duck import stream
from engine.reduce_job import ReduceJob
from schemas.files import remove_folder
from schemas.recipe import Balance, DataRecipe


def test_too_little_memory_is_told_apart(tmp_path: Path) -> None:
    config: dict[str, Any] = {"memory_limit": "20MB", "threads": "1", "temp_directory": ""}
    sql = "SELECT range::VARCHAR || repeat('x', 200) AS row_id FROM range(1000000) ORDER BY hash(range)"
    with duckdb.connect(config=config) as connection, pytest.raises(duckdb.OutOfMemoryException):
        for _ in stream(connection, sql, 4096):
            pass


@pytest.mark.parametrize("table", ["selection", "noun_uses", "statistics", "balance", "shard_plan"])
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
