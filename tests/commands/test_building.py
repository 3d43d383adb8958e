"""Captions of a table without pictures are counted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from commands.front_door import app

CAPTIONS = ["A dog and a ball on the grass.", "Two dogs run.", "A harbour at dusk"]


def written(path: Path) -> Path:
    """The captions and one empty cell as a table of that extension."""
    cells = [*CAPTIONS, None]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": cells}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": cell}) + "\n" for cell in cells))
    else:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["text"], *([cell or ""] for cell in cells)])
    return path


@pytest.mark.parametrize("extension", ["parquet", "csv", "jsonl"])
def test_nouns_of_a_table_are_counted_as_those_of_a_dataset(tmp_path: Path, extension: str) -> None:
    table = written(tmp_path / f"captions.{extension}")
    shown = CliRunner().invoke(app, ["nouns", str(table), "--column", "text", "statistics.valid_above=1"])
    assert shown.exit_code == 0, shown.output
    (row,) = [line for line in shown.stdout.splitlines() if "this one" in line]
    # valid: dog; distinct: dog, ball, grass, harbour, dusk; 6 nouns, 15 words; 20 tokens: each caption has an end
    assert row.split()[2:] == ["text", "3", "1", "5", "6", "5.000", "6.667", "2.000"]
    assert "left out: 1 rows without a caption" in shown.stdout
    assert [path.name for path in tmp_path.iterdir()] == [table.name]


def test_a_column_that_the_table_lacks_is_named_with_those_it_has(tmp_path: Path) -> None:
    table = written(tmp_path / "captions.parquet")
    shown = CliRunner().invoke(app, ["nouns", str(table), "--column", "caption"])
    assert shown.exit_code == 1
    assert "has no column 'caption'; --column takes one of text" in shown.output
