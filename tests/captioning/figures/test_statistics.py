from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captioning.figures.queries import noun_counts
from captioning.figures.statistics import count_nouns, noun_uses_sql, reduce_job
from captioning.nouns import NounWorker
from engine.reduce_job import ReduceJob
from schemas import tables
from schemas.recipe import DataRecipe, Statistics
from tests.building import create_raw_offers

Part = Callable[..., pa.Table]
Caption = tuple[list[str], int] | None
Image = tuple[Caption, Caption, str | None]
"""(raw, synthetic, which the mix took)"""
SUBSETS = ((), ("wide",), ("large", "wide"))
"""Row n is in the subsets SUBSETS[n % 3]."""


def text_of(caption: Caption, end: str = "") -> str | None:
    """A caption of as many words as were counted."""
    return None if caption is None else " ".join(["w"] * caption[1]) + end


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
            "num_tokens": pa.array([None if found is None else found[1] + 1 for _, _, found in rows], pa.int32()),
            "tokenizer": pa.array([None if found is None else "words" for _, _, found in rows], pa.string()),
        },
        schema=tables.schema_of("nouns"),
    )
    given = {
        "mix": {
            "caption_source": [chosen for _, _, chosen in images],
            "caption": [
                text_of(raw if chosen == "raw" else synthetic if chosen else None) for raw, synthetic, chosen in images
            ],
            "num_tokens": [None if chosen is None else 7 + row for row, (_, _, chosen) in enumerate(images)],
            "tokenizer": [None if chosen is None else "t5" for _, _, chosen in images],
        },
        "selection": {"kept": [True] * len(images), "subsets": [list(SUBSETS[row % 3]) for row in range(len(images))]},
        "raw_captions": {"caption": [text_of(raw) for raw, _, _ in images], "removed": [[] for _ in images]},
        "captions": {
            "caption": [text_of(synthetic) for _, synthetic, _ in images],
            "captioner": ["attributes"] * len(images),
            "num_tokens": [None if synthetic is None else 99 for _, synthetic, _ in images],  # the captioner's own
        },
    }
    connection.register("nouns", nouns)
    for name, columns in given.items():
        values = {"row_id": list(range(len(images)))} | columns
        arrays = [pa.array(values.get(field.name, [None] * len(images)), field.type) for field in tables.SCHEMAS[name]]
        connection.register(name, pa.table(arrays, schema=tables.SCHEMAS[name]))
    create_raw_offers(connection)


def by_hand(images: list[Image], valid_above: int) -> list[tuple[object, ...]]:
    """Table 1 in plain Python, from the definitions of the paper: the whole set, then each subset that has an image."""
    names = sorted({name for row in range(len(images)) for name in SUBSETS[row % 3]})
    table: list[tuple[object, ...]] = []
    for subset in (None, *names):
        rows = [row for row in range(len(images)) if subset is None or subset in SUBSETS[row % 3]]
        for source in ("raw", "synthetic", "mix"):
            counted: list[tuple[list[str], int, int]] = []  # (nouns, words, tokens)
            for row in rows:
                raw, synthetic, chosen = images[row]
                wanted = chosen if source == "mix" else source
                caption = {"raw": raw, "synthetic": synthetic, None: None}[wanted]
                if caption is not None:
                    num_tokens = {"raw": caption[1] + 1, "synthetic": caption[1] + 1, "mix": 7 + row}[source]
                    counted.append((*caption, num_tokens))
            uses = Counter(noun for nouns, _, _ in counted for noun in nouns)
            valid = sum(count > valid_above for count in uses.values())
            num = len(counted)
            table.append(
                (
                    source,
                    subset,
                    num,
                    valid,
                    len(uses),
                    uses.total(),
                    sum(words for _, words, _ in counted) / num if num else None,
                    sum(tokens for _, _, tokens in counted) / num if num else None,
                    ("t5" if source == "mix" else "words") if num else None,
                    uses.total() / num if num else None,
                )
            )
    return table


def in_sql(connection: duckdb.DuckDBPyConnection, valid_above: int) -> list[tuple[object, ...]]:
    recipe = DataRecipe(images="photos", out="out", statistics=Statistics(valid_above=valid_above))
    connection.execute(f"CREATE OR REPLACE TEMPORARY TABLE noun_uses AS {whole(count_nouns(recipe), connection)}")
    return connection.execute(whole(reduce_job(recipe), connection)).fetchall()


def whole(job: ReduceJob, connection: duckdb.DuckDBPyConnection) -> str:
    """The SELECT of a job that counts by parts, over all rows at once."""
    return f"WITH counted AS ({job.query(connection)}) FROM ({job.added_up})"


