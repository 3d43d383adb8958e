"""The raw caption that a picture inherits from its duplicates: SQL over survivors, captions and fingerprints. The rule:
a picture that is kept of its group, and whose own raw caption was refused or is missing, takes the kept one with the
most tokens among the duplicates that fell for it and are the same picture by bytes, pixels or pHash themselves; through
a chain of duplicates, or for a likeness of embeddings, no caption travels. Of equals the one with the lowest image id
gives its own, then the first by its text: neither the order of the inputs nor the workers matter."""

from __future__ import annotations

from curation.dedup.dedup import FLAT_HASHES
from schemas.tokens import num_tokens_sql


def best_first(caption: str, image_id: str, row_id: str) -> str:
    """ORDER BY of raw captions: the kept one with the most tokens first; only equal texts of copies are left to the
    order of their rows."""
    return f"{num_tokens_sql(caption)} DESC NULLS LAST, {image_id}, {caption}, {row_id}"


def inherited_sql(max_distance: int | None) -> str:
    """(row_id, caption, caption_image, caption_row) of the pictures that take a caption over. Over `survivors` (row_id,
    image_id, survivor_row, survivor), `raw_captions` and `fingerprints`. `max_distance`: bits between two pHashes of
    one picture; None takes copies only."""
    near = "false"
    if max_distance is not None:
        flat = " AND ".join(f"{side}.phash NOT IN ({FLAT_HASHES})" for side in ("ours", "theirs"))
        near = f"(bit_count(xor(ours.phash, theirs.phash)) <= {int(max_distance)} AND {flat})"
    order = best_first("raw_captions.caption", "survivors.image_id", "survivors.row_id")
    # a join with the fingerprints of all pictures would not fit in memory
    prints = "(SELECT row_id, phash, pixel_sha256 FROM fingerprints SEMI JOIN survivors USING (row_id))"
    return f"""
SELECT survivor_row AS row_id, raw_captions.caption, survivors.image_id AS caption_image,
       survivors.row_id AS caption_row
FROM survivors
JOIN raw_captions ON raw_captions.row_id = survivors.row_id
JOIN raw_captions AS own ON own.row_id = survivor_row
LEFT JOIN {prints} AS theirs ON theirs.row_id = survivors.row_id
LEFT JOIN {prints} AS ours ON ours.row_id = survivor_row
WHERE own.caption IS NULL AND raw_captions.caption IS NOT NULL
  AND (survivors.image_id = survivor OR ours.pixel_sha256 = theirs.pixel_sha256 OR {near})
QUALIFY row_number() OVER (PARTITION BY survivor_row ORDER BY {order}) = 1
"""
