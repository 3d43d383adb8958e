"""The pictures that the report shows with their captions: random ones, the worst by each measure, and duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.catalog import Connection, Row, rows
from schemas.scores import LIMITS


@dataclass(frozen=True)
class Measure:
    """A number of every picture that says how good it is."""

    table: str
    column: str
    highest_is_worst: bool

    @property
    def field(self) -> str:
        """`table.column`."""
        return f"{self.table}.{self.column}"


MEASURES = (
    Measure("scores", "aesthetic", highest_is_worst=False),
    *(Measure("screens", column, knob.startswith("max_")) for knob, column in LIMITS.items()),
)
"""The score, then every screen that `select` can limit; the limit says which end is the worse."""


@dataclass(frozen=True)
class Worst:
    """The worst pictures by one measure, the worst first."""

    measure: Measure
    found: list[tuple[int, float]]
    """(row_id, value)"""


def worst(connection: Connection, limit: int) -> list[Worst]:
    """The worst kept pictures by each measure; one that nothing has measured is absent."""
    found = []
    for measure in MEASURES:
        order = "DESC" if measure.highest_is_worst else "ASC"
        pairs = connection.execute(
            f"SELECT row_id, {measure.column} FROM selection JOIN {measure.table} USING (row_id) "
            f"WHERE kept AND {measure.column} IS NOT NULL ORDER BY {measure.column} {order}, row_id LIMIT $limit",
            {"limit": limit},
        ).fetchall()
        if pairs:
            found.append(Worst(measure, pairs))
    return found


def random(connection: Connection, limit: int) -> list[int]:
    """row_ids of kept pictures: those with the lowest image ids, which are hashes, so a fair sample."""
    found = connection.execute(
        "SELECT row_id FROM selection WHERE kept ORDER BY image_id, row_id LIMIT $limit", {"limit": limit}
    ).fetchall()
    return [row_id for (row_id,) in found]


def pictures(connection: Connection, row_ids: Sequence[int]) -> list[Row]:
    """These pictures in their order, each once, with both captions, score, size and file name."""
    if not row_ids:
        return []
    found = rows(
        connection,
        f"""
        SELECT
            images.row_id, images.member, images.width, images.height,
            coalesce(selection.inherited_caption, images.raw_caption) AS raw_caption, selection.inherited_from,
            CASE WHEN selection.inherited_caption IS NULL THEN raw_captions.reason END AS raw_reason,
            captions.caption AS synthetic_caption,
            captions.reason AS synthetic_reason, captions.captioner, mix.caption_source, mix.fallback,
            scores.aesthetic, samples.bucket
        FROM images
        LEFT JOIN selection USING (row_id)
        LEFT JOIN raw_captions USING (row_id)
        LEFT JOIN captions USING (row_id)
        LEFT JOIN mix USING (row_id)
        LEFT JOIN scores USING (row_id)
        LEFT JOIN samples USING (row_id)
        WHERE images.row_id IN ({_places(row_ids)})
        """,
    )
    by_id = {row["row_id"]: row for row in found}
    return [by_id[row_id] for row_id in dict.fromkeys(row_ids) if row_id in by_id]


def duplicates(connection: Connection, limit: int) -> list[Row]:
    """Pairs of a refused duplicate and its survivor, with sizes, distance and evidence."""
    return rows(
        connection,
        """
        SELECT
            refused.row_id, refused.member, refused.width, refused.height,
            survivor.row_id AS survivor_row, survivor.member AS survivor_member,
            survivor.width AS survivor_width, survivor.height AS survivor_height,
            duplicates.method, duplicates.distance
        FROM selection
        JOIN images AS refused USING (row_id)
        JOIN images AS survivor ON survivor.row_id = selection.duplicate_of_row
        LEFT JOIN duplicates ON duplicates.row_id = selection.row_id
        WHERE selection.rejected_by = 'duplicate'
        ORDER BY refused.row_id
        LIMIT $limit
        """,
        {"limit": limit},
    )


def proxies(connection: Connection, row_ids: Sequence[int]) -> dict[int, bytes]:
    """row_id -> the JPEG of its proxy."""
    if not row_ids:
        return {}
    found = connection.execute(
        f"SELECT row_id, jpeg FROM proxies WHERE jpeg IS NOT NULL AND row_id IN ({_places(row_ids)})"
    ).fetchall()
    return {row_id: bytes(jpeg) for row_id, jpeg in found}


def _places(row_ids: Sequence[int]) -> str:
    """Numbers to write after IN: as literals, because DuckDB skips row groups by them."""
    return ", ".join(str(int(row_id)) for row_id in dict.fromkeys(row_ids))