def same(ours: list[tuple[object, ...]], theirs: list[tuple[object, ...]]) -> bool:
    return len(ours) == len(theirs) and all(
        (*one[:6], one[8]) == (*other[:6], other[8])
        and [one[place] for place in (6, 7, 9)] == pytest.approx([other[place] for place in (6, 7, 9)])
        for one, other in zip(ours, theirs, strict=True)
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
    assert in_sql(connection, 1)[:3] == [
        ("raw", None, 4, 1, 3, 4, 11 / 4, 15 / 4, "words", 4 / 4),
        ("synthetic", None, 3, 2, 3, 6, 24 / 3, 27 / 3, "words", 6 / 3),
        ("mix", None, 5, 2, 4, 7, 23 / 5, (7 + 8 + 9 + 10 + 11) / 5, "t5", 7 / 5),
    ]
    assert in_sql(connection, 1)[3:] == [  # rows 2 and 5; then rows 1, 2, 4, 5
        ("raw", "large", 0, 0, 0, 0, None, None, None, None),
        ("synthetic", "large", 1, 0, 2, 2, 8.0, 9.0, "words", 2.0),
        ("mix", "large", 1, 0, 2, 2, 8.0, 9.0, "t5", 2.0),
        ("raw", "wide", 2, 0, 1, 1, 3 / 2, 5 / 2, "words", 1 / 2),
        ("synthetic", "wide", 2, 1, 2, 3, 15 / 2, 17 / 2, "words", 3 / 2),
        ("mix", "wide", 3, 0, 3, 3, 11 / 3, (8 + 9 + 11) / 3, "t5", 3 / 3),
    ]


def test_valid_means_more_than(connection: duckdb.DuckDBPyConnection) -> None:
    fill(connection, [((["ten"] * 10 + ["eleven"] * 11, 21), None, "raw")])
    assert [row[3:5] for row in in_sql(connection, 10)] == [(1, 2), (0, 0), (1, 2)]
    assert [row[3:5] for row in in_sql(connection, 9)] == [(2, 2), (0, 0), (2, 2)]


def test_without_captions_every_source_has_a_row_of_zeros(connection: duckdb.DuckDBPyConnection) -> None:
    fill(connection, [])
    assert in_sql(connection, 10) == [
        (source, None, 0, 0, 0, 0, None, None, None, None) for source in ("raw", "synthetic", "mix")
    ]


found = st.none() | st.tuples(st.lists(st.sampled_from("abcdef'"), max_size=6), st.integers(0, 40))
image = st.tuples(found, found, st.sampled_from(["raw", "synthetic", None])).map(
    lambda drawn: (
        drawn[0],
        drawn[1],
        drawn[2] if {"raw": drawn[0], "synthetic": drawn[1]}.get(str(drawn[2])) else None,
    )
)


@pytest.mark.slow
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
    inputs["nouns"] = NounWorker("lexicon")(inputs, lambda rows: None)["nouns"]
    inputs["mix"] = part("mix", image_id=ids, caption_source=["synthetic", "raw", "synthetic"])
    for name, table in inputs.items():
        pq.write_table(table, f"{tmp_path}/{name}.parquet")
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{tmp_path}/{name}.parquet')")
    create_raw_offers(connection)
    assert [(row[0], *row[2:7], row[9]) for row in in_sql(connection, 0)] == [
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
    in_sql(connection, 0)
    assert noun_counts(connection, 5)[:2] == [("raw", "cat", 2, 1), ("raw", nasty, 1, 1)]


def test_the_result_meets_the_contract_of_the_table(connection: duckdb.DuckDBPyConnection) -> None:
    fill(connection, [((["cat"], 1), None, "raw")])
    in_sql(connection, 0)
    recipe = DataRecipe(images="photos", out="out")
    for step, schema in (
        (count_nouns(recipe), tables.schema_of("noun_uses")),
        (reduce_job(recipe), tables.schema_of("statistics")),
    ):
        assert connection.sql(whole(step, connection)).to_arrow_table().cast(schema).schema == schema


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(image, max_size=25))
def test_uses_and_images_of_every_noun_agree_with_plain_python(
    connection: duckdb.DuckDBPyConnection, images: list[Image]
) -> None:
    fill(connection, images)
    uses, having = Counter[tuple[str, str | None, str]](), Counter[tuple[str, str | None, str]]()
    for row, (raw, synthetic, chosen) in enumerate(images):
        for source, caption in (("raw", raw), ("synthetic", synthetic)):
            for told in (source, "mix") if chosen == source else (source,):
                for subset in (None, *SUBSETS[row % 3]):
                    nouns = [] if caption is None else caption[0]
                    uses.update((told, subset, noun) for noun in nouns)
                    having.update((told, subset, noun) for noun in set(nouns))
    found = connection.execute(noun_uses_sql()).fetchall()
    assert {row[:3]: row[3:] for row in found} == {key: (uses[key], having[key]) for key in uses}
    order = [(row[1] is not None, row[1] or "", row[0], -row[3], row[2]) for row in found]
    assert order == sorted(order)


def test_a_further_captioner_has_a_row_of_its_own(connection: duckdb.DuckDBPyConnection, part: Part) -> None:
    fill(connection, [((["cat"], 2), (["sky"], 3), "raw")] * 2)
    columns = {"nouns": [["sea", "sea"]], "num_words": [9], "num_tokens": [3], "tokenizer": ["words"]}
    vlm = part("nouns", row_id=[0], caption_source=["vlm"], **columns)
    connection.register("vlm", vlm)
    connection.register("nouns", connection.sql("FROM nouns UNION ALL BY NAME FROM vlm").to_arrow_table())
    rows = in_sql(connection, 1)
    assert [row[0] for row in rows if row[1] is None] == ["raw", "synthetic", "vlm", "mix"]
    assert rows[2] == ("vlm", None, 1, 1, 1, 2, 9.0, 3.0, "words", 2.0)
