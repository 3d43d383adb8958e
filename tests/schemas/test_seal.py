from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.seal import (
    MARK,
    BrokenSeal,
    check_file,
    check_footer,
    check_text,
    from_json,
    seal_text,
    sealed_write,
    to_json,
)

ROWS = pa.table({"number": list(range(40)), "text": [f"caption {number % 7}" for number in range(40)]})


def sealed(path: Path, rows: pa.Table = ROWS) -> bytes:
    with sealed_write(path) as file:
        pq.write_table(rows, file, write_page_checksum=True)
    return path.read_bytes()


def test_arrow_and_duckdb_read_a_sealed_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    sealed(path)
    check_file(path)
    assert pq.read_table(path).equals(ROWS)
    with duckdb.connect() as connection:
        assert connection.sql(f"SELECT count(*), sum(number) FROM '{path}'").fetchall() == [(40, 780)]


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    assert sealed(tmp_path / "a.parquet") == sealed(tmp_path / "b.parquet")


def test_a_file_without_a_seal_passes(tmp_path: Path) -> None:
    pq.write_table(ROWS, path := tmp_path / "old")
    check_file(path)
    check_footer(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"words " * 100, b"words PAR1"])
def test_what_is_no_parquet_or_the_beginning_of_one_is_damaged(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    for check in (check_file, check_footer):
        with pytest.raises(BrokenSeal, match="no whole Parquet file"):
            check(tmp_path / "a.parquet")


def test_a_missing_file_is_named_as_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check_footer(tmp_path / "a.parquet")


def test_a_footer_longer_than_the_first_read_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    data = bytearray(sealed(path, ROWS.replace_schema_metadata({"note": "x" * 100_000})))
    check_file(path)
    data[data.rindex(b"note")] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BrokenSeal, match="footer"):
        check_footer(path)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_breaks_the_seal_or_the_file(tmp_path: Path, place: float, bit: int) -> None:
    path = tmp_path / "a.parquet"
    data = bytearray(sealed(path))
    footer, flipped = data.rindex(MARK) + len(MARK), int(place * len(data))
    data[flipped] ^= 1 << bit
    path.write_bytes(bytes(data))
    with pytest.raises((pa.ArrowException, OSError)):
        check_file(path)
        pq.read_table(path)  # a flipped length of the footer leaves no seal to be found, and no footer
    if footer <= flipped < len(data) - 8:
        with pytest.raises(BrokenSeal):
            check_footer(path)


def test_a_flipped_bit_in_a_sealed_text_is_found_or_changes_nothing() -> None:
    value = {"job": "select", "knobs": {"a": [1, None, 0.5]}, "words": "Äpfel \u2028 und\n"}
    for text in (to_json(value, indent=1, sort_keys=True), to_json(value, ensure_ascii=False), to_json({})):
        whole = text.encode()
        for bit in range(8 * len(whole)):
            data = bytearray(whole)
            data[bit // 8] ^= 1 << bit % 8
            with pytest.raises((ValueError, BrokenSeal)):
                from_json(data.decode())
        assert from_json(text) == (value if text != to_json({}) else {})


def test_a_text_without_a_seal_passes_and_no_object_is_named() -> None:
    assert from_json('{"a": 1}') == {"a": 1}
    with pytest.raises(ValueError, match="no JSON object"):
        from_json("[1]")


def test_a_comment_seals_yaml() -> None:
    text = seal_text("a: 1\n# seal: ", "\n")
    assert yaml.safe_load(check_text(text)) == {"a": 1}
    with pytest.raises(BrokenSeal):
        check_text(text.replace("1", "2", 1))
