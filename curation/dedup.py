"""Group pictures that are the same: equal bytes, equal pixels, or pHashes within a few bits of each other.

Near pHashes are found without comparing all pairs: 64 bits cut into 4 bands of 16; hashes within 3 bits agree in at
least one band whole (pigeonhole; Manku, Jain, Das Sarma, "Detecting near-duplicates for web crawling", 2007).
"""

from __future__ import annotations

from functools import partial

from curation.reduce import Connection, Reduce
from schemas.recipe import DataRecipe

_ROWS = """
CREATE TEMP TABLE candidates AS
SELECT row_id, images.image_id, sha256, pixel_sha256,
       -- a flat picture has no structure to hash: only its bytes or pixels can show that it is the same
       CASE WHEN phash NOT IN (0, 18446744073709551615) THEN phash END AS phash
FROM images JOIN fingerprints USING (row_id)
WHERE images.reason IS NULL
"""

_EXACT_EDGES = """
CREATE TEMP TABLE edges AS
SELECT min(row_id) OVER (PARTITION BY sha256) AS a, row_id AS b, 'bytes' AS method, 0 AS distance FROM candidates
UNION ALL
SELECT min(row_id) OVER (PARTITION BY pixel_sha256), row_id, 'pixels', 0 FROM candidates
WHERE pixel_sha256 IS NOT NULL
"""

_HASHES = """
CREATE TEMP TABLE hashes AS
SELECT phash, min(row_id) AS first_row FROM candidates WHERE phash IS NOT NULL GROUP BY phash
"""

_NEAR_EDGES = """
INSERT INTO edges
WITH bands AS (
    SELECT phash, first_row, band, (phash >> (band * 16)) & 65535 AS bits
    FROM hashes, range(4) AS bands(band)
)
SELECT DISTINCT least(x.first_row, y.first_row), greatest(x.first_row, y.first_row), 'phash',
       bit_count(xor(x.phash, y.phash))
FROM bands AS x JOIN bands AS y ON x.band = y.band AND x.bits = y.bits AND x.phash < y.phash
WHERE bit_count(xor(x.phash, y.phash)) <= $max_distance
UNION ALL
SELECT first_row, row_id, 'phash', 0 FROM candidates JOIN hashes USING (phash)
"""

_LABELS = """
CREATE TEMP TABLE labels AS
SELECT DISTINCT row_id, row_id AS label FROM (SELECT a AS row_id FROM edges UNION SELECT b FROM edges)
"""

_LOWER = """
CREATE OR REPLACE TEMP TABLE lowered AS
SELECT row_id, min(label) AS label FROM (
    SELECT row_id, label FROM labels
    UNION ALL
    SELECT edges.b, labels.label FROM edges JOIN labels ON labels.row_id = edges.a
    UNION ALL
    SELECT edges.a, labels.label FROM edges JOIN labels ON labels.row_id = edges.b
    UNION ALL
    SELECT near.row_id, far.label FROM labels AS near JOIN labels AS far ON far.row_id = near.label
)
GROUP BY row_id
"""

_GROUPS = """
WITH evidence AS (
    SELECT row_id,
           min(CASE method WHEN 'bytes' THEN 0 WHEN 'pixels' THEN 1 ELSE 2 END) AS strength,
           min(distance) AS distance
    FROM (SELECT a AS row_id, method, distance FROM edges UNION ALL SELECT b, method, distance FROM edges)
    GROUP BY row_id
)
SELECT labels.row_id, candidates.image_id, labels.label AS group_id,
       CASE strength WHEN 0 THEN 'bytes' WHEN 1 THEN 'pixels' ELSE 'phash' END AS method,
       evidence.distance
FROM labels JOIN evidence USING (row_id) JOIN candidates USING (row_id)
ORDER BY labels.row_id
"""


def reduce(recipe: DataRecipe) -> Reduce:
    """The dedup job: one row per picture that has a double, naming its group and the strongest evidence."""
    return Reduce(
        job="dedup",
        output="duplicates",
        inputs=("images", "fingerprints"),
        query=partial(find_groups, max_distance=recipe.dedup.max_distance),
        knobs={"dedup.max_distance": recipe.dedup.max_distance},
    )


def find_groups(connection: Connection, max_distance: int | None) -> str:
    """Connected components over the evidence; the label of a group is its lowest row_id, whatever the order of work."""
    connection.execute(_ROWS)
    connection.execute(_EXACT_EDGES)
    connection.execute(_HASHES)
    if max_distance is not None:
        connection.execute(_NEAR_EDGES, {"max_distance": max_distance})
    connection.execute("DELETE FROM edges WHERE a = b")
    connection.execute(_LABELS)
    while True:
        connection.execute(_LOWER)
        changed = connection.execute(
            "SELECT count(*) FROM labels JOIN lowered USING (row_id) WHERE labels.label <> lowered.label"
        ).fetchone()
        connection.execute("CREATE OR REPLACE TEMP TABLE labels AS SELECT * FROM lowered")
        if changed == (0,):
            return _GROUPS
