"""What the report says in numbers: one query per figure over the views of a dataset."""

from __future__ import annotations

from dataclasses import dataclass

from engine.catalog import Connection, Row, rows

CAPTION_SOURCES = ("raw", "synthetic", "mix")

NUM_BINS = 32
"""Most bars of the caption-length histogram."""
MOST_POINTS = 1500
"""Most pictures in the scatter of sizes: those with the lowest ids, which are hashes, so a fair sample."""


@dataclass(frozen=True)
class Histogram:
    """Caption lengths of every source on one axis."""

    bin_words: int
    """Width of a bin."""
    num_bins: int
    """The last one also holds everything longer."""
    counts: dict[str, list[int]]
    """Captions per bin, by source; sources without captions are absent."""
    means: dict[str, float]
    """Mean words by source."""


def num_inputs(connection: Connection) -> int:
    """Inputs in the listing, counted apart from the ledger so that the two can be compared."""
    (count,) = connection.execute("SELECT count(*) FROM listing").fetchone() or (0,)
    return int(count)


def cleaned_captions(connection: Connection) -> list[Row]:
    """(removed, num): what was taken out of the raw captions of kept images that stayed."""
    return rows(
        connection,
        """
        SELECT removed, count(*) AS num
        FROM (SELECT row_id, unnest(removed) AS removed FROM raw_captions WHERE caption IS NOT NULL)
        JOIN selection USING (row_id)
        WHERE kept
        GROUP BY removed
        ORDER BY num DESC, removed
        """,
    )


