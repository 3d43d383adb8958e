from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from captioning.nouns import NounWorker
from captioning.statistics import format_mix, format_table1, noun_counts, reduce
from schemas import tables
from schemas.recipe import DataRecipe, Statistics

Part = Callable[..., pa.Table]
Caption = tuple[list[str], int] | None
Image = tuple[Caption, Caption, str | None]
"""(raw, synthetic, which the mix took)"""


def fill(connection: duckdb.DuckDBPyConnection, images: list[Image]) -> None:
    """Views `nouns` and `mix` as the jobs before would leave them."""
    rows = [
        (row, source, found)
        for row, (raw, synthetic, _) in enumerate(images)
        for source, found in (("raw", raw), ("synthetic", synthetic))
    ]
    nouns = pa.table(
        {
            "row_id": [row for row, _, _ in rows],
            "image_id": [f"{row:032x}" for row, _, _ in rows],
            "caption_source": [source for _, source, _ in rows],
            "nouns": pa.array([None if found is None else found[0] for _, _, found in rows], pa.list_(pa.string())),
            "num_words": pa.array([None if found is None else found[1] for _, _, found in rows], pa.int32()),
        },
        schema=tables.NOUNS,
    )
    mix = pa.table(
        {
            "row_id": pa.array(range(len(images)), pa.int64()),
            "caption_source": pa.array([chosen for _, _, chosen in images], pa.string()),
        }
    )
    connection.register("nouns", nouns)
    connection.register("mix", mix)


def by_hand(images: list[Image], valid_above: int) -> list[tuple[object, ...]]:
    """Table 1 in plain Python, from the definitions of the paper."""
    captions: dict[str, list[Caption]] = {
        "raw": [raw for raw, _, _ in images],
        "synthetic": [synthetic for _, synthetic, _ in images],
        "mix": [{"raw": raw, "synthetic": synthetic, None: None}[chosen] for raw, synthetic, chosen in images],
    }
    table: list[tuple[object, ...]] = []
    for source, found in captions.items():
        there = [caption for caption in found if caption is not None]
        uses = Counter(noun for nouns, _ in there for noun in nouns)
        valid = sum(count > valid_above for count in uses.values())
        num_words = sum(words for _, words in there) / len(there) if there else None
        average = uses.total() / len(there) if there else None
        table.append((source, len(there), valid, len(uses), uses.total(), num_words, average))
    return table


def in_sql(connection: duckdb.DuckDBPyConnection, valid_above: int) -> list[tuple[object, ...]]:
    recipe = DataRecipe(images="photos", out="out", statistics=Statistics(valid_above=valid_above))
    return connection.execute(reduce(recipe).query(connection)).fetchall()


def same(ours: list[tuple[object, ...]], theirs: list[tuple[object, ...]]) -> bool:
    return len(ours) == len(theirs) and all(
        one[:5] == other[:5] and one[5:] == pytest.approx(other[5:]) for one, other in zip(ours, theirs, strict=True)
    )


def test_hand_counted_captions(connection: duckdb.DuckDBPyConnection) -> None:
    fill(
        connection,
        [
            ((["cat", "mat"], 5), (["photograph", "cat", "cat"], 9), "synthetic"),
            ((["cat"], 2), (["photograph"], 7), "raw"),
            (None, (["sky", "photograph"], 8), "synthetic"),
            ((["dog"], 3), None, "raw"),
            (([], 1), None, "raw"),
            (None, None, None),
        ],
    )
    assert in_sql(connection, 1) == [
        ("raw", 4, 1, 3, 4, 11 / 4, 4 / 4),
        ("synthetic", 3, 2, 3, 6, 24 / 3, 6 / 3),
        ("mix", 5, 2, 4, 7, 23 / 5, 7 / 5),
    ]


def test_valid_means_more_than(connection: duckdb.DuckDBPyConnection) -> None:
    fill(connection, [((["ten"] * 10 + ["eleven"] * 11, 21), None, "raw")])
    assert [row[2:4] for row in in_sql(connection, 10)] == [(1, 2), (0, 0), (1, 2)]
    assert [row[2:4] for row in in_sql(connection, 9)] == [(2, 2), (0, 0), (2, 2)]


def test_without_captions_every_source_has_a_row_of_zeros(connection: duckdb.DuckDBPyConnection) -> None:
    fill(connection, [])
    assert in_sql(connection, 10) == [(source, 0, 0, 0, 0, None, None) for source in ("raw", "synthetic", "mix")]


