"""Decide which pictures stay: every rule is SQL over stored facts, so moving a threshold recomputes no score."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from curation.selection.inherit import best_first, inherited_sql
from curation.selection.subsets import check_subsets
from engine.reduce_job import Connection, ReduceJob
from schemas.reasons import PURGED, Rejection
from schemas.recipe import DataRecipe, Select
from schemas.scores import LATER, LIMITED, LIMITS

PICTURES = f"""
SELECT row_id, images.image_id, images.reason, sha256, images.width, images.height, alpha, format, source_name,
       least(images.width, images.height) AS short_side,
       greatest(images.width, images.height) AS long_side,
       images.width::DOUBLE * images.height / 1e6 AS megapixels,
       images.height::DOUBLE / images.width AS aspect,
       scores.aesthetic,
       {", ".join(f"screens.{column}" for column in LIMITED)}, screens.classes,
       group_id, duplicates.distance, duplicates.method,
       other_dataset, other_image_id, other_method, other_distance
FROM images LEFT JOIN scores USING (row_id) LEFT JOIN duplicates USING (row_id) LEFT JOIN screens USING (row_id)
"""
"""The facts that the rules, the duplicates and the subsets look at: one row per input."""


class Rule(NamedTuple):
    """A limit: it refuses a value under a knob that begins with `min_`, or over one that begins with `max_`."""

    reason: Rejection
    value: str
    """SQL over `pictures`; a picture for which it is null passes."""
    knob: str
    stored: str
    """DuckDB type of the value. Scores are stored in 32 bits, so the limit is rounded likewise before they meet."""

    def fails(self, limit: float) -> str:
        """The SQL condition of a picture that is refused."""
        return f"{self.value} {'<' if self.knob.startswith('min_') else '>'} {limit!r}::DOUBLE::{self.stored}"


RULES = (
    Rule(Rejection.TOO_SMALL, "short_side", "min_short_side_px", "INTEGER"),
    Rule(Rejection.EXTREME_ASPECT, "(long_side / short_side::DOUBLE)", "max_aspect", "DOUBLE"),
    Rule(Rejection.TRANSPARENT, "alpha", "max_transparency", "FLOAT"),
    Rule(Rejection.LOW_AESTHETIC, "aesthetic", "min_aesthetic", "FLOAT"),
    *(Rule(limit.reason, limit.column, knob, "FLOAT") for knob, limit in LIMITS.items()),
)
"""All rules in the order in which they apply: the first that a picture fails is named."""

# Only pictures that pass the rules compete to be kept; one without a double has won. Exact copies always
# fall: a key is the id of the bytes, so two of them cannot lie in the shards. They share all that the choice looks at:
# the file with the best raw caption is kept, since its URL and licence belong to it.
_SURVIVORS = """
SELECT row_id, ruled.image_id,
       first_value(row_id) OVER stay AS survivor_row,
       first_value(ruled.image_id) OVER stay AS survivor
FROM ruled JOIN (SELECT row_id FROM duplicates WHERE method IS NOT NULL) USING (row_id)
     LEFT JOIN {captions} AS own USING (row_id)
WHERE ruled.reason IS NULL AND rule IS NULL
WINDOW stay AS (
    PARTITION BY {of_one_group}
    ORDER BY width::BIGINT * height DESC, aesthetic DESC NULLS LAST, ruled.image_id, {of_copies}
)
"""

_NOTHING_INHERITED = (
    "SELECT NULL::BIGINT AS row_id, NULL::VARCHAR AS caption, NULL::VARCHAR AS caption_image, "
    "NULL::BIGINT AS caption_row WHERE false"
)

_SELECTION = f"""
SELECT row_id, ruled.image_id,
       CASE WHEN reason = '{PURGED}' THEN reason
            WHEN rule IS NOT NULL THEN rule
            WHEN survivor_row <> row_id THEN '{Rejection.DUPLICATE}'
       END AS rejected_by,
       CASE WHEN rule IS NOT NULL THEN value
            WHEN survivor_row <> row_id THEN coalesce(distance, 0)
       END AS value,
       CASE WHEN rule IS NOT NULL THEN threshold
            WHEN survivor_row <> row_id AND method = 'semantic' THEN {{max_cosine_distance}}
            WHEN survivor_row <> row_id THEN {{max_distance}}
       END AS threshold,
       CASE WHEN rule = '{Rejection.IN_OTHER_DATASET}' THEN other_image_id
            WHEN survivor_row <> row_id THEN survivor
       END AS duplicate_of,
       CASE WHEN survivor_row <> row_id THEN survivor_row END AS duplicate_of_row,
       CASE WHEN rule = '{Rejection.IN_OTHER_DATASET}' THEN other_method
            WHEN survivor_row <> row_id THEN coalesce(method, 'bytes')
       END AS duplicate_method,
       CASE WHEN rule = '{Rejection.IN_OTHER_DATASET}' THEN other_dataset END AS other_dataset,
       reason IS NULL AND rule IS NULL AND coalesce(survivor_row, row_id) = row_id AS kept,
       CASE WHEN reason IS NULL AND rule IS NULL AND coalesce(survivor_row, row_id) = row_id
            THEN list_filter([{{subsets}}]::VARCHAR[], lambda name: name IS NOT NULL) ELSE [] END AS subsets,
       inherited.caption AS inherited_caption, caption_image AS inherited_from, caption_row AS inherited_from_row
