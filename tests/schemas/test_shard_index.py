from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.shard_index import INDEX_FILE, INDEX_SCHEMA, read_index


def index_rows(count: int = 2) -> pa.Table:
    values = {"string": "1.0", "int32": 7, "int64": 512, "float": 1.0}
    columns = {field.name: pa.array([values.get(str(field.type))] * count, field.type) for field in INDEX_SCHEMA}
    return pa.table(columns, schema=INDEX_SCHEMA)


def test_the_index_is_read_as_it_was_written(tmp_path: Path) -> None:
    pq.write_table(index_rows(), tmp_path / INDEX_FILE)
    assert read_index(tmp_path).equals(index_rows())


def test_other_columns_and_another_order_do_not_matter(tmp_path: Path) -> None:
    table = index_rows().append_column("more", pa.array([1, 2])).select(["more", *reversed(INDEX_SCHEMA.names)])
    pq.write_table(table, tmp_path / INDEX_FILE)
    assert read_index(tmp_path).schema == INDEX_SCHEMA


def test_a_folder_above_is_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "width=3"
    folder.mkdir()
    pq.write_table(index_rows(), folder / INDEX_FILE)
    assert read_index(folder)["width"].to_pylist() == [7, 7]


def test_a_missing_index_is_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"index\.parquet: no shard index here; build the dataset first"):
        read_index(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_an_index_that_is_cut_short_is_named(tmp_path: Path, keep: int) -> None:
    pq.write_table(index_rows(), tmp_path / INDEX_FILE)
    data = (tmp_path / INDEX_FILE).read_bytes()
    (tmp_path / INDEX_FILE).write_bytes(data[:keep])
    with pytest.raises(ValueError, match=r"index\.parquet: the index cannot be read \("):
        read_index(tmp_path)


def test_an_index_from_before_the_digests_reads_as_without(tmp_path: Path) -> None:
    pq.write_table(index_rows().drop_columns(["content"]), tmp_path / INDEX_FILE)
    assert read_index(tmp_path)["content"].null_count == 2
    assert read_index(tmp_path, ["content", "key"]).schema.names == ["content", "key"]
    assert read_index(tmp_path).drop_columns(["content"]).equals(index_rows().drop_columns(["content"]))


def test_an_index_of_another_version_names_what_it_lacks(tmp_path: Path) -> None:
    pq.write_table(index_rows().drop_columns(["txt_size", "weight"]), tmp_path / INDEX_FILE)
    with pytest.raises(ValueError, match="the index lacks weight, txt_size; it was written by another version"):
        read_index(tmp_path)
