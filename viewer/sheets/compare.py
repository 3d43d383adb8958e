"""Two caption sources of a dataset side by side: length, nouns, refusals, and how well they fit the pictures."""

from __future__ import annotations

import duckdb

from captioning.figures.queries import CAPTION_SOURCES, read_sql
from engine import duck
from engine.duck import literal
from engine.reduce_job import Connection
from viewer.sheets.sheet import Sheet, Value

MOST_EXAMPLES = 5
"""Gained and lost nouns that are named, at most."""

_FURTHER_CAPTIONERS = "UNION ALL SELECT source, row_id, caption, reason FROM captions_beside"


def create_caption_views(connection: Connection) -> None:
    """The temporary views `each_caption`, `each_nouns` and `each_grounding` over the views of a dataset."""
    beside = _FURTHER_CAPTIONERS if has_view(connection, "captions_beside") else ""
    connection.execute(read_sql("each_caption.sql", beside=beside))


def has_view(connection: Connection, name: str) -> bool:
    """Whether a table or view can be read by that name."""
    try:
        connection.execute(f"SELECT 1 FROM {name} LIMIT 0")
    except duckdb.CatalogException:
        return False
    return True


def sources_with_captions(connection: Connection) -> list[str]:
    """The caption sources that have a caption of a kept image: raw, synthetic and mix, then further captioners."""
    found = {source for (source,) in connection.execute(
        "SELECT DISTINCT source FROM each_caption WHERE caption IS NOT NULL"
    ).fetchall()}  # fmt: skip
    return [source for source in CAPTION_SOURCES if source in found] + sorted(found - set(CAPTION_SOURCES))


def require_captions(connection: Connection, *sources: str) -> None:
    """Refuse sources without captions; needs the views of `create_caption_views`. Raises ValueError: a source has no
    captions here; the message names those that have."""
    known = sources_with_captions(connection)
    for source in sources:
        if source not in known:
            there = f"there are {', '.join(known)}" if known else "there are none at all yet"
            raise ValueError(f"no captions of {source!r} in this dataset; {there}")


def require_nouns(connection: Connection, *sources: str) -> None:
    """Refuse sources whose nouns are not counted. Raises ValueError: naming the job to run."""
    for source in sources:
        counted = "SELECT count(*) FROM noun_uses WHERE subset IS NULL AND caption_source = $source"
        found = "SELECT count(*) FROM (SELECT 1 FROM each_nouns WHERE source = $source AND len(nouns) > 0 LIMIT 1)"
        if not _number(connection, counted, source) and _number(connection, found, source):
            raise ValueError(f"the nouns of {source!r} have not been counted yet; run the job statistics")


def _number(connection: Connection, sql: str, source: str) -> int:
    (number,) = connection.execute(sql, {"source": source}).fetchone() or (0,)
    return int(number)


def create_uses(connection: Connection, table: str, source: str) -> None:
    """A temporary view (noun, num_uses, num_images) of a source of the table `noun_uses`."""
    connection.execute(
        f"""
        CREATE OR REPLACE TEMPORARY VIEW {table} AS
        SELECT noun, num_uses, num_images FROM noun_uses WHERE subset IS NULL AND caption_source = {literal(source)}
        """
    )


