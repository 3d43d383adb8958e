from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from curation.dedup import semantic
from curation.dedup.dedup import find_groups, reduce_job
from curation.dedup.semantic import find_similar, similar_pairs
from schemas.recipe import DataRecipe, Dedup
from schemas.tables import schema_of
from tests.building import connection_with, run_query, table_of

pytest.importorskip("faiss", reason="the extra `semantic`")

DIMS = 32


def vectors(count: int, near: int, seed: int = 0) -> np.ndarray:
    """`count` random directions, the last `near` of them close to the first ones (cosine about 0.99)."""
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(count, DIMS))
    made[count - near :] = made[:near] + rng.normal(scale=0.1, size=(near, DIMS))
    return made.astype(np.float16)


def embeddings(values: np.ndarray, ids: list[int] | None = None) -> pa.Table:
    ids = ids or list(range(len(values)))
    rows = [
        {"row_id": row, "image_id": f"id{ids[row]}", "model": "clip", "embedding": list(values[row])}
        for row in range(len(values))
    ]
    return pa.Table.from_pylist(rows, schema=schema_of("embeddings"))


def with_embeddings(connection: duckdb.DuckDBPyConnection, table: pa.Table) -> duckdb.DuckDBPyConnection:
    connection.register("_given", table.set_column(3, "embedding", table["embedding"].cast(pa.list_(pa.float32()))))
    connection.execute("CREATE OR REPLACE TEMP TABLE embeddings AS FROM _given")
    return connection


def similar(values: np.ndarray, threshold: float, ids: list[int] | None = None) -> dict[tuple[int, int], float]:
    with with_embeddings(duckdb.connect(), embeddings(values, ids)) as connection:
        find_similar(connection, threshold, into="alike")
        found = connection.execute("SELECT a, b, distance FROM alike").fetchall()
    return {(a, b): distance for a, b, distance in found}


def brute_force(values: np.ndarray, threshold: float) -> dict[tuple[int, int], float]:
    unit = values.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = unit @ unit.T
    count = len(values)
    return {(a, b): 1 - cosines[a, b] for a in range(count) for b in range(a + 1, count) if cosines[a, b] >= threshold}


@pytest.mark.parametrize("threshold", [0.5, 0.95, 0.99])
def test_in_one_cluster_every_pair_is_found(threshold: float) -> None:
    values = vectors(300, near=60)
    expected = brute_force(values, threshold)
    found = similar(values, threshold)
    assert found.keys() == expected.keys()
    assert len(found) > 20
    assert all(found[pair] == pytest.approx(expected[pair], abs=2e-5) for pair in found)


def test_blocks_join_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "_BLOCK_ROWS", 7)
    values = vectors(40, near=15)
    found = list(similar_pairs(np.arange(40), values, 0.9))
    pairs = {(int(a), int(b)) for each in found for a, b in zip(each["a"], each["b"], strict=True)}
    assert pairs == brute_force(values, 0.9).keys()


def test_many_clusters_and_files_miss_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "CLUSTER_ROWS", 50)
    monkeypatch.setattr(semantic, "FILE_BYTES", 4096)
    values = vectors(1000, near=200)
    expected = brute_force(values, 0.95)
    found = similar(values, 0.95)
    assert found.keys() <= expected.keys()
    assert len(found) >= 0.9 * len(expected)


def test_the_order_of_the_inputs_changes_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "CLUSTER_ROWS", 50)
    values = vectors(500, near=100)
    order = list(range(500))
    random.Random(4).shuffle(order)
    moved = similar(values[order], 0.95, ids=order)
    named = {tuple(sorted((order[a], order[b]))): distance for (a, b), distance in moved.items()}
    first = similar(values, 0.95)
    assert named.keys() == first.keys()
    assert all(named[pair] == pytest.approx(first[pair], abs=1e-6) for pair in first)


def test_groups_carry_the_evidence() -> None:
    values = vectors(6, near=1)  # row 5 is close to row 0
    images = [
        {"row_id": row, "image_id": f"id{row}", "source": "s", "source_name": "s", "member": str(row),
         "sha256": "same" if row in (2, 3) else str(row)} for row in range(6)
    ]  # fmt: skip
    with connection_with(images=table_of("images", images)) as connection:
        with_embeddings(connection, embeddings(values))
        section = Dedup(semantic_threshold=0.95)
        found = run_query(connection, find_groups(connection, section))
    shown: list[tuple[Any, ...]] = [(each["row_id"], each["group_id"], each["method"]) for each in found]
    assert shown == [(0, 0, "semantic"), (2, 2, "bytes"), (3, 2, "bytes"), (5, 0, "semantic")]
    assert 0 < found[0]["distance"] == found[3]["distance"] < 0.05


def test_a_zero_vector_is_like_nothing() -> None:
    assert similar(np.zeros((3, DIMS), np.float16), 0.1) == {}


def test_without_embeddings_the_knob_is_named() -> None:
    with (
        with_embeddings(duckdb.connect(), embeddings(vectors(0, 0))) as connection,
        pytest.raises(ValueError, match=r"dedup.semantic_threshold: the dataset has no embeddings"),
    ):
        find_similar(connection, 0.9, into="alike")


def test_the_job_reads_embeddings_only_with_a_semantic_threshold() -> None:
    def job(**section: Any) -> Any:
        stored = {"scorer": "laion", "store_embeddings": True}
        recipe = {"images": "photos", "out": str(Path("out")), "aesthetic": stored, "dedup": section}
        return reduce_job(DataRecipe.from_mapping(recipe))

    assert job().inputs == ("images", "fingerprints")
    assert job(semantic_threshold=0.9).inputs == ("images", "fingerprints", "embeddings")
