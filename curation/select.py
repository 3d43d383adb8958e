"""Decide which pictures stay: every rule is SQL over stored facts, so moving a threshold recomputes no score."""

from __future__ import annotations

import re
from functools import partial

import duckdb

from curation.reduce import Connection, Reduce
from schemas.reasons import PURGED, Rejection
from schemas.recipe import DataRecipe, Select

SUBSET_COLUMNS = {
    "width": "INTEGER",
    "height": "INTEGER",
    "short_side": "INTEGER",
    "long_side": "INTEGER",
    "megapixels": "DOUBLE",
    "aspect": "DOUBLE",
    "aesthetic": "FLOAT",
    "format": "VARCHAR",
    "source_name": "VARCHAR",
}
"""What the condition of a subset may speak of."""

_PICTURES = """
CREATE TEMP TABLE pictures AS
SELECT row_id, images.image_id, images.reason, sha256, images.width, images.height, format, source_name,
       least(images.width, images.height) AS short_side,
       greatest(images.width, images.height) AS long_side,
       images.width::DOUBLE * images.height / 1e6 AS megapixels,
       images.height::DOUBLE / images.width AS aspect,
       scores.aesthetic,
       raw_captions.caption IS NOT NULL AS has_caption,
       coalesce(duplicates.group_id, row_id) AS group_id,
       duplicates.distance
FROM images LEFT JOIN scores USING (row_id) LEFT JOIN duplicates USING (row_id) LEFT JOIN raw_captions USING (row_id)
"""

_RULES = f"""
CREATE TEMP TABLE ruled AS
SELECT *,
       CASE WHEN reason IS NOT NULL THEN NULL
            WHEN short_side < $min_short_side_px THEN '{Rejection.TOO_SMALL}'
            WHEN long_side / short_side::DOUBLE > $max_aspect THEN '{Rejection.EXTREME_ASPECT}'
            WHEN aesthetic < $min_aesthetic::FLOAT THEN '{Rejection.LOW_AESTHETIC}'
       END AS rule
FROM pictures
"""

# Only pictures that pass the rules compete to be the one that stays. Exact copies always fall: a key is the id of
# the bytes, so two of them cannot lie in the shards.
_SURVIVORS = """
CREATE TEMP TABLE survivors AS
SELECT row_id,
       first_value(row_id) OVER stay AS survivor_row,
       first_value(image_id) OVER stay AS survivor
FROM ruled
WHERE reason IS NULL AND rule IS NULL
WINDOW stay AS (
    PARTITION BY CASE WHEN $drop_duplicates THEN group_id::VARCHAR ELSE sha256 END
    ORDER BY width::BIGINT * height DESC, aesthetic DESC NULLS LAST, has_caption DESC, row_id
)
"""

_SELECTION = f"""
SELECT row_id, image_id,
       CASE WHEN reason = '{PURGED}' THEN reason
            WHEN rule IS NOT NULL THEN rule
            WHEN survivor_row <> row_id THEN '{Rejection.DUPLICATE}'
       END AS rejected_by,
       CASE WHEN rule = '{Rejection.TOO_SMALL}' THEN short_side
            WHEN rule = '{Rejection.EXTREME_ASPECT}' THEN long_side / short_side::DOUBLE
            WHEN rule = '{Rejection.LOW_AESTHETIC}' THEN aesthetic
            WHEN survivor_row <> row_id THEN coalesce(distance, 0)
       END AS value,
       CASE WHEN rule = '{Rejection.TOO_SMALL}' THEN {{min_short_side_px}}
            WHEN rule = '{Rejection.EXTREME_ASPECT}' THEN {{max_aspect}}
            WHEN rule = '{Rejection.LOW_AESTHETIC}' THEN {{min_aesthetic}}
            WHEN survivor_row <> row_id THEN {{max_distance}}
       END AS threshold,
       CASE WHEN survivor_row <> row_id THEN survivor END AS duplicate_of,
       CASE WHEN survivor_row <> row_id THEN survivor_row END AS duplicate_of_row,
       reason IS NULL AND rule IS NULL AND survivor_row = row_id AS kept,
       CASE WHEN reason IS NULL AND rule IS NULL AND survivor_row = row_id
            THEN list_filter([{{subsets}}]::VARCHAR[], lambda name: name IS NOT NULL) ELSE [] END AS subsets
FROM ruled LEFT JOIN survivors USING (row_id)
ORDER BY row_id
"""