def caption_lengths(connection: Connection) -> Histogram:
    """Words per caption, binned so that 99 % of the captions lie inside the axis."""
    connection.execute(
        """
        CREATE OR REPLACE TEMPORARY VIEW report_lengths AS
        SELECT caption_source, num_words FROM nouns
        WHERE num_words IS NOT NULL AND caption_source IN ('raw', 'synthetic')
        UNION ALL
        SELECT 'mix', num_words FROM nouns JOIN mix USING (row_id, caption_source) WHERE num_words IS NOT NULL
        """
    )
    (longest,) = connection.execute("SELECT quantile_disc(num_words, 0.99) FROM report_lengths").fetchone() or (None,)
    bin_words = max(1, -(-(int(longest or 0) + 1) // NUM_BINS))
    num_bins = int(longest or 0) // bin_words + 1
    counts = {source: [0] * num_bins for source in CAPTION_SOURCES}
    found = connection.execute(
        """
        SELECT caption_source, least(num_words // $bin_words, $last)::INTEGER AS bin, count(*)
        FROM report_lengths GROUP BY ALL
        """,
        {"bin_words": bin_words, "last": num_bins - 1},
    ).fetchall()
    for source, place, count in found:
        counts[source][place] = count
    means = dict(
        connection.execute("SELECT caption_source, avg(num_words) FROM report_lengths GROUP BY ALL").fetchall()
    )
    return Histogram(bin_words, num_bins, {source: bins for source, bins in counts.items() if sum(bins)}, means)


def sizes(connection: Connection) -> list[Row]:
    """(width, height, outcome) of a sample of the pictures, in upright px; kept ones last, so that they lie on top."""
    return rows(
        connection,
        """
        SELECT width, height, outcome FROM (
            SELECT images.width, images.height, ledger.outcome, ledger.row_id
            FROM images JOIN ledger USING (row_id)
            WHERE images.width > 0 AND images.height > 0
            ORDER BY images.image_id, images.row_id
            LIMIT $limit
        )
        ORDER BY outcome = 'kept', row_id
        """,
        {"limit": MOST_POINTS},
    )


def buckets(connection: Connection) -> list[Row]:
    """(bucket, num, num_shards), fullest first."""
    return rows(
        connection,
        """
        SELECT bucket, count(*) AS num, count(DISTINCT shard) AS num_shards
        FROM samples WHERE reason IS NULL GROUP BY bucket ORDER BY num DESC, bucket
        """,
    )


def refused(connection: Connection, limit: int) -> list[Row]:
    """Inputs that were rejected or ended in an error, in the order of the listing."""
    return rows(
        connection,
        """
        SELECT ledger.row_id, ledger.member, outcome, stage, ledger.reason, ledger.value, ledger.threshold,
               coalesce(images.detail, samples.detail) AS detail, duplicate_method AS method, other_dataset
        FROM ledger
        LEFT JOIN images USING (row_id)
        LEFT JOIN selection USING (row_id)
        LEFT JOIN samples USING (row_id)
        WHERE outcome IN ('rejected', 'error')
        ORDER BY ledger.row_id
        LIMIT $limit
        """,
        {"limit": limit},
    )


def caption_tokens(connection: Connection, reach: int) -> Histogram:
    """Tokens per caption, on an axis that holds 99 % of the captions and `reach`.

    Raw and synthetic captions are counted before any cut, mixed ones as they are stored.
    """
    lengths = """
        SELECT caption_source, num_tokens FROM nouns WHERE caption_source IN ('raw', 'synthetic')
        UNION ALL SELECT 'mix', num_tokens FROM mix WHERE caption_source IS NOT NULL
    """
    (longest,) = connection.execute(
        f"SELECT quantile_disc(num_tokens, 0.99) FROM ({lengths}) WHERE num_tokens IS NOT NULL"
    ).fetchone() or (None,)
    bin_tokens = -(-(max(int(longest or 0), reach) + 1) // NUM_BINS)
    num_bins = max(int(longest or 0), reach) // bin_tokens + 1
    counts = {source: [0] * num_bins for source in CAPTION_SOURCES}
    sums = dict.fromkeys(CAPTION_SOURCES, 0)
    for source, place, count, total in connection.execute(
        f"SELECT caption_source, least(num_tokens // $bin_tokens, $last)::INTEGER, count(*), sum(num_tokens) "
        f"FROM ({lengths}) WHERE num_tokens IS NOT NULL GROUP BY ALL",
        {"bin_tokens": bin_tokens, "last": num_bins - 1},
    ).fetchall():
        counts[source][place] = count
        sums[source] += int(total)
    found = {source: bins for source, bins in counts.items() if sum(bins)}
    return Histogram(bin_tokens, num_bins, found, {source: sums[source] / sum(bins) for source, bins in found.items()})


SCORE_BIN = 0.25
"""Width of a bar of the histogram of scores."""


def scores(connection: Connection) -> list[Row]:
    """(bin, kept, others): pictures per step of `SCORE_BIN` of the aesthetic score, from 1 on."""
    return rows(
        connection,
        """
        SELECT
            greatest(0, least($last, floor((aesthetic - 1) / $width)))::INTEGER AS bin,
            count(*) FILTER (coalesce(kept, false)) AS kept,
            count(*) FILTER (NOT coalesce(kept, false)) AS others
        FROM scores LEFT JOIN selection USING (row_id)
        WHERE aesthetic IS NOT NULL
        GROUP BY bin ORDER BY bin
        """,
        {"width": SCORE_BIN, "last": round(9 / SCORE_BIN) - 1},
    )


NOUN_TABLE = """
SELECT noun,
    coalesce(sum(num_images) FILTER (caption_source = 'raw'), 0)::BIGINT AS raw_images,
    coalesce(sum(num_images) FILTER (caption_source = 'synthetic'), 0)::BIGINT AS synthetic_images,
    coalesce(sum(num_images) FILTER (caption_source = 'mix'), 0)::BIGINT AS mix_images
FROM noun_uses WHERE subset IS NULL
GROUP BY noun
"""
"""One row per noun: the images whose raw, synthetic and mixed caption has it."""


def changed_nouns(connection: Connection, limit: int, table: str = f"({NOUN_TABLE})") -> dict[str, list[Row]]:
    """Nouns that only the synthetic captions use ("gained") and that only the raw ones use ("lost").

    Args:
        table: where the rows of `NOUN_TABLE` are, if they are counted already.

    Returns:
        rows of (noun, num_images), the most frequent first, at most `limit` of each.
    """
    found = rows(
        connection,
        f"""
        SELECT if(raw_images = 0, 'gained', 'lost') AS change, noun,
               greatest(raw_images, synthetic_images) AS num_images
        FROM {table} WHERE raw_images = 0 OR synthetic_images = 0
        QUALIFY row_number() OVER (PARTITION BY change ORDER BY num_images DESC, noun) <= $limit
        ORDER BY change, num_images DESC, noun
        """,
        {"limit": limit},
    )
    return {change: [row for row in found if row["change"] == change] for change in ("gained", "lost")}
