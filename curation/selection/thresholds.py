"""Other thresholds are tried by `select`'s own query over the facts that its rules look at. Counts and pictures are
compared with the choice on record; `sigma cuts` and the page of thresholds show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from curation.selection import select, subsets
from engine import catalog, duck
from engine.dataset import Dataset
from engine.duck import Connection, Row
from schemas.buckets import nearest_sql
from schemas.reasons import PURGED
from schemas.recipe import DataRecipe, Select
from schemas.strict import apply_override
from schemas.tables import schema_of

EVERYTHING = Select(min_short_side_px=1, max_aspect=1e9, max_transparency=None)
"""Rules that refuse no picture but for its doubles."""

MEASURES = {rule.knob: rule for rule in select.RULES}
"""Threshold -> its rule."""

_ALWAYS = (
    "row_id", "reason", "width", "height", "alpha", "short_side", "long_side", "aesthetic", "group_id", "distance",
    "method", "other_dataset", "other_image_id", "other_method", "other_distance",
)  # fmt: skip
"""Columns of `select.PICTURES` that the query reads whatever the thresholds are."""

# Only doubles need the texts that decide between them: a million of each would fill the memory.
_FACTS = """
SELECT {columns},
       CASE WHEN method IS NOT NULL THEN pictures.image_id END AS image_id,
       CASE WHEN method IS NOT NULL THEN sha256 END AS sha256,
       CASE WHEN method = 'bytes' THEN raw_captions.caption END AS caption,
       coalesce(selection.kept, false) AS was_kept, selection.rejected_by AS was_rejected_by,
       coalesce(selection.subsets, []) AS was_subsets
FROM ({pictures}) AS pictures
     LEFT JOIN (SELECT row_id, caption FROM raw_captions WHERE row_id IN
                (SELECT row_id FROM duplicates WHERE method = 'bytes')) AS raw_captions USING (row_id)
     LEFT JOIN selection USING (row_id)
