"""Every row of a table is read or named; one that cannot be read costs itself and nothing else."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.sources import records
from curation.sources.records import Row, read_lines, read_rows

Write = Callable[[str, bytes], list[Row]]


def rows_of(path: Path) -> list[Row]:
    return list(read_rows(str(path), lambda names: None, ["path", "caption"]))


@pytest.fixture
def read(tmp_path: Path) -> Write:
    def write_and_read(name: str, data: bytes) -> list[Row]:
        (tmp_path / name).write_bytes(data)
        return rows_of(tmp_path / name)

    return write_and_read


def outcomes(rows: list[Row]) -> list[str | None]:
    """The path in each row, or why it cannot be read."""
    return [f"{row.place} {row.broken}" if row.broken else row.cells["path"] for row in rows]


def test_a_quote_that_is_never_closed_costs_its_row_alone(read: Write) -> None:
    head, rest = b"path,caption\n1,good\n", b'3,good\n4,"two\nlines"\n'
    said = "line 3 opens a quote that is not closed"
    assert outcomes(read("a.csv", head + b'2,"stray\n' + rest)) == ["1", said, "3", "4"]
    assert outcomes(read("b.csv", head + b'2,"stray\n3,good\n')) == ["1", said, "3"]
    assert outcomes(read("c.csv", head + b'2,"stray')) == ["1", said]
    assert outcomes(read("d.csv", head + b'2,a 5" plate\n3,""x""\n')) == ["1", "2", "3"]
    assert read("e.csv", head + b'2,"two\r\nlines"')[1].cells["caption"] == "two\r\nlines"


def test_a_comma_that_needs_quotes_cuts_no_caption(read: Write) -> None:
    found = read("a.csv", b"path,caption\n1,a kite, over a hill\n2,good,,\n3\n\n4,good\n")
    assert outcomes(found) == [
        "line 2 has 3 cells for 2 columns; a text with a comma needs quotes around it",
        "2",
        "3",
        "4",
    ]
    assert found[2].cells["caption"] is None


@pytest.mark.parametrize(("sign", "name"), [(";", "a semicolon"), ("\t", "a tab")])
def test_cells_that_another_sign_separates(sign: str, name: str, read: Write) -> None:
    lines = ("path|caption", "1|\"a 'kite', blue\"", '"2"|a ""dog""', "3|one|more", '4|"""never" closed', "5|good")
    found = read("a.csv", "\r\n".join(lines).replace("|", sign).encode())
    assert outcomes(found) == [
        "1",
        "2",
        f"line 4 has 3 cells for 2 columns; a text with {name} needs quotes around it",
        "4",
        "5",
    ]
    assert found[0].cells["caption"] == "a 'kite', blue"
    assert [row.cells for row in read("b.csv", b"path\na;b.jpg\n")] == [{"path": "a;b.jpg"}], "of one column"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_tables_in_any_unicode_encoding(encoding: str, read: Write) -> None:
    csv = 'path,caption\r\nü.jpg,"größe, 写真"\r\n'
    assert read("a.csv", csv.encode(encoding))[0].cells == {"path": "ü.jpg", "caption": "größe, 写真"}
    lines = '{"path": "ü.jpg"}\n\n{"path": "é"}'
    assert outcomes(read("a.jsonl", lines.encode(encoding))) == ["ü.jpg", "é"]


def test_a_line_that_is_not_utf8_is_mended_alone(read: Write) -> None:
    data = "path,caption\n1,größe\n".encode() + b"2,a caf\xe9 at night\n3,\x8e\x8a\x90\xff\n"
    assert [row.cells["caption"] for row in read("a.csv", data)] == ["größe", "a café at night", "\ufffd" * 4]


