"""The log of runs is read whole, and a damaged entry does not keep the others from being read."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.dataset import Dataset
from engine.run_log import JobResult, read_runs, write_run


def test_a_damaged_record_is_named_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = Dataset(tmp_path)
    assert read_runs(dataset) == []
    write_run(dataset, JobResult("ingest", ("images",), 3, 2, 7, {"corrupt": 1}, 2.0, {"images": 6, "worker_s": 4.0}))
    (dataset.runs / "20200101T000000000000-mix.json").write_text('{"job": "mix", "sec')
    (dataset.runs / "20200102T000000000000-mix.json").write_text('{"job": "mix"}')
    (dataset.runs / "20200103T000000000000-mix.json").write_bytes(b"\xff\xfe")
    (entry,) = read_runs(dataset)
    assert (entry["job"], entry["parts_computed"], entry["rows_by_reason"]) == ("ingest", 2, {"corrupt": 1})
    assert (entry["images"], entry["images_per_s"]) == (6, 3.0)
    assert [record.getMessage().split("runs/")[1] for record in caplog.records] == [
        f"2020010{day}T000000000000-mix.json: is no record of a run; passed over" for day in (1, 2, 3)
    ]
