"""Find pictures that show the same by their embeddings: k-means, then all pairs inside each cluster. SemDeDup (Abbas,
Tirumala, Simig, Ganguli, Morcos, "SemDeDup: Data-efficient learning at web-scale through semantic deduplication",
2023), up to the choice of the picture to keep, which `select` makes. Vectors go through files, one per range of
clusters, so memory holds one file at a time. Two pictures on different sides of a border between clusters are not
compared: unlike the other evidence, this one may miss pairs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from engine.reduce_job import Connection

CLUSTER_ROWS = 1000
"""Pictures per cluster, on average."""
MAX_CLUSTERS = 50_000
TRAINING_ROWS = 64
"""Pictures per cluster that k-means learns from."""
ITERATIONS = 20
FILE_BYTES = 2**28
"""Vectors that are held at once, on average."""
BATCH_ROWS = 16_384
_BLOCK_ROWS = 2048
_DIGITS = 5
"""Cosines are rounded to this many, so that the order of a sum decides nothing."""

_VECTORS = "SELECT row_id, embedding::FLOAT[] AS embedding FROM embeddings WHERE embedding IS NOT NULL"


def find_similar(connection: Connection, threshold: float, into: str) -> None:
    """Write the pairs of a cluster whose cosine is at least `threshold` into a new table (a, b, distance). The distance
    is 1 - cosine, a < b. Which pictures train the clusters is decided by their ids, not their order. Raises ValueError:
    there are no embeddings, or faiss is not installed."""
    connection.execute(f"CREATE TEMP TABLE {into} (a BIGINT, b BIGINT, distance FLOAT)")
    counted = connection.execute(f"SELECT count(*), max(len(embedding)) FROM ({_VECTORS})").fetchall()
    num_rows, num_dims = counted[0]
    if not num_rows:
        raise ValueError("dedup.semantic_threshold: the dataset has no embeddings; set it to null, or compute them")
    index = _train(connection, num_rows)
    num_clusters = int(index.ntotal)
    num_files = min(num_clusters, max(1, num_rows * num_dims * 2 // FILE_BYTES))
    with tempfile.TemporaryDirectory(dir=_spill_folder(connection)) as folder:
        paths = [Path(folder) / f"{number}.bin" for number in range(num_files)]
        layout = np.dtype([("cluster", "<i4"), ("row_id", "<i8"), ("vector", "<f2", (num_dims,))])
        _deal_out(connection, index, paths, layout)
        for path in paths:
            rows = np.fromfile(path, dtype=layout)
            rows = rows[np.lexsort((rows["row_id"], rows["cluster"]))]
            for cluster in np.split(rows, np.flatnonzero(np.diff(rows["cluster"])) + 1):
                for pairs in similar_pairs(cluster["row_id"], cluster["vector"], threshold):
                    _insert(connection, pairs, into)


def require_faiss() -> None:
    """See that faiss is installed; it is not imported. Raises ValueError: it is not; the message has the command that
    installs it."""
    if find_spec("faiss") is None:
        raise ValueError("dedup.semantic_threshold needs faiss: pip install faiss-cpu, or set it to null")


def similar_pairs(row_ids: np.ndarray, vectors: np.ndarray, threshold: float) -> Iterator[dict[str, np.ndarray]]:
    """All pairs of one cluster, a block of rows at a time. `row_ids`: (N,), ascending. `vectors`: (N, D)."""
    unit = _unit(vectors)
    for begin in range(0, len(unit), _BLOCK_ROWS):
        block = unit[begin : begin + _BLOCK_ROWS]
        cosines = np.round(block @ unit[begin:].T, _DIGITS)  # (block, rows from the block on)
        first, second = np.nonzero(np.triu(cosines >= np.float32(threshold), k=1))
        if len(first):
            distance = np.maximum(1 - cosines[first, second], 0)
            yield {"a": row_ids[begin + first], "b": row_ids[begin + second], "distance": distance}


def _train(connection: Connection, num_rows: int) -> Any:
    """A faiss index of the centroids, spherical k-means over pictures that a hash of their ids picks."""
    require_faiss()
    import faiss

    num_clusters = max(1, min(MAX_CLUSTERS, num_rows // CLUSTER_ROWS))
    picked = (
        f"SELECT embedding FROM ({_VECTORS.replace('row_id,', 'row_id, image_id,')}) "
        f"ORDER BY md5(image_id), row_id LIMIT {num_clusters * TRAINING_ROWS}"
    )
    table = connection.sql(picked).to_arrow_table()
    vectors = _unit(_matrix(table["embedding"].combine_chunks()))
    kmeans = faiss.Kmeans(vectors.shape[1], num_clusters, niter=ITERATIONS, seed=0, spherical=True)
    kmeans.train(vectors)
    return kmeans.index


def _deal_out(connection: Connection, index: Any, paths: list[Path], layout: np.dtype[Any]) -> None:
    """Append each row to the file of its cluster."""
    files: list[IO[bytes]] = [path.open("wb") for path in paths]
    try:
        for batch in connection.sql(_VECTORS).to_arrow_reader(BATCH_ROWS):
            vectors = _matrix(batch.column("embedding"))
            rows = np.empty(len(vectors), dtype=layout)
            rows["row_id"], rows["vector"] = batch.column("row_id"), vectors
            rows["cluster"] = index.search(_unit(vectors), 1)[1][:, 0]
            for number, file in enumerate(files):
                rows[rows["cluster"] % len(files) == number].tofile(file)
    finally:
        for file in files:
            file.close()


def _matrix(column: pa.Array) -> np.ndarray:
    """A list column as (N, D) float32."""
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return np.ascontiguousarray(values.reshape(len(column), -1))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1 (a row of zeros stays one)."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _insert(connection: Connection, pairs: dict[str, np.ndarray], into: str) -> None:
    connection.register("similar_pairs", pa.table(pairs))
    connection.execute(f"INSERT INTO {into} SELECT a, b, distance FROM similar_pairs")
    connection.unregister("similar_pairs")


def _spill_folder(connection: Connection) -> str | None:
    """The folder that DuckDB spills to, next to the dataset: the system's temporary folder may be small."""
    folder = connection.execute("SELECT current_setting('temp_directory')").fetchall()[0][0]
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
    return folder or None
