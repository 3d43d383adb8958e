"""SQL files of captioning, and queries over the captions and nouns of a dataset."""

from __future__ import annotations

from importlib import resources
from string import Template

from engine.duck import Connection, Row, rows

CAPTION_SOURCES = ("raw", "synthetic", "mix")
"""The caption sources that every dataset has; further captioners come on top, by their names."""


def read_sql(name: str, **knobs: str | int) -> str:
    """A file of captioning/sql with its knobs filled in; a text becomes a SQL string unless it is SQL itself."""
    sql = resources.files("captioning").joinpath("sql", name).read_text(encoding="utf-8")
    return Template(sql).substitute(knobs) if knobs else sql


def table_1(connection: Connection) -> list[Row]:
    """All rows of the table `statistics`: the whole set first, then its subsets."""
    return rows(connection, "SELECT * FROM statistics")


def realised_mix(connection: Connection) -> Row:
    """The mix over the kept images: captions by source, tosses of the coin, fallbacks by reason, captions that were cut
    to the trainer's limit, and images without any caption."""
    return rows(
        connection,
        """
        SELECT
            count(*) FILTER (caption_source = 'synthetic') AS synthetic,
            count(*) FILTER (caption_source = 'raw') AS raw,
            count(*) FILTER (caption_source = 'synthetic' AND fallback IS NULL OR starts_with(fallback, 'synthetic'))
                AS coin_synthetic,
            count(*) FILTER (fallback = 'synthetic_missing') AS synthetic_missing,
            count(*) FILTER (fallback = 'synthetic_refused') AS synthetic_refused,
            count(*) FILTER (fallback = 'raw_missing') AS raw_missing,
            count(*) FILTER (fallback = 'raw_refused') AS raw_refused,
            count(*) FILTER (truncated) AS truncated,
            count(*) FILTER (coin IS NOT NULL AND caption_source IS NULL) AS without_caption,
            min(tokenizer) AS tokenizer
        FROM mix
        """,
    )[0]


def refused_captions(connection: Connection) -> list[Row]:
    """(caption_source, reason, num): why kept images lack a raw or a synthetic caption, the most frequent first."""
    return rows(
        connection,
        """
        SELECT caption_source, reason, count(*) AS num
        FROM (
            SELECT 'raw' AS caption_source, row_id, reason FROM raw_offers
            UNION ALL
            SELECT 'synthetic', row_id, reason FROM captions
        )
        JOIN selection USING (row_id)
        WHERE kept AND reason IS NOT NULL
        GROUP BY caption_source, reason
        ORDER BY caption_source, num DESC, reason
        """,
    )


def noun_counts(connection: Connection, limit: int) -> list[tuple[str, str, int, int]]:
    """(caption source, noun, occurrences, images that have it): at most `limit` nouns per source, the most frequent
    first; equally frequent ones in alphabetical order."""
    return connection.execute(
        f"""
        SELECT caption_source, noun, num_uses, num_images
        FROM noun_uses WHERE subset IS NULL
        QUALIFY row_number() OVER (PARTITION BY caption_source ORDER BY num_uses DESC, noun) <= $limit
        ORDER BY
            coalesce(array_position({list(CAPTION_SOURCES)}, caption_source), 4),
            caption_source, num_uses DESC, noun
        """,
        {"limit": limit},
    ).fetchall()
