from __future__ import annotations

import io

import duckdb
import pytest
from rich.console import Console

from commands.console import columns_table
from engine import catalog
from engine.dataset import Dataset
from schemas.meanings import MEANINGS, meaning
from schemas.tables import SCHEMAS
from tests.building import build, recipe, write_pictures


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("meanings")
    write_pictures(folder / "photos", [(96, 64)])
    return build(recipe(folder / "photos", folder / "dataset"), upto="ingest")[0]


@pytest.mark.parametrize("table", SCHEMAS)
def test_every_column_of_a_table_has_a_meaning(table: str) -> None:
    untold = [column for column in SCHEMAS[table].names if not (meaning(table, column) or "").strip()]
    assert not untold, f"say what they mean in schemas/meanings.py: {table}: {untold}"


def test_every_column_of_a_view_has_a_meaning_and_no_meaning_is_left_over(dataset: Dataset) -> None:
    with catalog.connect_read_only(dataset) as connection:
        found = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        told = catalog.told_columns(connection)
    assert {view for (view,) in found} == set(MEANINGS) == {*SCHEMAS, "ledger", "raw_offers", "captions_beside"}
    assert not [(view, column) for view, column, _, text in told if not text.strip()]
    columns = {(view, column) for view, column, _, _ in told}
    assert {(view, column) for view, given in MEANINGS.items() for column in given} <= columns


def test_a_column_that_nobody_knows_has_none() -> None:
    assert meaning("images", "colour_of_the_frame") is None
    assert meaning("a_table_to_come", "row_id") == meaning("images", "row_id")


def test_the_catalog_carries_the_meanings_as_comments(dataset: Dataset) -> None:
    with duckdb.connect(str(catalog.write_catalog(dataset)), read_only=True) as connection:
        comments = connection.execute(
            "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
        ).fetchall()
        assert connection.execute("SELECT count(*) FROM ledger").fetchall() == [(1,)]
    assert {(view, column): text for view, column, text in comments} == {
        (view, column): meaning(view, column) for view, column, _ in comments
    }


@pytest.mark.parametrize("width", [80, 200])
def test_the_columns_are_readable(dataset: Dataset, width: int) -> None:
    with catalog.connect_read_only(dataset) as connection:
        told = catalog.told_columns(connection)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(columns_table(told))
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines), "something was cut"
    assert [line for line in lines if line and line[0] != " "] == [*dict.fromkeys(row[0] for row in told)]
    assert any(line.split() == ["outcome", "VARCHAR", *line.split()[2:]] and "kept, rejected" in line for line in lines)
