"""The job `statistics`: Table 1 of the paper over the captions of a dataset, in SQL."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count, islice

from captioning.figures.queries import read_sql
from engine.duck import Row, rows
from engine.reduce_job import ReduceJob
from models.tokenizers import load_tokenizer
from schemas import recipe
from schemas.late import late

with late(__name__):
    import duckdb
    import pyarrow as pa

    from captioning.nouns import shared_extractor
    from schemas import tables

CAPTIONS_AT_ONCE = 4096

_ADDED_UP = """
SELECT caption_source, subset, noun, sum(num_uses)::BIGINT AS num_uses, sum(num_images)::BIGINT AS num_images
FROM counted
GROUP BY ALL
ORDER BY subset NULLS FIRST, caption_source, num_uses DESC, noun
"""
"""`noun_uses` from what noun_uses.sql counts over some pictures after others."""


def count_nouns(data_recipe: recipe.DataRecipe) -> ReduceJob:
    """The first half of the job: writes `noun_uses`. The recipe has no knob for it."""
    return ReduceJob(
        job="statistics",
        outputs=("noun_uses",),
        inputs=("nouns", "mix", "selection"),
        query=lambda _: _counted_sql(),
        knobs={},
        by_parts=True,
        added_up=_ADDED_UP,
    )


def reduce_job(data_recipe: recipe.DataRecipe) -> ReduceJob:
    """The second half: writes `statistics`, one row per caption source for the whole set and for each subset. Rows that
    were not kept have no nouns, so what is counted are the kept images that have a caption."""
    valid_above = data_recipe.statistics.valid_above
    return ReduceJob(
        job="statistics",
        outputs=("statistics",),
        inputs=("noun_uses", "nouns", "mix", "selection"),
        query=lambda _: _lengths_sql(),
        knobs={"statistics.valid_above": valid_above},
        by_parts=True,
        added_up=_table_1_sql(valid_above),
    )


def noun_uses_sql() -> str:
    """The SELECT of `noun_uses` over the views of a dataset."""
    return f"WITH counted AS ({_counted_sql()}) {_ADDED_UP}"


def _counted_sql() -> str:
    return read_sql("noun_uses.sql", subsets=read_sql("subsets.sql"))


def _lengths_sql() -> str:
    return read_sql("caption_lengths.sql", subsets=read_sql("subsets.sql"))


def _table_1_sql(valid_above: int) -> str:
    """The SELECT of Table 1 over `noun_uses` and `counted`, what `_lengths_sql` gives. A distinct noun is valid where
    it occurs over `valid_above` times."""
    return read_sql("table_1.sql", valid_above=int(valid_above))


def table_1_of(captions: Iterable[str], source: str, knobs: recipe.DataRecipe) -> list[Row]:
    """The row of Table 1 for captions that belong to no dataset, counted as the jobs `nouns` and `statistics` count.

    Args:
        source: what the row calls them.
        knobs: its sections `nouns` and `statistics`, and the tokenizer of `mix`, are used.

    Raises:
        ValueError: the extractor or the tokenizer is not on this machine.
    """
    extractor = shared_extractor(knobs.nouns.extractor, knobs.nouns.compounds)
    tokenizer = load_tokenizer(knobs.mix.tokenizer)
    numbers, captions = count(), iter(captions)
    with duckdb.connect() as connection:
        for table in ("nouns", "mix", "selection"):
            connection.register("empty", tables.SCHEMAS[table].empty_table())
            connection.execute(f"CREATE TABLE {table} AS FROM empty")
        while texts := list(islice(captions, CAPTIONS_AT_ONCE)):
            nouns, words = zip(*extractor.count(texts), strict=True)
            columns = {"row_id": [next(numbers) for _ in texts], "image_id": [""] * len(texts)}
            columns |= {"caption_source": [source] * len(texts), "nouns": nouns, "num_words": words}
            columns |= {"num_tokens": tokenizer.count(texts), "tokenizer": [tokenizer.name] * len(texts)}
            connection.register("batch", pa.table(columns, schema=tables.schema_of("nouns")))
            connection.execute("INSERT INTO nouns FROM batch")
        connection.execute(f"CREATE TABLE noun_uses AS {noun_uses_sql()}")
        connection.execute(f"CREATE TABLE counted AS {_lengths_sql()}")
        table_1 = _table_1_sql(knobs.statistics.valid_above)
        return rows(connection, f"SELECT * FROM ({table_1}) WHERE caption_source = $source", {"source": source})