FROM ruled LEFT JOIN survivors USING (row_id) LEFT JOIN inherited USING (row_id)
ORDER BY row_id
"""


def reduce_job(recipe: DataRecipe) -> ReduceJob:
    """The select job: one row per input, kept or named with the rule, the value and the threshold."""
    resolved = recipe.select.resolved().items()
    knobs = {f"select.{name}": value for name, value in resolved if value is not None or name not in LATER}
    prints = ("fingerprints",) if recipe.select.inherit_captions else ()
    screens = ("screens",) if recipe.screen.columns() else ()
    return ReduceJob(
        job="select",
        outputs=("selection",),
        inputs=("images", "scores", "duplicates", "raw_captions", *prints, *screens),
        query=partial(
            choose,
            rules=recipe.select,
            max_distance=recipe.dedup.max_distance,
            semantic_threshold=recipe.dedup.semantic_threshold,
        ),
        knobs=knobs,
        by_parts=True,
    )


def choose(
    connection: Connection, rules: Select, max_distance: int | None, semantic_threshold: float | None = None
) -> str:
    """Apply the rules in their order (`RULES`, other datasets, duplicates) and give the SELECT of the outcome. The
    pictures are a view, and only those that have a double are a table: columns that no rule names are not read, and 33
    million wide rows are never held."""
    check_subsets(rules)
    *first, (_, outcome) = _steps(rules, max_distance, semantic_threshold)
    for name, sql in first:
        connection.execute(f"CREATE TEMP {'VIEW' if name in ('pictures', 'ruled') else 'TABLE'} {name} AS {sql}")
    return outcome


def statement(rules: Select, max_distance: int | None, pictures: str, captions: str) -> str:
    """The same outcome as one SELECT over the views of a dataset, for those who only look. `pictures`: SELECT of
    `PICTURES` from where it was put before; columns that no rule and no subset names may be missing. `captions`:
    relation of (row_id, caption) of at least the copies of one file, which decide which of them is kept."""
    *first, (_, outcome) = _steps(rules, max_distance, None, pictures, captions)
    return f"WITH {', '.join(f'{name} AS ({sql})' for name, sql in first)} {outcome}"


def _steps(
    rules: Select,
    max_distance: int | None,
    semantic_threshold: float | None,
    pictures: str = PICTURES,
    captions: str = "raw_captions",
) -> list[tuple[str, str]]:
    """(name, SELECT) of each step, the outcome last."""
    conditions = [f"CASE WHEN ({condition}) THEN '{name}' END" for name, condition in sorted(rules.subsets.items())]
    outcome = _SELECTION.format(
        max_distance=max_distance or 0,
        max_cosine_distance="NULL" if semantic_threshold is None else 1 - semantic_threshold,
        subsets=", ".join(conditions),
    )
    survivors = _SURVIVORS.format(
        of_one_group="group_id" if rules.drop_duplicates else "sha256",
        captions=captions,
        of_copies=best_first("own.caption", "ruled.image_id", "row_id"),
    )
    return [
        ("pictures", pictures),
        ("ruled", _ruled(rules, max_distance or 0)),
        ("survivors", survivors),
        ("inherited", inherited_sql(max_distance) if rules.inherit_captions else _NOTHING_INHERITED),
        ("outcome", outcome),
    ]


def _ruled(rules: Select, max_distance: int) -> str:
    """`pictures` with the first rule that each one fails, its value and its limit."""
    limits = {rule: getattr(rules, rule.knob) for rule in RULES}
    limited = {rule: float(limit) for rule, limit in limits.items() if limit is not None}
    failed = " ".join(f"WHEN {rule.fails(limit)} THEN '{rule.reason}'" for rule, limit in limited.items())
    values = " ".join(f"WHEN '{rule.reason}' THEN {rule.value}::DOUBLE" for rule in limited)
    thresholds = " ".join(f"WHEN '{rule.reason}' THEN {limit!r}::DOUBLE" for rule, limit in limited.items())
    other = Rejection.IN_OTHER_DATASET
    return f"""
    SELECT *,
           CASE rule {values} WHEN '{other}' THEN other_distance::DOUBLE END AS value,
           CASE rule {thresholds} WHEN '{other}' THEN {max_distance}::DOUBLE END AS threshold
    FROM (
        SELECT *,
               CASE WHEN reason IS NOT NULL THEN NULL {failed} WHEN other_dataset IS NOT NULL THEN '{other}' END AS rule
        FROM pictures
    )
    """