WHERE coalesce(pictures.reason, '{purged}') = '{purged}'
"""

_COUNTED = {
    "rejected by": "SELECT if(kept, 'kept', rejected_by) AS name FROM {table} WHERE name IS NOT NULL",
    "bucket": f"SELECT {nearest_sql('height::DOUBLE / width')} AS name FROM {{table}} WHERE kept",
    "subset": "SELECT unnest(subsets) AS name FROM {table} WHERE kept",
}
"""Title of a count -> the pictures it counts by `name`."""

_NEAR = """
SELECT row_id, listing.source_name || '/' || listing.member, {measure}::DOUBLE, kept
FROM tried JOIN {facts} USING (row_id) JOIN listing USING (row_id)
WHERE {which} AND {measure} IS NOT NULL ORDER BY abs({measure} - {threshold}), row_id LIMIT {count}
"""


@dataclass(frozen=True)
class NearThreshold:
    row_id: int
    name: str
    value: float
    kept: bool


class Count(NamedTuple):
    """The pictures of one name, as selected and with the other thresholds."""

    name: str
    num_now: int
    num_then: int


@dataclass(frozen=True)
class Comparison:
    """The difference that other thresholds would make."""

    counts: dict[str, list[Count]]
    """Title -> the counts under it, most first."""
    num_fallen: int
    """Pictures that are kept now and would fall; `num_returned` the other way round."""
    num_returned: int
    near: dict[str, list[NearThreshold]]
    """Knob -> pictures just on either side of its new value, kept ones first."""

    @property
    def kept(self) -> tuple[int, int]:
        """Pictures that are kept now, and with the other thresholds."""
        counts = {row.name: (row.num_now, row.num_then) for row in self.counts["rejected by"]}
        return counts.get("kept", (0, 0))


def rules_on_record(dataset: Dataset) -> Select:
    """The rules by which `selection` was made; `EVERYTHING` where `select` has not run. A knob that came after the
    record was written refused nothing then: it is as in `EVERYTHING`."""
    record = dataset.record("selection")
    if record is None:
        return EVERYTHING
    known = {name: record.knobs.get(f"select.{name}", default) for name, default in EVERYTHING.resolved().items()}
    return Select.from_mapping(known, origin=f"{dataset.root}: record of selection")


def changed_recipe(recipe: DataRecipe, overrides: Sequence[str]) -> DataRecipe:
    """The recipe with other knobs of `select`. Raises ValueError: an override is of another section, or a value is
    impossible."""
    for override in overrides:
        if not override.startswith("select."):
            raise ValueError(
                f"{override}: only thresholds of select can be moved without computing, as select.NAME=VALUE"
            )
    values = recipe.resolved()
    for override in overrides:
        apply_override(values, override)
    changed = DataRecipe.from_mapping(values)
    subsets.check_subsets(changed.select)
    return changed


def compare(dataset: Dataset, recipe: DataRecipe, changed: DataRecipe, num_near: int = 10) -> Comparison:
    """Compare the selection with the one that other knobs would make. Reads tables, writes nothing. Raises ValueError:
    `select` has not run yet."""
    if not dataset.parts("selection"):
        raise ValueError(f"{dataset.root}: nothing was selected yet; run sigma select first")
    moved = {
        knob: limit
        for knob in MEASURES
        if (limit := getattr(changed.select, knob)) not in (None, getattr(recipe.select, knob))
    }
    with catalog.connect(dataset) as connection:
        connection.execute(f"CREATE TEMP TABLE facts AS {facts_sql(changed.select)}")
        try_rules(connection, changed.select, "facts")
        counts = {title: count(connection, title) for title in _COUNTED}
        near = {knob: _near(connection, knob, limit, num_near) for knob, limit in moved.items()}
        return Comparison(counts, *num_moved(connection), near)


def facts_sql(rules: Select) -> str:
    """SELECT of the facts that some rules look at, one row per picture, with the choice of `select` as `was_...`."""
    limited = {rule.value for rule in select.RULES if getattr(rules, rule.knob) is not None}
    columns = dict.fromkeys([*_ALWAYS, *(name for name in schema_of("screens").names if name in limited)])
    if rules.subsets:
        columns |= dict.fromkeys(subsets.SUBSET_COLUMNS)
    return _FACTS.format(
        columns=", ".join(f"pictures.{name}" for name in columns), pictures=select.PICTURES, purged=PURGED
    )


def chosen_sql(rules: Select, pictures: str = select.PICTURES, captions: str = "raw_captions") -> str:
    """SELECT of the outcome of `select` for every picture; no caption is inherited."""
    bare = rules.model_copy(update={"inherit_captions": False})
    return select.statement(bare, max_distance=None, pictures=pictures, captions=captions)


def try_rules(connection: Connection, rules: Select, facts: str) -> None:
    """Make the temporary table `tried` with the outcome of these rules, and the view `selected` with that on record,
    each as (row_id, width, height, kept, rejected_by, subsets). `facts`: a table of `facts_sql` for these rules, or for
    others with the same limits of screens and subsets."""
    captions = f"(SELECT row_id, caption FROM {facts} WHERE caption IS NOT NULL)"
    connection.execute(
        "CREATE TEMP TABLE tried AS SELECT row_id, width, height, kept, rejected_by, subsets, was_kept "
        f"FROM ({chosen_sql(rules, f'FROM {facts}', captions)}) JOIN {facts} USING (row_id)"
    )
    connection.execute(
        "CREATE TEMP VIEW selected AS SELECT row_id, width, height, was_kept AS kept, was_rejected_by AS rejected_by, "
        f"was_subsets AS subsets FROM {facts}"
    )


def count_sql(title: str, now: str = "selected", then: str = "tried") -> str:
    """SELECT of (name, num_now, num_then): a count of two relations with the columns of `tried`."""
    rows = _COUNTED[title]
    return f"""SELECT name, count(*) FILTER (NOT other) AS num_now, count(*) FILTER (other) AS num_then FROM (
    SELECT false AS other, name FROM ({rows.format(table=now)})
    UNION ALL
    SELECT true, name FROM ({rows.format(table=then)})
) GROUP BY name ORDER BY greatest(num_now, num_then) DESC, name"""


def count(connection: Connection, title: str) -> list[Count]:
    """One of the counts, over the relations of `try_rules`."""
    return [Count(*row) for row in connection.execute(count_sql(title)).fetchall()]


def num_moved(connection: Connection) -> tuple[int, int]:
    """Pictures that would fall, and pictures that would come in, over the relations of `try_rules`."""
    [(fallen, returned)] = connection.execute(
        "SELECT count(*) FILTER (was_kept AND NOT kept), count(*) FILTER (kept AND NOT was_kept) FROM tried"
    ).fetchall()
    return fallen, returned


def nearest_moved(connection: Connection, rules: Select, facts: str, comes_in: bool, limit: int) -> list[Row]:
    """(row_id, rejected_by) of pictures that would come in, or would fall, the nearest to a threshold first. `facts`:
    as in `try_rules`."""
    nearness = [
        f"abs(ln(short_side / {rules.min_short_side_px}::DOUBLE))",
        f"abs(ln(long_side / short_side::DOUBLE / {rules.max_aspect!r}::DOUBLE))",
    ]
    if rules.min_aesthetic is not None:
        nearness.append(f"abs(aesthetic - {rules.min_aesthetic!r}::FLOAT)")  # least passes over a null
    return duck.rows(
        connection,
        f"SELECT row_id, rejected_by FROM (FROM tried WHERE was_kept <> kept AND kept = {comes_in}) AS moved "
        f"JOIN {facts} USING (row_id) ORDER BY least({', '.join(nearness)}), row_id LIMIT {limit}",
    )


def _near(connection: Connection, knob: str, threshold: float, num: int) -> list[NearThreshold]:
    """The pictures nearest to a threshold: kept ones, then those that it refuses."""
    rule = MEASURES[knob]
    return [
        NearThreshold(*row)
        for which in ("kept", f"rejected_by = '{rule.reason}'")
        for row in connection.execute(
            _NEAR.format(facts="facts", measure=rule.value, which=which, threshold=float(threshold), count=int(num))
        ).fetchall()
    ]
