"""Group pictures that are the same: equal bytes, equal pixels, pHashes within a few bits, embeddings that are close. A
group is a connected component: two pictures are in one group where a chain of such pairs joins them, though the ends of
the chain may be further apart. What another dataset holds is found the same way, pair by pair and without chains."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from engine.catalog import select_table
from engine.dataset import Dataset
from engine.duck import literal
from engine.names import Held
from engine.reduce_job import Connection, ReduceJob
from schemas.files import shown_place
from schemas.late import late
from schemas.recipe import DataRecipe, Dedup
from schemas.strict import fingerprint

with late(__name__):
    from curation.dedup.near_hashes import find_pairs
    from curation.dedup.semantic import find_similar, require_faiss

METHODS = ("bytes", "pixels", "phash", "semantic")
"""Kinds of evidence, strongest first."""

_METHOD = f"list_extract({list(METHODS)}, strength + 1)"

FLAT_HASHES = "0, 18446744073709551615"
"""pHashes of flat pictures, which have no structure to hash, and of no picture: only bytes or pixels can show that they
are the same."""

_HASHED = f"phash IS NOT NULL AND phash NOT IN ({FLAT_HASHES})"

_EDGES = "CREATE TEMP TABLE edges (a BIGINT, b BIGINT, strength INTEGER, distance FLOAT)"

# Few contents occur twice: they are picked by a short hash first, so that no table of all contents is ever held.
_EXACT_EDGES = """
INSERT INTO edges
WITH seen AS (SELECT row_id, {content} AS content FROM {table} WHERE {condition}),
twice AS (SELECT hash(content) AS short FROM seen GROUP BY short HAVING count(*) > 1),
same AS (SELECT min(row_id) OVER (PARTITION BY content) AS a, row_id AS b FROM seen
         WHERE hash(content) IN (FROM twice))
SELECT a, b, {strength}, 0 FROM same WHERE a <> b
"""

_HASHES = f"CREATE TEMP TABLE hashes AS SELECT DISTINCT phash FROM fingerprints WHERE {_HASHED}"

_NEAR_EDGES = f"""
INSERT INTO edges
WITH involved AS (SELECT DISTINCT unnest([x, y]) AS phash FROM near),
first AS (SELECT phash, min(row_id) AS row_id FROM fingerprints
          WHERE {_HASHED} AND phash IN (FROM involved) GROUP BY phash)
SELECT least(one.row_id, two.row_id), greatest(one.row_id, two.row_id), 2, distance
FROM near JOIN first AS one ON one.phash = x JOIN first AS two ON two.phash = y
"""

_LABELS = """
CREATE TEMP TABLE labels AS
SELECT DISTINCT row_id, row_id AS label FROM (SELECT a AS row_id FROM edges UNION ALL SELECT b FROM edges)
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

_MATCHES = "CREATE TEMP TABLE matches (row_id BIGINT, strength INTEGER, distance FLOAT, dataset VARCHAR, image VARCHAR)"

_EXACT_MATCHES = """
INSERT INTO matches
SELECT ours.row_id, {strength}, 0, others.dataset, others.image_id
FROM {table} AS ours JOIN other_{table} AS others ON ours.{content} = others.{content}
WHERE ours.image_id IS NOT NULL
"""

_NEAR_MATCHES = """
INSERT INTO matches
SELECT ours.row_id, 2, distance, others.dataset, others.image_id
FROM near_others JOIN fingerprints AS ours ON ours.phash = x JOIN other_fingerprints AS others ON others.phash = y
"""

_GROUPS = f"""
WITH evidence AS (
    SELECT row_id, min(strength) AS strength, arg_min(distance, strength * 100 + distance) AS distance
    FROM (SELECT a AS row_id, strength, distance FROM edges UNION ALL SELECT b, strength, distance FROM edges)
    GROUP BY row_id
), strongest AS (
    SELECT * FROM matches
    QUALIFY row_number() OVER (PARTITION BY row_id ORDER BY strength, distance, dataset, image) = 1
), grouped AS (
    SELECT row_id, label, {_METHOD} AS method, distance FROM labels JOIN evidence USING (row_id)
), matched AS (
    SELECT row_id, dataset, image, {_METHOD} AS method, distance FROM strongest
), found AS (
    SELECT coalesce(grouped.row_id, matched.row_id) AS row_id, grouped, matched
    FROM grouped FULL JOIN matched ON grouped.row_id = matched.row_id
)
SELECT row_id, images.image_id, coalesce(grouped.label, row_id) AS group_id, grouped.method, grouped.distance,
       matched.dataset AS other_dataset, matched.image AS other_image_id,
       matched.method AS other_method, matched.distance AS other_distance
FROM found JOIN images USING (row_id)
ORDER BY row_id
"""


