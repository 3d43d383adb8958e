"""The benchmark of the driver on a few thousand rows: every phase finds the dataset sound and does its work."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import driver_memory


@pytest.mark.slow
def test_every_phase_does_its_work(tmp_path: Path) -> None:
    num_rows = 2 * driver_memory.PART_ROWS + 100
    driver_memory.write_tables(tmp_path, num_rows)
    driver_memory.write_table_source(tmp_path / "table.parquet", 1000)
    driver_memory.write_files(tmp_path / "files", 50)
    found = {name: driver_memory.run_phase(name, tmp_path, "1GB") for name in driver_memory.PHASES}
    num_pairs = num_rows // driver_memory.PAIR_EVERY
    did = {name: phase["did"] for name, phase in found.items()}
    catalog = did.pop("catalog")
    assert catalog.endswith(" bytes")
    assert did.pop("browse").startswith("answers after ") and did.pop("report") == "0.3 MB"
    assert did == {
        "preflight": "3 parts of 10 tables, 25 open",
        "stage": "1 of 3 parts computed",
        "dedup": f"{2 * num_pairs:,} rows",
        "select": f"{num_rows:,} rows",
        "shard_plan": f"{num_rows - num_pairs:,} rows",
        "index": f"{num_rows:,} samples",
        "cuts": f"{num_rows - num_pairs:,} kept, then 5,867",
        "takedown": "0 rows found",
        "doctor": "17 findings, its tars being empty",
        "conserve": f"{num_rows:,} inputs, 2 kinds",
        "list_table": "1,000 inputs",
        "list_folder": "50 inputs",
    }
    assert all(phase["peak_gib"] > 0.05 and phase["seconds"] > 0 for phase in found.values())
