"""Pictures with their captions: which ones the sections show, all that a card says, and thumbnails."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from PIL import Image

from engine.duck import Connection, Row, in_list, rows
from engine.names import Held
from schemas.pixels import PixelError, open_rgb
from schemas.scores import LIMITS
from viewer.grounding import marks
from viewer.rows import around, rows_at

PAGE_THUMBNAIL_PX = 240
"""Longest side of the pictures in a page that is one file."""
THUMBNAIL_BYTES = 18_000
"""A larger thumbnail is compressed harder; the number of thumbnails times this keeps the report under 10 MB."""

_CARD = """
SELECT
    listing.row_id, listing.member, images.width, images.height, images.reason AS error,
    coalesce(selection.inherited_caption, images.raw_caption) AS raw_caption, selection.inherited_from,
    CASE WHEN selection.inherited_caption IS NULL THEN raw_captions.reason END AS raw_reason,
    captions.caption AS synthetic_caption, captions.reason AS synthetic_reason, mix.caption_source, mix.fallback,
    scores.aesthetic, selection.rejected_by, selection.duplicate_method, selection.value
FROM listing
LEFT JOIN images USING (row_id) LEFT JOIN raw_captions USING (row_id) LEFT JOIN captions USING (row_id)
LEFT JOIN mix USING (row_id) LEFT JOIN scores USING (row_id) LEFT JOIN selection USING (row_id)
"""

_CARD_READS = [
    "listing",
    "images",
    "raw_captions",
    "captions",
    "mix",
    "scores",
    "selection",
    "grounding",
    "captions_beside",
]


@dataclass(frozen=True)
class Measure:
    """A number of every picture that says how good it is."""

    table: str
    column: str
    highest_is_worst: bool

    @property
    def field(self) -> str:
        return f"{self.table}.{self.column}"


MEASURES = (
    Measure("scores", "aesthetic", highest_is_worst=False),
    *(Measure("screens", column, knob.startswith("max_")) for knob, (column, _) in LIMITS.items()),
)
"""The score, then every screen that `select` can limit; the limit says which end is the worse."""


def worst(connection: Connection, limit: int) -> dict[Measure, list[tuple[int, float]]]:
    """Measure -> (row_id, value) of the worst kept pictures, the worst first; a measure without values is absent."""
    found = {}
    for measure in MEASURES:
        order = "DESC" if measure.highest_is_worst else "ASC"
        pairs = connection.execute(
            f"SELECT row_id, {measure.column} FROM selection JOIN {measure.table} USING (row_id) "
            f"WHERE kept AND {measure.column} IS NOT NULL ORDER BY {measure.column} {order}, row_id LIMIT $limit",
            {"limit": limit},
        ).fetchall()
        if pairs:
            found[measure] = pairs
    return found


def random(connection: Connection, limit: int) -> list[int]:
    """row_ids of kept pictures: those with the lowest image ids, which are hashes, so a fair sample."""
    found = connection.execute(
        "SELECT row_id FROM selection WHERE kept ORDER BY image_id, row_id LIMIT $limit", {"limit": limit}
    ).fetchall()
    return [row_id for (row_id,) in found]


def duplicates(connection: Connection, held: Held, limit: int) -> list[Row]:
    """The first pairs of a refused duplicate and its survivor, with sizes, distance and evidence."""
    pairs = connection.execute(
        "SELECT row_id, duplicate_of_row FROM selection "
        "WHERE rejected_by = 'duplicate' AND duplicate_of_row IS NOT NULL ORDER BY row_id LIMIT $limit",
        {"limit": limit},
    ).fetchall()
    row_ids = [row_id for pair in pairs for row_id in pair]
    with around(connection, held, row_ids, ["selection", "images", "duplicates"]) as near:
        return rows(near, _PAIRS, {"limit": limit})


_PAIRS = """
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
"""


def cards(connection: Connection, held: Held, row_ids: Sequence[int]) -> list[Row]:
    """The card of each of these inputs, in their order, each once; `marks` are its captions that were scored, and
    `beside` those of further captioners."""
    if not row_ids:
        return []
    with around(connection, held, row_ids, _CARD_READS) as near:
        found = rows(near, f"{_CARD} WHERE listing.row_id IN {in_list(row_ids)}")
        marked = marks(near, row_ids)
        beside = captions_beside(near, row_ids)
    by_id = {
        row["row_id"]: row | {"marks": marked.get(row["row_id"], {}), "beside": beside.get(row["row_id"], [])}
        for row in found
    }
    return [by_id[row_id] for row_id in dict.fromkeys(row_ids) if row_id in by_id]


def captions_beside(connection: Connection, row_ids: Sequence[int]) -> dict[int, list[Row]]:
    """row_id -> (source, caption, reason) of each further captioner, by name."""
    found: dict[int, list[Row]] = {}
    sql = "SELECT row_id, source, caption, reason FROM captions_beside WHERE row_id IN"
    for row in rows(connection, f"{sql} {in_list(row_ids)} ORDER BY row_id, source"):
        found.setdefault(row["row_id"], []).append(row)
    return found


def proxies(held: Held, row_ids: Collection[int]) -> dict[int, bytes]:
    """row_id -> the JPEG of its proxy; only these rows are read."""
    found = rows_at(held, "proxies", row_ids, ["row_id", "jpeg"])
    pairs = zip(found["row_id"].to_pylist(), found["jpeg"].to_pylist(), strict=True)
    return {row_id: jpeg for row_id, jpeg in pairs if jpeg is not None}


def thumbnail(jpeg: bytes, longest_px: int) -> bytes | None:
    """A small JPEG of a proxy; None where it cannot be decoded."""
    try:
        return _encoded(open_rgb(jpeg, longest_px=longest_px))
    except PixelError:
        return None


def data_uris(held: Held, row_ids: Collection[int]) -> dict[int, str]:
    """row_id -> a thumbnail to write into a page; a proxy that cannot be decoded has none."""
    found = {row_id: thumbnail(jpeg, PAGE_THUMBNAIL_PX) for row_id, jpeg in proxies(held, row_ids).items()}
    return {
        row_id: f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
        for row_id, jpeg in found.items()
        if jpeg is not None
    }


def _encoded(image: Image.Image) -> bytes:
    """A JPEG of at most `THUMBNAIL_BYTES`, but for noise that no quality makes so small, which is halved in size."""
    for quality in (72, 50, 30):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= THUMBNAIL_BYTES:
            return file.getvalue()
    return _encoded(image.reduce(2))
