"""Rows of a query written as CSV, JSON and Parquet."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from viewer import export
from viewer.export import distinct, exported


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as found:
        yield found


def written(connection: duckdb.DuckDBPyConnection, sql: str, form: str) -> bytes:
    return b"".join(exported(connection.execute(sql), form))


VALUES = """
    SELECT 7 AS id, 'a "b", \nc\td é' AS text, ['x', NULL] AS names, {'k': 0.1} AS pair, true AS flag,
           0.1::FLOAT AS single, 1e300 AS large, 'nan'::DOUBLE AS nothing, NULL AS missing, '\\xff\\x00'::BLOB AS bytes,
           DATE '2020-02-03' AS day, 170141183460469231731687303715884105727::HUGEINT AS huge
"""


def test_csv_is_read_back_as_it_was(connection: duckdb.DuckDBPyConnection) -> None:
    text = written(connection, VALUES, "csv").decode()
    [row] = csv.DictReader(io.StringIO(text))
    assert row["text"] == 'a "b", \nc\td é' and row["id"] == "7"
    assert json.loads(row["names"]) == ["x", None] and json.loads(row["pair"]) == {"k": 0.1}
    assert (row["flag"], row["missing"], row["day"]) == ("true", "", "2020-02-03")
    assert base64.b64decode(row["bytes"]) == b"\xff\x00"
    assert float(row["large"]) == 1e300 and row["huge"] == str(2**127 - 1)


def test_json_is_one_array_whatever_the_types(connection: duckdb.DuckDBPyConnection) -> None:
    [row] = json.loads(written(connection, VALUES, "json"))
    assert row["names"] == ["x", None] and row["pair"] == {"k": 0.1} and row["flag"] is True
    assert row["nothing"] is None and row["missing"] is None and row["huge"] == 2**127 - 1
    assert base64.b64decode(row["bytes"]) == b"\xff\x00" and row["day"] == "2020-02-03"


def test_parquet_keeps_the_types(connection: duckdb.DuckDBPyConnection) -> None:
    table = pq.read_table(pa.BufferReader(written(connection, VALUES, "parquet")))
    assert table.schema.field("names").type == pa.list_(pa.field("element", pa.string()))
    assert table["bytes"][0].as_py() == b"\xff\x00" and table["single"].type == pa.float32()


@pytest.mark.parametrize("form", list(export.FORMATS))
def test_no_row_is_lost_over_many_batches_and_none_is_no_row(
    connection: duckdb.DuckDBPyConnection, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "BATCH_ROWS", 100)

    def rows(sql: str) -> list[int]:
        data = written(connection, sql, form)
        if form == "csv":
            return [int(row["i"]) for row in csv.DictReader(io.StringIO(data.decode()))]
        if form == "json":
            return [row["i"] for row in json.loads(data)]
        return [int(value) for value in pq.read_table(pa.BufferReader(data))["i"].to_pylist()]

    assert rows("SELECT i FROM range(2350) AS t(i)") == list(range(2350))
    assert rows("SELECT i FROM range(0) AS t(i)") == []


@pytest.mark.parametrize("form", list(export.FORMATS))
def test_two_columns_of_one_name_are_both_written(connection: duckdb.DuckDBPyConnection, form: str) -> None:
    data = written(connection, "SELECT 1 AS a, 2 AS a, 3 AS a_2", form)
    if form == "parquet":
        assert pq.read_table(pa.BufferReader(data)).to_pylist() == [{"a": 1, "a_2": 2, "a_2_2": 3}]
    elif form == "json":
        assert json.loads(data) == [{"a": 1, "a_2": 2, "a_2_2": 3}]
    else:
        assert data == b"a,a_2,a_2_2\n1,2,3\n"


def test_distinct_names_never_meet() -> None:
    assert distinct(["a", "a_2", "a", "a"]) == ["a", "a_2", "a_3", "a_4"]