found = st.none() | st.tuples(st.lists(st.sampled_from("abcdef'"), max_size=6), st.integers(0, 40))
image = st.tuples(found, found, st.sampled_from(["raw", "synthetic", None])).map(
    lambda drawn: (
        drawn[0],
        drawn[1],
        drawn[2] if {"raw": drawn[0], "synthetic": drawn[1]}.get(str(drawn[2])) else None,
    )
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(image, max_size=25), st.integers(0, 4))
def test_sql_and_plain_python_agree(
    connection: duckdb.DuckDBPyConnection, images: list[Image], valid_above: int
) -> None:
    fill(connection, images)
    ours, theirs = in_sql(connection, valid_above), by_hand(images, valid_above)
    assert same(ours, theirs), (ours, theirs)


def test_from_captions_to_the_table_through_parquet(
    connection: duckdb.DuckDBPyConnection, part: Part, tmp_path: object
) -> None:
    raw = ["two cats on a mat", "a dog", None]
    synthetic = ["A photograph of cats and a dog.", None, "A wide sky over a city."]
    ids, kept = ["a", "b", "c"], [True] * 3
    inputs = {
        "raw_captions": part("raw_captions", image_id=ids, caption=raw),
        "captions": part("captions", image_id=ids, caption=synthetic),
        "selection": part("selection", image_id=ids, kept=kept),
    }
    pq.write_table(NounWorker("lexicon")(inputs, lambda rows: None)["nouns"], f"{tmp_path}/nouns.parquet")
    pq.write_table(
        part("mix", image_id=ids, caption_source=["synthetic", "raw", "synthetic"]), f"{tmp_path}/mix.parquet"
    )
    for name in ("nouns", "mix"):
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{tmp_path}/{name}.parquet')")
    assert in_sql(connection, 0) == [
        ("raw", 2, 3, 3, 3, 7 / 2, 3 / 2),
        ("synthetic", 2, 5, 5, 5, 13 / 2, 5 / 2),
        ("mix", 3, 5, 5, 6, 15 / 3, 6 / 3),
    ]
    assert noun_counts(connection, 1) == [
        ("raw", "cat", 1, 1),
        ("synthetic", "cat", 1, 1),
        ("mix", "dog", 2, 2),
    ]


def test_nouns_are_text_and_not_sql(connection: duckdb.DuckDBPyConnection) -> None:
    nasty = "'; DROP VIEW nouns; --"
    fill(connection, [(([nasty, "cat", "cat"], 3), None, "raw")])
    assert noun_counts(connection, 5)[:2] == [("raw", "cat", 2, 1), ("raw", nasty, 1, 1)]


def test_the_result_meets_the_contract_of_the_table(connection: duckdb.DuckDBPyConnection) -> None:
    fill(connection, [((["cat"], 1), None, "raw")])
    query = reduce(DataRecipe(images="photos", out="out")).query(connection)
    table = connection.sql(query).to_arrow_table().cast(tables.STATISTICS)
    assert table.schema == tables.STATISTICS


def test_the_mix_is_shown_beside_what_the_coin_said() -> None:
    mix = {"synthetic": 6, "raw": 4, "coin_synthetic": 7, "synthetic_missing": 1, "synthetic_refused": 2}
    mix |= {"raw_missing": 0, "raw_refused": 2, "truncated": 3, "without_caption": 1, "tokenizer": "words"}
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(format_mix(mix, [{"caption_source": "raw", "reason": "file_name", "num": 2}]))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "synthetic in the mix 6 60.0 %" in lines and "synthetic said the coin 7 70.0 %" in lines
    assert "raw said the coin 3 30.0 %" in lines and "raw the synthetic one was refused 2 20.0 %" in lines
    assert "both cut to 300 tokens (words) 3 30.0 %" in lines and "raw none: file name 2 20.0 %" in lines
    console.print(format_mix(dict.fromkeys(mix, 0) | {"tokenizer": None}, []))
    assert "not counted yet" in console.export_text()


def test_table_1_stands_beside_the_papers_rows() -> None:
    row: dict[str, object] = {"caption_source": "raw", "num_images": 1200, "valid_nouns": 3, "distinct_nouns": 40}
    row |= {"total_nouns": 5000, "average_caption_words": 12.34, "average_nouns": None}
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(format_table1([row]))
    text = console.export_text()
    assert "1,200" in text and "3/40" in text and "12.3" in text
    assert "paper: Internal-Σ" in text and "77K/714K" in text and "53.6" in text
