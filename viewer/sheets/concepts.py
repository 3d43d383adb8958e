"""The concepts of the captions: how common nouns are, which come together, how their number grows, what changed."""

from __future__ import annotations

import math

from captioning.figures.queries import read_sql
from engine.reduce_job import Connection
from viewer.sheets.compare import create_caption_views, create_uses, require_captions, require_nouns
from viewer.sheets.sheet import Sheet, Value

PAIR_VOCABULARY = 1000
"""Pairs are counted among this many of the most frequent nouns."""
PAIR_IMAGES = 1_000_000
"""Pairs are counted over at most this many images."""
HALVINGS = 20
"""The growth curve begins at a millionth of the captions."""
FEWEST_IMAGES = 8
"""The growth curve has no point with fewer images."""


def frequencies(connection: Connection, source: str, top: int) -> Sheet:
    """The commonest nouns of a source with the share of its captions that has them, and the slope of Zipf's law. Raises
    ValueError: the source has no captions here."""
    num_captions = _num_described(connection, source)
    create_uses(connection, "uses", source)
    found = connection.execute(
        "SELECT noun, num_uses, num_images FROM uses ORDER BY num_uses DESC, noun LIMIT $top", {"top": top}
    ).fetchall()
    rows: list[tuple[Value, ...]] = [
        (rank, noun, uses, images, images / num_captions) for rank, (noun, uses, images) in enumerate(found, 1)
    ]
    # Over the ranks whose nouns are used more than once: the long tail of single uses is flat and would decide it.
    (slope,) = connection.execute(
        """
        SELECT regr_slope(ln(num_uses), ln(rank))
        FROM (SELECT num_uses, row_number() OVER (ORDER BY num_uses DESC, noun) AS rank FROM uses)
        WHERE num_uses > 1
        """
    ).fetchone() or (None,)
    usable = slope is not None and math.isfinite(slope)
    fitted = f"{slope:.2f}" if usable else "not defined, too few nouns are used twice"
    note = f"Zipf slope, log uses over log rank, of nouns used more than once: {fitted}. Natural text: about -1."
    headers = ("rank", "noun", "occurrences", "images", "share of captions")
    return Sheet(f"Nouns of {source}: {num_captions:,} captions", headers, rows, (note,))


def pairs(connection: Connection, source: str, top: int) -> Sheet:
    """The commonest pairs of nouns in one caption; arguments and errors as `frequencies`."""
    num_captions = _num_described(connection, source)
    knobs = {"source": source, "vocabulary": PAIR_VOCABULARY, "most_images": PAIR_IMAGES, "top": top}
    rows = connection.execute(read_sql("pairs.sql"), knobs).fetchall()
    notes = (
        f"Pairs of the {PAIR_VOCABULARY:,} commonest nouns in {min(num_captions, PAIR_IMAGES):,} of {num_captions:,} "
        "captions. Lift: how many times as often as by chance.",
    )
    return Sheet(f"Pairs of nouns in one caption, {source}", ("noun", "with", "images", "lift"), rows, notes)


def growth(connection: Connection, source: str) -> Sheet:
    """Distinct nouns against the number of captions; errors as `frequencies`."""
    _num_described(connection, source)
    found = connection.execute(read_sql("growth.sql"), {"source": source, "halvings": HALVINGS}).fetchall()
    rows: list[tuple[Value, ...]] = []
    for _, num_images, distinct in found:
        if num_images < FEWEST_IMAGES or not distinct:
            continue
        exponent = None
        if rows and isinstance(rows[-1][0], int) and isinstance(rows[-1][1], int) and rows[-1][0] < num_images:
            exponent = math.log(distinct / rows[-1][1]) / math.log(num_images / rows[-1][0])
        rows.append((num_images, distinct, exponent))
    notes = ("Fair samples of the captions, doubled. Exponent: of Heaps' law since the row above; near 0 nothing new.",)
    return Sheet(f"Growth of nouns, {source}", ("captions", "distinct nouns", "exponent"), rows, notes)


def against(connection: Connection, other: Connection, source: str, top: int) -> Sheet:
    """Concepts that the captions of a source gained and lost since another dataset, the commonest first. Raises
    ValueError: the source has no captions in one of the two."""
    for one in (connection, other):
        _num_described(one, source)
    create_uses(connection, "uses_after", source)
    create_uses(other, "uses", source)
    connection.register("uses_before", other.sql("FROM uses").to_arrow_table())
    changed = f"({read_sql('nouns_changed.sql')})"
    rows = connection.execute(
        f"""
        FROM {changed}
        QUALIFY row_number() OVER (PARTITION BY change ORDER BY num_images DESC, noun) <= $top
        ORDER BY change, num_images DESC, noun
        """,
        {"top": top},
    ).fetchall()
    nums = dict(connection.execute(f"SELECT change, count(*) FROM {changed} GROUP BY change").fetchall())
    note = f"{nums.get('gained', 0):,} nouns gained, {nums.get('lost', 0):,} lost; lost ones are counted over there."
    return Sheet(f"Nouns gained and lost, {source}", ("change", "noun", "occurrences", "images"), rows, (note,))


def _num_described(connection: Connection, source: str) -> int:
    """The number of captions of a source whose nouns were found."""
    create_caption_views(connection)
    require_captions(connection, source)
    require_nouns(connection, source)
    (count,) = connection.execute(
        "SELECT count(*) FROM each_nouns WHERE source = $source", {"source": source}
    ).fetchone() or (0,)
    if not count:
        raise ValueError(f"the nouns of {source!r} have not been found yet; run the job nouns")
    return int(count)
