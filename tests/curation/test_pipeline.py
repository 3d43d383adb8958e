from __future__ import annotations

from typing import Any

import duckdb
import pytest

from curation import catalog
from curation.dataset import Dataset
from curation.doctor import check_dataset
from curation.pipeline import conserve
from tests.building import build, recipe


def test_every_connection_of_a_build_takes_the_memory_of_the_recipe(
    small: Dataset, copy_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a build with something to do, of one that only counts, and of a doctor of what they made."""
    limits: list[tuple[str]] = []
    connect = catalog.connect

    def noting(*given: Any) -> duckdb.DuckDBPyConnection:
        connection = connect(*given)
        limits.extend(connection.sql("SELECT current_setting('memory_limit')").fetchall())
        return connection

    monkeypatch.setattr(catalog, "connect", noting)
    dataset = copy_of(small)
    run = {"runner": "local", "threads": 1, "duckdb_memory": "512MB"}
    made = recipe(small.root.parent / "photos", dataset.root, shard={"max_samples": 3}, run=run)
    build(made, redo=["dedup"])
    num_building = len(limits)
    assert num_building > 3
    build(made)
    check_dataset(dataset.root)
    assert len(limits) == num_building + 2
    assert set(limits) == {("488.2 MiB",)}


def test_memory_that_does_not_suffice_for_counting_is_named(small: Dataset) -> None:
    with pytest.raises(ValueError, match=r"^counting the ledger: run\.duckdb_memory=1MB does not suffice"):
        conserve(small, "1MB")