def compare(connection: Connection, source_a: str, source_b: str, valid_above: int = 10) -> Sheet:
    """Two caption sources of the kept images side by side.

    Args:
        connection: with a view per table, see `engine.catalog.connect`.
        valid_above: a noun is valid when it occurs more often than this.

    Raises:
        ValueError: the two are the same, or one has no captions here.
    """
    create_caption_views(connection)
    require_captions(connection, source_a, source_b)
    require_nouns(connection, source_a, source_b)
    if source_a == source_b:
        raise ValueError(f"--compare {source_a} {source_b}: name two different sources")
    both = {"source_a": source_a, "source_b": source_b}
    a, b = duck.rows(connection, read_sql("compare.sql"), both | {"valid_above": valid_above})
    rows: list[tuple[Value, ...]] = [
        (what, a[name], b[name]) for what, name in (("kept images", "num_images"), ("captions", "num_captions"))
    ]
    rows.append(("refused, share", a["num_refused"] / a["num_images"], b["num_refused"] / b["num_images"]))
    rows += _reasons(connection, source_a, source_b)
    rows += [
        (f"{unit}, {what}", a[f"{name}_{unit}"], b[f"{name}_{unit}"])
        for unit in ("words", "tokens")
        for what, name in (("mean", "mean"), ("median", "median"), ("95 % have at most", "p95"))
    ]
    rows += [
        ("nouns per caption", a["mean_nouns"], b["mean_nouns"]),
        ("distinct nouns", a["distinct_nouns"], b["distinct_nouns"]),
        (f"valid nouns, used more than {valid_above} times", a["valid_nouns"], b["valid_nouns"]),
    ]
    only, examples = _only_here(connection, source_a, source_b)
    rows.append(("nouns that the other lacks", *only))
    notes = [
        f"Words are those of the job nouns; tokens are counted by {a['tokenizer'] or b['tokenizer']}, before any cut.",
        *(
            f"Commonest nouns of {source} alone: {', '.join(nouns)}."
            for source, nouns in zip((source_a, source_b), examples, strict=True)
            if nouns
        ),
    ]
    if a["num_scored"] and b["num_scored"]:
        rows += [
            ("captions scored", a["num_scored"], b["num_scored"]),
            ("sentence score, mean", a["mean_score"], b["mean_score"]),
            ("lowest sentence's score, mean", a["mean_lowest_score"], b["mean_lowest_score"]),
            ("ungrounded nouns, share", a["ungrounded_share"], b["ungrounded_share"]),
            ("images where its lowest sentence fits better", a["num_lowest_higher"], b["num_lowest_higher"]),
        ]
        notes.append(f"Both are scored on {a['num_scored_both']:,} images. A score is evidence, not a verdict.")
    else:
        missing = [name for name, found in ((source_a, a), (source_b, b)) if not found["num_scored"]]
        notes.append(f"Not scored: {', '.join(missing)}; the job ground scores what ground.sources names.")
    return Sheet(f"Captions of {source_a} and {source_b}", ("", source_a, source_b), rows, tuple(notes))


def _reasons(connection: Connection, source_a: str, source_b: str) -> list[tuple[Value, ...]]:
    """A row per reason why a kept image has no caption of a source, the most frequent first."""
    found: list[tuple[Value, ...]] = connection.execute(
        """
        SELECT
            concat('without: ', replace(reason, '_', ' ')),
            count(*) FILTER (source = $source_a) AS num_a,
            count(*) FILTER (source = $source_b) AS num_b
        FROM each_caption
        WHERE reason IS NOT NULL AND source IN ($source_a, $source_b)
        GROUP BY reason ORDER BY count(*) DESC, reason
        """,
        {"source_a": source_a, "source_b": source_b},
    ).fetchall()
    return found


def _only_here(connection: Connection, source_a: str, source_b: str) -> tuple[tuple[int, int], list[list[str]]]:
    """The number of nouns that only a and only b use, and the commonest of them."""
    for name, source in (("uses_before", source_b), ("uses_after", source_a)):
        create_uses(connection, name, source)
    changed = f"({read_sql('nouns_changed.sql')})"
    nums = dict(connection.execute(f"SELECT change, count(*) FROM {changed} GROUP BY change").fetchall())
    examples = [
        [noun for (noun,) in connection.execute(
            f"SELECT noun FROM {changed} WHERE change = $change ORDER BY num_uses DESC, noun LIMIT $most",
            {"change": change, "most": MOST_EXAMPLES},
        ).fetchall()]
        for change in ("gained", "lost")
    ]  # fmt: skip
    return (nums.get("gained", 0), nums.get("lost", 0)), examples
