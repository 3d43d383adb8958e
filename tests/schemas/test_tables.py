from __future__ import annotations

import io
import re
from enum import StrEnum
from pathlib import Path

import duckdb
import pytest
from rich.console import Console

from commands import order
from commands.tables import columns_table
from curation.ingest import headers
from engine import catalog
from engine.catalog import duckdb_type
from engine.dataset import Dataset
from schemas import reasons, tables
from schemas.columns import MEANINGS, REDUCE_TABLES, TABLES, is_map_table, meaning
from schemas.recipe import DataRecipe
from schemas.shard_index import INDEX_SCHEMA
from schemas.tables import SCHEMAS
from tests.building import build, recipe, write_pictures

CONTRACT = {
    "images": "image_id source member byte_offset num_bytes sha256 format mode width height exif_orientation frames "
    "icc metadata_left_out alpha raw_caption url license reason detail",
    "proxies": "image_id jpeg width height",
    "fingerprints": "image_id phash pixel_sha256",
    "scores": "image_id aesthetic",
    "raw_captions": "image_id caption language removed reason",
    "selection": "image_id rejected_by value threshold duplicate_of subsets",
    "captions": "image_id captioner revision prompt parameters caption num_tokens reason",
    "mix": "image_id caption caption_source num_tokens truncated",
    "nouns": "image_id caption_source nouns num_words num_tokens tokenizer",
    "samples": "image_id key shard bucket width height num_tokens",
}


@pytest.mark.parametrize("table", CONTRACT)
def test_a_table_has_the_columns_that_were_promised(table: str) -> None:
    assert set(CONTRACT[table].split()) <= set(tables.SCHEMAS[table].names)


@pytest.mark.parametrize("table", filter(is_map_table, TABLES))
def test_the_rows_of_map_tables_have_an_ordinal(table: str) -> None:
    field = SCHEMAS[table].field("row_id")
    assert (str(field.type), field.nullable) == ("int64", False)


def test_a_table_is_either_in_parts_or_in_one_file() -> None:
    assert [table for table in tables.SCHEMAS if not is_map_table(table)] == list(REDUCE_TABLES)


def test_duckdb_knows_every_type() -> None:
    assert all(duckdb_type(field.type) for schema in tables.SCHEMAS.values() for field in schema)


def test_every_table_is_written_by_one_job_and_read_after_it(tmp_path: Path) -> None:
    laion = {"scorer": "laion", "store_embeddings": True}
    screen = {"sharpness": True, "clip_similarity": True}
    sections = {"ground": {"enabled": True}, "aesthetic": laion, "screen": screen, "balance": {"most_images": 1}}
    everything = DataRecipe.from_mapping({"images": str(tmp_path), "out": "out"} | sections)
    made = {"listing", *headers.map_job(everything).outputs}  # which no job of the pipeline reads or writes
    for step in order.pipeline(everything):
        assert set(step.inputs) <= made, step.job
        assert not set(step.outputs) & made, step.job
        made |= set(step.outputs)
    assert made == set(tables.SCHEMAS)


def test_the_index_has_the_columns_of_samples() -> None:
    for field in INDEX_SCHEMA:
        assert tables.schema_of("samples").field(field.name).type == field.type


CAPTION_REASONS: tuple[type[StrEnum], ...] = (reasons.CaptionReason, reasons.RawCaptionReason, reasons.Fallback)


def test_reasons_are_plain_words_and_never_mean_two_things() -> None:
    kinds = (reasons.ImageError, reasons.FetchError, reasons.ShardError, reasons.Rejection)
    words = [reason.value for kind in kinds for reason in kind]
    assert len(words) == len(set(words))
    every = [*words, *(reason.value for kind in CAPTION_REASONS for reason in kind)]
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", word) for word in every)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("meanings")
    write_pictures(folder / "photos", [(96, 64)])
    return build(recipe(folder / "photos", folder / "dataset"), upto="ingest")[0]


@pytest.mark.parametrize("table", SCHEMAS)
def test_every_column_of_a_table_has_a_meaning(table: str) -> None:
    untold = [column for column in SCHEMAS[table].names if not (meaning(table, column) or "").strip()]
    assert not untold, f"say what they mean in schemas/columns.py: {table}: {untold}"


def test_every_column_of_a_view_has_a_meaning_and_no_meaning_is_left_over(dataset: Dataset) -> None:
    with catalog.connect_read_only(dataset) as connection:
        found = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        told = catalog.described_columns(connection)
    assert {view for (view,) in found} == set(MEANINGS) == {*SCHEMAS, "ledger", "raw_offers", "captions_beside"}
    assert not [(view, column) for view, column, _, text in told if not text.strip()]
    columns = {(view, column) for view, column, _, _ in told}
    assert {(view, column) for view, given in MEANINGS.items() for column in given} <= columns


def test_a_column_that_nobody_knows_has_none() -> None:
    assert meaning("images", "colour_of_the_frame") is None
    assert meaning("a_table_to_come", "row_id") == meaning("images", "row_id")


@pytest.mark.meanings
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
        told = catalog.described_columns(connection)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(columns_table(told))
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines), "something was cut"
    assert [line for line in lines if line and line[0] != " "] == [*dict.fromkeys(row[0] for row in told)]
    assert any(line.split() == ["outcome", "VARCHAR", *line.split()[2:]] and "kept, rejected" in line for line in lines)