def reduce(recipe: DataRecipe) -> Reduce:
    """The select job: one row per input, kept or named with the rule, the value and the threshold."""
    knobs = {f"select.{name}": value for name, value in recipe.select.resolved().items()}
    return Reduce(
        job="select",
        output="selection",
        inputs=("images", "scores", "duplicates", "raw_captions"),
        query=partial(choose, rules=recipe.select, max_distance=recipe.dedup.max_distance),
        knobs=knobs,
    )


def choose(connection: Connection, rules: Select, max_distance: int | None) -> str:
    """Apply the rules in their order (size, aspect, score, then duplicates) and give the SELECT of the outcome."""
    connection.execute(_PICTURES)
    connection.execute(
        _RULES,
        {
            "min_short_side_px": rules.min_short_side_px,
            "max_aspect": rules.max_aspect,
            "min_aesthetic": rules.min_aesthetic,
        },
    )
    connection.execute(_SURVIVORS, {"drop_duplicates": rules.drop_duplicates})
    conditions = [
        f"CASE WHEN ({condition}) THEN '{name}' END" for name, condition in sorted(check_subsets(rules).items())
    ]
    return _SELECTION.format(
        min_short_side_px=rules.min_short_side_px,
        max_aspect=rules.max_aspect,
        min_aesthetic="NULL" if rules.min_aesthetic is None else rules.min_aesthetic,
        max_distance=max_distance or 0,
        subsets=", ".join(conditions),
    )


def check_subsets(rules: Select) -> dict[str, str]:
    """The subsets of a recipe, each tried on a table without rows.

    Raises:
        ValueError: a name that is no plain word, or a condition that is not one SQL expression over
            `SUBSET_COLUMNS`.
    """
    with duckdb.connect(config={"enable_external_access": "false"}) as connection:
        columns = ", ".join(f"{name} {kind}" for name, kind in SUBSET_COLUMNS.items())
        connection.execute(f"CREATE TABLE pictures ({columns})")
        for name, condition in rules.subsets.items():
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"select.subsets.{name}: a name is letters, digits, - and _")
            if not condition.strip():
                raise ValueError(f"select.subsets.{name}: a condition is missing")
            if chance := sorted(_words(condition) & _unsteady(connection)):
                raise ValueError(f"select.subsets.{name}: {chance[0]} depends on more than the picture")
            sql = f"SELECT CASE WHEN ({condition}) THEN 1 END FROM pictures WHERE ({condition})"  # WHERE: no aggregates
            try:
                if len(connection.extract_statements(sql)) != 1:
                    raise ValueError(f"select.subsets.{name}: one condition, no semicolon")
                connection.execute(sql)
            except duckdb.Error as error:
                why = str(error).splitlines()[0]
                raise ValueError(
                    f"select.subsets.{name}: {condition!r} is no condition ({why}); "
                    f"columns: {', '.join(SUBSET_COLUMNS)}"
                ) from None
    return dict(rules.subsets)


def _words(condition: str) -> set[str]:
    """The names in a condition, its texts left out."""
    return set(re.findall(r"\w+", re.sub(r"'[^']*'", "", condition.lower())))


def _unsteady(connection: Connection) -> set[str]:
    """Functions that depend on more than their arguments: chance, the clock, the session."""
    found = connection.execute("SELECT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'")
    return {name for (name,) in found.fetchall()} - SUBSET_COLUMNS.keys()
