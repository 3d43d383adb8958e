"""Tables with types that strangers wrote: a row for each of theirs, or one refusal that names the file."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.ingest.tar_groups import rows_of
from curation.sources import list_source
from schemas.sources import ArrowColumns, HFDatasetSource, Img2datasetSource, TableSource

ROWS = 3


def _broken_strings(cells: list[bytes | None]) -> pa.Array:
    return pa.array(cells, pa.binary()).view(pa.string())


def _cells(of: st.SearchStrategy[Any], kind: pa.DataType) -> st.SearchStrategy[pa.Array]:
    cells = st.lists(st.none() | of, min_size=ROWS, max_size=ROWS)
    return cells.map(lambda values: pa.array(values, kind))


TEXT = st.text(max_size=6) | st.sampled_from(["success", "http://[x", "a#b/../c", "HTTP Error 404", "\0", "x\u202e"])
BYTES = st.binary(max_size=6)
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
COLUMN: st.SearchStrategy[pa.Array] = st.one_of(
    _cells(TEXT, pa.string()),
    _cells(TEXT, pa.large_string()),
    st.lists(st.none() | BYTES, min_size=ROWS, max_size=ROWS).map(_broken_strings),
    _cells(BYTES, pa.binary()),
    _cells(TEXT, pa.string()).map(lambda column: column.dictionary_encode()),
    _cells(st.lists(TEXT, max_size=2), pa.list_(pa.string())),
    _cells(st.integers(-5, 1 << 40), pa.int64()),
    _cells(st.floats(), pa.float64()),
    _cells(st.integers(-(1 << 62), 1 << 62), pa.timestamp("ns")),
    _cells(
        st.fixed_dictionaries({"bytes": BYTES, "path": TEXT}), pa.struct({"bytes": pa.binary(), "path": pa.string()})
    ),
    st.just(pa.nulls(ROWS)),
)


def listed_or_refused(source: Any, file: Path) -> int | None:
    """The rows of a listing that can be written; None where a `ValueError` names the file or a column of it."""
    try:
        items = list(list_source(source).items)
    except ValueError as error:
        assert file.name in str(error) or str(file.parent) in str(error)
        return None
    assert sum(rows.num_rows for rows in rows_of(items, "/x", "")) == len(items)
    return len(items)


NEEDED = dict.fromkeys(("key", "status"), COLUMN)
OTHERS = dict.fromkeys(("error_message", "url", "caption", "license", "jpg"), COLUMN)
IMAGES = dict.fromkeys(("image", "caption", "url", "license"), COLUMN)


@settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries(NEEDED, optional=OTHERS))
def test_a_table_of_img2dataset_gives_a_row_for_each_of_its_own(columns: dict[str, pa.Array]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "00000.parquet"
        pq.write_table(pa.table(columns), file)
        assert listed_or_refused(Img2datasetSource(path=folder), file) in (None, ROWS)


@settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries(IMAGES), st.booleans())
def test_a_saved_dataset_and_a_table_of_bytes_give_a_row_for_each_of_theirs(
    columns: dict[str, pa.Array], saved: bool
) -> None:
    names = {"caption": "caption", "url": "url", "license": "license"}
    with tempfile.TemporaryDirectory() as folder:
        if saved:
            file = Path(folder) / "data-00000-of-00001.arrow"
            (Path(folder) / "state.json").write_text(json.dumps({"_data_files": [{"filename": file.name}]}))
            table = pa.table(columns)
            with pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
            source: Any = HFDatasetSource(path=folder, columns=ArrowColumns(image="image", **names))
        else:
            file = Path(folder) / "a.parquet"
            pq.write_table(pa.table(columns), file)
            source = TableSource.from_mapping({"path": folder, "columns": {"bytes": "image", **names}})
        assert listed_or_refused(source, file) in (None, ROWS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=3) | st.sampled_from(["..", "train", "a.arrow"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["splits", "_data_files", "filename"]), inner, max_size=2)
    ),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(JSON, JSON, st.binary(max_size=40))
def test_any_description_of_a_saved_dataset_is_read_or_refused(splits: Any, state: Any, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "dataset_dict.json").write_text(json.dumps(splits))
        (Path(folder) / "state.json").write_text(
            json.dumps({"_data_files": state} if isinstance(state, list) else state)
        )
        (Path(folder) / "a.arrow").write_bytes(data)
        listed_or_refused(HFDatasetSource(path=folder), Path(folder) / "state.json")
