"""The figures of the sections: one query each, over the views of a dataset."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from captioning.figures.queries import CAPTION_SOURCES
from engine.duck import Connection, Row, in_list, literal, rows
from engine.names import Held
from schemas.reasons import OUTCOMES, PURGED, FetchError, ImageError, Rejection, ShardError
from viewer.rows import around

NUM_BINS = 32
"""Most bars of a histogram of caption lengths."""
MOST_POINTS = 1500
"""Most pictures in the scatter of sizes: those with the lowest ids, which are hashes, so a fair sample."""
SCORE_BIN = 0.25
"""Width of a bar of the histogram of scores."""

LEDGER_TABLE = "counted_ledger"
NOUNS_TABLE = "counted_nouns"


def _enum(names: Iterable[str]) -> str:
    return f"ENUM({', '.join(map(literal, names))})"


COUNTED = {
    LEDGER_TABLE: f"""
        SELECT row_id, outcome::{_enum(OUTCOMES)} AS outcome,
               stage::{_enum(("ingest", "purge", "select", "mix", "balance", "shard"))} AS stage,
               reason::{_enum((*ImageError, *FetchError, *Rejection, *ShardError, PURGED))} AS reason
        FROM ledger""",
    NOUNS_TABLE: """
        SELECT noun,
            coalesce(sum(num_images) FILTER (caption_source = 'raw'), 0)::BIGINT AS raw_images,
            coalesce(sum(num_images) FILTER (caption_source = 'synthetic'), 0)::BIGINT AS synthetic_images,
            coalesce(sum(num_images) FILTER (caption_source = 'mix'), 0)::BIGINT AS mix_images
        FROM noun_uses WHERE subset IS NULL
        GROUP BY noun""",
}
"""Tables in memory that the live pages read, each counted once: the outcomes of the ledger without its five-way join,
and per noun the images whose raw, synthetic and mixed caption has it."""


@dataclass(frozen=True)
class Histogram:
    """Caption lengths of every source on one axis."""

    bin_width: int
    """Words or tokens per bin."""
    num_bins: int
    """The last one also holds everything longer."""
    counts: dict[str, list[int]]
    """Captions per bin, by source; sources without captions are absent."""
    means: dict[str, float]
    """Mean length by source."""


def num_inputs(connection: Connection) -> int:
    """Inputs in the listing, counted apart from the ledger so that the two can be compared."""
    [[count]] = connection.execute("SELECT count(*) FROM listing").fetchall()
    return int(count)


def cleaned_captions(connection: Connection) -> list[Row]:
    """(removed, num): what was taken out of the raw captions of kept images that still have one."""
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


def caption_words(connection: Connection) -> Histogram:
    return _lengths(
        connection,
        """
        SELECT caption_source, num_words AS length FROM nouns
        UNION ALL SELECT 'mix', num_words FROM nouns JOIN mix USING (row_id, caption_source)
        """,
    )


def caption_tokens(connection: Connection, reach: int) -> Histogram:
    """Tokens per caption, on an axis that holds `reach` too. Mixed captions are counted as they are stored, all others
    before any cut."""
    return _lengths(
        connection,
        """
        SELECT caption_source, num_tokens AS length FROM nouns
        UNION ALL SELECT 'mix', num_tokens FROM mix WHERE caption_source IS NOT NULL
        """,
        reach,
    )


def _lengths(connection: Connection, lengths: str, reach: int = 0) -> Histogram:
    """The histogram of a SELECT of (caption_source, length); 99 % of the captions and `reach` lie inside its axis."""
    each = connection.execute(
        f"SELECT length, caption_source, count(*) FROM ({lengths}) WHERE length IS NOT NULL GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    so_far = accumulate(count for _, _, count in each)
    num = sum(count for _, _, count in each)
    inside = (length for (length, _, _), count in zip(each, so_far, strict=True) if count >= 0.99 * num)
    longest = max(next(inside, 0), reach)
    bin_width = -(-(longest + 1) // NUM_BINS)
    num_bins = longest // bin_width + 1
    counts: dict[str, list[int]] = {source: [0] * num_bins for source in CAPTION_SOURCES}
    sums = dict.fromkeys(CAPTION_SOURCES, 0)
    for length, source, count in each:
        counts.setdefault(source, [0] * num_bins)[min(length // bin_width, num_bins - 1)] += count
        sums[source] = sums.get(source, 0) + length * count
    found = {source: bins for source, bins in counts.items() if sum(bins)}
    return Histogram(bin_width, num_bins, found, {source: sums[source] / sum(bins) for source, bins in found.items()})


def sizes(connection: Connection, held: Held) -> list[Row]:
    """(width, height, outcome) of a sample of the pictures, in upright px; kept ones last, so that they lie on top."""
    sample = connection.execute(
        "SELECT row_id FROM images WHERE width > 0 AND height > 0 ORDER BY image_id, row_id LIMIT $limit",
        {"limit": MOST_POINTS},
    ).fetchall()
    return _in_ledger(connection, held, sample, "width, height, outcome", "images", "outcome = 'kept', row_id")


def buckets(connection: Connection) -> list[Row]:
    """(name, num, num_shards) of each bucket, the fullest first."""
    return rows(
        connection,
        """
        SELECT bucket AS name, count(*) AS num, count(DISTINCT shard) AS num_shards
        FROM samples WHERE reason IS NULL GROUP BY bucket ORDER BY num DESC, bucket
        """,
    )


def refused(connection: Connection, held: Held, limit: int) -> list[Row]:
    """Inputs that were rejected or ended in an error, in the order of the listing."""
    firsts = (f"(SELECT row_id FROM {maybe} ORDER BY row_id LIMIT {limit})" for maybe in _MAYBE_REFUSED)
    found = connection.execute(" UNION ".join(firsts)).fetchall()
    columns = """row_id, ledger.member, outcome, stage, ledger.reason, ledger.value, ledger.threshold, ledger.detail,
        duplicate_method AS method, other_dataset"""
    shown = _in_ledger(connection, held, found, columns, "selection", "row_id")
    return [row for row in shown if row["outcome"] in ("rejected", "error")][:limit]


_MAYBE_REFUSED = (
    f"images WHERE reason <> '{PURGED}'",
    "selection WHERE rejected_by IS NOT NULL",
    "mix WHERE coin IS NOT NULL AND caption_source IS NULL",
    "samples WHERE reason IS NOT NULL",
    "balance WHERE dropped",
)
"""Each refused input is in one of these. To look for it in the ledger would be to join all of every table."""


def _in_ledger(
    connection: Connection, held: Held, found: list[tuple[int]], columns: str, table: str, order: str
) -> list[Row]:
    """Columns of these inputs in the ledger and one more table."""
    row_ids = [row_id for (row_id,) in found]
    if not row_ids:
        return []
    with around(connection, held, row_ids, ["ledger", table]) as near:
        return rows(
            near,
            f"SELECT {columns} FROM ledger LEFT JOIN {table} USING (row_id) WHERE row_id IN {in_list(row_ids)} "
            f"ORDER BY {order}",
        )


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


def changed_nouns(connection: Connection, limit: int) -> dict[str, list[Row]]:
    """Nouns that only the synthetic captions use ("gained") and that only the raw ones use ("lost"). Returns rows of
    (name, num), the noun and its images, the most frequent first, at most `limit` of each."""
    found = rows(
        connection,
        f"""
        SELECT if(raw_images = 0, 'gained', 'lost') AS change, noun AS name,
               greatest(raw_images, synthetic_images) AS num
        FROM ({COUNTED[NOUNS_TABLE]}) WHERE raw_images = 0 OR synthetic_images = 0
        QUALIFY row_number() OVER (PARTITION BY change ORDER BY num DESC, name) <= $limit
        ORDER BY change, num DESC, name
        """,
        {"limit": limit},
    )
    return {change: [row for row in found if row["change"] == change] for change in ("gained", "lost")}
