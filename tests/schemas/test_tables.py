from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest

import sigma
from curation.ingest import headers
from engine.catalog import duckdb_type
from schemas import reasons, tables
from schemas.recipe import DataRecipe
from schemas.shard_index import INDEX_SCHEMA

CONTRACT = {
    "images": "image_id source member byte_offset num_bytes sha256 format mode width height exif_orientation frames "
    "icc alpha raw_caption url license reason detail",
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


@pytest.mark.parametrize("table", tables.MAP_TABLES)
def test_the_rows_of_map_tables_have_an_ordinal(table: str) -> None:
    field = tables.MAP_TABLES[table].field("row_id")
    assert (str(field.type), field.nullable) == ("int64", False)


def test_a_table_is_either_in_parts_or_in_one_file() -> None:
    assert not set(tables.MAP_TABLES) & set(tables.REDUCE_TABLES)
    assert set(tables.SCHEMAS) == {*tables.MAP_TABLES, *tables.REDUCE_TABLES}


def test_duckdb_knows_every_type() -> None:
    assert all(duckdb_type(field.type) for schema in tables.SCHEMAS.values() for field in schema)


def test_every_table_is_written_by_one_job_and_read_after_it(tmp_path: Path) -> None:
    laion = {"scorer": "laion", "store_embeddings": True}
    screen = {"sharpness": True, "clip_similarity": True}
    sections = {"ground": {"enabled": True}, "aesthetic": laion, "screen": screen, "balance": {"most_images": 1}}
    everything = DataRecipe.from_mapping({"images": str(tmp_path), "out": "out"} | sections)
    made = {"listing", *headers.stage(everything).outputs}  # which no job of the pipeline reads or writes
    for step in sigma.pipeline(everything):
        assert set(step.work.inputs) <= made, step.job
        assert not set(step.outputs) & made, step.job
        made |= set(step.outputs)
    assert made == set(tables.SCHEMAS)


def test_the_index_repeats_what_samples_say() -> None:
    for field in INDEX_SCHEMA:
        assert tables.SAMPLES.field(field.name).type == field.type


CAPTION_REASONS: tuple[type[StrEnum], ...] = (reasons.CaptionReason, reasons.RawCaptionReason, reasons.Fallback)


def test_reasons_are_plain_words_and_never_mean_two_things() -> None:
    kinds = (reasons.ImageError, reasons.FetchError, reasons.ShardError, reasons.Rejection)
    words = [reason.value for kind in kinds for reason in kind]
    assert len(words) == len(set(words))
    every = [*words, *(reason.value for kind in CAPTION_REASONS for reason in kind)]
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", word) for word in every)