def test_a_line_that_is_too_long_costs_itself(read: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LONGEST_LINE", 100)
    long = b"x" * 350
    assert outcomes(read("a.csv", b"path,caption\n1,a\n2," + long + b"\n3,c\n")) == ["1", "line 3 is too long", "3"]
    found = read("a.jsonl", b'{"path": "1"}\n{"path": "' + long + b'"}\n{"path": "3"}')
    assert outcomes(found) == ["1", "line 2 is too long", "3"]
    found = read("b.csv", b'path,caption\n1,a\n2,"' + b"x\n" * 80 + b"3,c\n")
    assert outcomes(found)[:2] == ["1", "line 3 is not CSV: field larger than field limit (100)"]
    assert outcomes(found)[-1] == "3"


def test_lines_of_json_that_are_none(read: Write) -> None:
    deep = b'{"path": "2", "x": ' + b"[" * 100_000 + b"}"
    found = read("a.jsonl", b'{"path": "1"}\n' + deep + b'\n[1]\n{"path"\n{"path": "5", "x": ' + b"7" * 5000 + b"}\n")
    assert [outcome and outcome[:25] for outcome in outcomes(found)] == [
        "1",
        "line 2 is nested too deep",
        "line 3 is no JSON object",
        "line 4 is not JSON: Expec",
        "5",
    ]
    assert read("empty.jsonl", b"") == []
    with pytest.raises(ValueError, match=r"b\.jsonl: line 1 is not JSON"):
        read("b.jsonl", b"PK\n{\n")


def broken_strings(values: list[bytes | None]) -> pa.Array:
    """A column of strings that need not be UTF-8, as writers in C make them."""
    return pa.array(values, pa.binary()).view(pa.string())


def test_one_cell_of_parquet_that_is_not_utf8_costs_no_other(tmp_path: Path) -> None:
    bad = broken_strings([b"one", b"caf\xe9 at night", b"\xfb\xfc\xfd\xfe\xff", None])
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2, 2, 4]), broken_strings([b"a", b"caf\xe9 one", b"c", b"d"]))
    pq.write_table(pa.table({"path": ["1", "2", "3", "4"], "caption": bad, "text": lists}), tmp_path / "a.parquet")
    found = list(read_rows(str(tmp_path / "a.parquet"), lambda names: None, ["path", "caption", "text"]))
    assert [row.cells["caption"] for row in found] == ["one", "café at night", "\ufffd" * 5, None]
    assert [row.cells["text"] for row in found] == [["a"], ["café one"], [], ["c", "d"]]


def test_columns_that_have_one_name(tmp_path: Path) -> None:
    twins = pa.Table.from_arrays([pa.array(["1"]), pa.array(["x"]), pa.array(["y"])], ["path", "caption", "caption"])
    pq.write_table(twins, tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("path,caption,caption\n1,x,y\n")
    for name in ("a.parquet", "a.csv"):
        with pytest.raises(ValueError, match="has 2 columns of the name 'caption'; rename all but one"):
            rows_of(tmp_path / name)
    pq.write_table(twins.rename_columns(["path", "other", "other"]), tmp_path / "b.parquet")
    (tmp_path / "b.csv").write_text("path,other,other\n1,x,y\n")
    assert [outcomes(rows_of(tmp_path / name)) for name in ("b.parquet", "b.csv")] == [["1"], ["1"]]


_CELL = st.one_of(st.text(max_size=8), st.sampled_from(['"', ",", "\n", "\r", "\0", "a\nb", '"x"', "é"]))


@settings(max_examples=80, deadline=None)
@given(st.lists(_CELL, min_size=3, max_size=8), st.binary(max_size=8), st.data())
def test_any_line_among_good_ones_costs_itself(captions: list[str], dirt: bytes, data: st.DataObject) -> None:
    """Bytes without a quote and without a line break, anywhere between good lines: the good ones are all there."""
    dirt = dirt.translate(None, b'\r\n"') + b"{"
    lines = [json.dumps({"path": str(number), "caption": text}).encode() for number, text in enumerate(captions)]
    place = data.draw(st.integers(1, len(lines)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes(b"\n".join([*lines[:place], dirt, *lines[place:]]))
        found = rows_of(path)
        assert [row.cells["caption"] for row in found if not row.broken] == captions
        assert [row.place for row in found if row.broken] == [f"line {place + 1}"]


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=120), st.sampled_from(["csv", "jsonl", "txt", "parquet"]))
def test_any_bytes_are_rows_or_one_refusal(data: bytes, extension: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{extension}"
        path.write_bytes(data)
        try:
            list(read_lines(str(path))) if extension == "txt" else rows_of(path)
        except ValueError as error:
            assert str(path) in str(error)


def test_pipes_are_not_read(tmp_path: Path) -> None:
    for extension in ("csv", "jsonl", "parquet", "txt"):
        path = tmp_path / f"a.{extension}"
        os.mkfifo(path)
        with pytest.raises(ValueError, match="cannot be read: a pipe, a socket or a device, not a file"):
            list(read_lines(str(path))) if extension == "txt" else rows_of(path)