def reduce_job(recipe: DataRecipe) -> ReduceJob:
    """The dedup job: one row per picture that has a double, naming its group and the strongest evidence."""
    knobs = {f"dedup.{name}": value for name, value in recipe.dedup.resolved().items()}
    if recipe.dedup.against:
        knobs["dedup.against"] = [_state(path) for path in recipe.dedup.against_paths()]
    is_semantic = recipe.dedup.semantic_threshold is not None
    return ReduceJob(
        job="dedup",
        outputs=("duplicates",),
        inputs=("images", "fingerprints", *(["embeddings"] if is_semantic else [])),
        query=partial(find_groups, section=recipe.dedup),
        knobs=knobs,
        needs=(
            *([require_faiss] if is_semantic else []),
            *(partial(_require, path) for path in recipe.dedup.against_paths()),
        ),
    )


def find_groups(connection: Connection, section: Dedup) -> str:
    """Connected components over the evidence; the label of a group is its lowest row_id, whatever the order of work.
    Raises ValueError: `against` names a folder that holds no dataset, or one without fingerprints; embeddings are
    needed and there are none."""
    connection.execute("SET preserve_insertion_order = false")  # the outcome is sorted; in between it costs memory
    connection.execute(_EDGES)
    find_copies(connection)
    connection.execute(_HASHES)
    if section.max_distance is not None:
        find_near(connection, section.max_distance)
    if section.semantic_threshold is not None:
        find_similar(connection, section.semantic_threshold, into="alike")
        connection.execute("INSERT INTO edges SELECT a, b, 3, distance FROM alike")
    connection.execute(_MATCHES)
    if section.against:
        find_in_others(connection, section.against_paths(), section.max_distance)
    connection.execute("DROP TABLE hashes")
    label_groups(connection)
    return _GROUPS


def find_copies(connection: Connection) -> None:
    """Edges between equal bytes, and between equal pixels."""
    kinds = (("images", "sha256", "reason IS NULL"), ("fingerprints", "pixel_sha256", "pixel_sha256 IS NOT NULL"))
    for strength, (table, content, condition) in enumerate(kinds):
        connection.execute(_EXACT_EDGES.format(table=table, content=content, condition=condition, strength=strength))


def find_near(connection: Connection, max_distance: int) -> None:
    """Edges between equal pHashes, and between the first pictures of two that differ in a few bits."""
    connection.execute(_EXACT_EDGES.format(table="fingerprints", content="phash", condition=_HASHED, strength=2))
    find_pairs(connection, "hashes", "hashes", max_distance, into="near")
    connection.execute(_NEAR_EDGES)
    connection.execute("DROP TABLE near")


def match_others(connection: Connection, others: Sequence[Path], max_distance: int | None) -> None:
    """Make the table `matches` (row_id, strength, distance, dataset, image): pictures that other datasets have too.
    `METHODS[strength]` is the evidence. Raises ValueError: as `find_groups`."""
    connection.execute(_HASHES)
    connection.execute(_MATCHES)
    if others:
        find_in_others(connection, others, max_distance)


def find_in_others(connection: Connection, others: Sequence[Path], max_distance: int | None) -> None:
    """Matches with pictures of other datasets, by the same evidence."""
    columns = {"images": "sha256", "fingerprints": "pixel_sha256, phash"}
    for table, named in columns.items():
        condition = "reason IS NULL" if table == "images" else "pixel_sha256 IS NOT NULL"
        selects = [
            f"SELECT {literal(shown_place(path))} AS dataset, image_id, {named} "
            f"FROM ({select_table(_require(path), table)}) WHERE {condition}"
            for path in others
        ]
        connection.execute(f"CREATE TEMP TABLE other_{table} AS {' UNION ALL '.join(selects)}")
    for strength, (table, content) in enumerate((("images", "sha256"), ("fingerprints", "pixel_sha256"))):
        connection.execute(_EXACT_MATCHES.format(table=table, content=content, strength=strength))
    if max_distance is not None:
        connection.execute(
            f"CREATE TEMP TABLE other_hashes AS SELECT DISTINCT phash FROM other_fingerprints WHERE {_HASHED}"
        )
        find_pairs(connection, "hashes", "other_hashes", max_distance, into="near_others")
        connection.execute(_NEAR_MATCHES)


def label_groups(connection: Connection) -> None:
    """The lowest row_id that edges lead to, for every row that has an edge: labels are lowered until none changes."""
    connection.execute(_LABELS)
    while True:
        connection.execute(_LOWER)
        changed = connection.execute(
            "SELECT count(*) FROM labels JOIN lowered USING (row_id) WHERE labels.label <> lowered.label"
        ).fetchone()
        connection.execute("CREATE OR REPLACE TEMP TABLE labels AS SELECT * FROM lowered")
        if changed == (0,):
            return


def _require(path: Path) -> Held:
    return Dataset(path).held_with("images", "fingerprints", named_by="dedup.against: ")


def _state(path: Path) -> str:
    """A dataset and the contents of its fingerprints, so that a change is noticed."""
    contents = [name.content for name in Dataset(path).held().parts("fingerprints").values()]
    return f"{shown_place(path)} {fingerprint(contents) if contents else 'not built'} {len(contents)} parts"
