"""What other thresholds would keep: `select`'s own query with other knobs, compared with what it chose."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from curation.selection import select
from engine import catalog
from engine.dataset import Dataset
from engine.reduce import Connection
from schemas import buckets
from schemas.commit import write_bytes
from schemas.pixels import open_rgb
from schemas.recipe import DataRecipe
from schemas.strict import apply_override

THUMBNAIL_PX = 160

MEASURES = {rule.knob: rule for rule in select.RULES}
"""Threshold -> its rule."""

_KEPT_SIDE = """
SELECT row_id, listing.source_name || '/' || listing.member, {measure} AS value, true
FROM now JOIN listing USING (row_id) JOIN pictures USING (row_id)
WHERE now.kept AND {measure} IS NOT NULL ORDER BY abs({measure} - {threshold}), row_id LIMIT {count}
"""

_FALLEN_SIDE = """
SELECT row_id, listing.source_name || '/' || listing.member, value, false
FROM now JOIN listing USING (row_id) WHERE rejected_by = '{rule}'
ORDER BY abs(value - {threshold}), row_id LIMIT {count}
"""

_BY = {
    "rejected by": "SELECT row_id, coalesce(rejected_by, 'kept') AS name FROM {table} "
    "WHERE kept OR rejected_by IS NOT NULL",
    "bucket": "SELECT row_id, bucket AS name FROM {table} JOIN bucketed USING (row_id) WHERE kept",
    "subset": "SELECT row_id, unnest(subsets) AS name FROM {table} WHERE kept",
}
"""Title of a count -> the rows it counts by `name`."""


@dataclass(frozen=True)
class Border:
    """A picture near a moved threshold."""

    row_id: int
    name: str
    value: float
    kept: bool


@dataclass(frozen=True)
class Cuts:
    """What would change.

    Attributes:
        counts: title -> (name, number as chosen, number with the other knobs), most first.
        borders: knob -> pictures just on either side of its new value, kept ones first.
        num_left: pictures that are kept now and would fall; `num_come` the other way round.
    """

    kept: tuple[int, int]
    num_left: int
    num_come: int
    counts: dict[str, list[tuple[str, int, int]]]
    borders: dict[str, list[Border]] = field(default_factory=dict)


def changed_recipe(recipe: DataRecipe, overrides: Sequence[str]) -> DataRecipe:
    """The recipe with other knobs of `select`.

    Raises:
        ValueError: an override is of another section, or a value is impossible.
    """
    for override in overrides:
        if not override.startswith("select."):
            raise ValueError(
                f"{override}: only thresholds of select can be moved without computing, as select.NAME=VALUE"
            )
    values = recipe.resolved()
    for override in overrides:
        apply_override(values, override)
    changed = DataRecipe.from_mapping(values)
    select.check_subsets(changed.select)
    return changed


def what_if(dataset: Dataset, recipe: DataRecipe, changed: DataRecipe, num_borders: int = 10) -> Cuts:
    """Compare the selection with the one that other knobs would make. Reads tables, writes nothing.

    Raises:
        ValueError: `select` has not run yet.
    """
    if not dataset.reduced("selection").is_file():
        raise ValueError(f"{dataset.root}: nothing was selected yet; run sigma select first")
    with catalog.connect(dataset) as connection:
        connection.execute(f"CREATE TEMP TABLE now AS {select.reduce(changed).query(connection)}")
        connection.execute("CREATE TEMP TABLE was AS SELECT * FROM selection")
        _bucket(connection)
        moved = connection.execute(
            "SELECT count(*) FILTER (was.kept), count(*) FILTER (now.kept), "
            "count(*) FILTER (was.kept AND NOT now.kept), count(*) FILTER (now.kept AND NOT was.kept) "
            "FROM was JOIN now USING (row_id)"
        ).fetchone()
        assert moved is not None
        counts = {title: _counts(connection, rows) for title, rows in _BY.items()}
        borders = {
            name: list(_borders(connection, name, getattr(changed.select, name), num_borders))
            for name in MEASURES
            if getattr(changed.select, name) != getattr(recipe.select, name)
            and getattr(changed.select, name) is not None
        }
    return Cuts((moved[0], moved[1]), moved[2], moved[3], counts, borders)


def _bucket(connection: Connection) -> None:
    """The bucket of every picture that is kept by either, by the nearest label of its height / width."""
    connection.execute("CREATE TEMP TABLE labels (label VARCHAR, ratio DOUBLE)")
    connection.executemany("INSERT INTO labels VALUES (?, ?)", [(label, float(label)) for label in buckets.LABELS])
    connection.execute(
        "CREATE TEMP TABLE bucketed AS WITH ratios AS ("
        "SELECT aspect, arg_min(label, (abs(ratio - aspect), ratio)) AS bucket FROM "
        "(SELECT DISTINCT height::DOUBLE / width AS aspect FROM images WHERE reason IS NULL) CROSS JOIN labels "
        "GROUP BY aspect) SELECT row_id, bucket FROM images JOIN ratios ON height::DOUBLE / width = aspect"
    )


def _counts(connection: Connection, rows: str) -> list[tuple[str, int, int]]:
    return connection.execute(
        "SELECT name, count(*) FILTER (side = 'was') AS num_was, count(*) FILTER (side = 'now') AS num_now FROM ("
        f"SELECT 'was' AS side, name FROM ({rows.format(table='was')}) UNION ALL "
        f"SELECT 'now', name FROM ({rows.format(table='now')})) GROUP BY name "
        "ORDER BY greatest(num_was, num_now) DESC, name"
    ).fetchall()


def _borders(connection: Connection, knob: str, threshold: float, count: int) -> Iterator[Border]:
    """`pictures` is what `select` looked at."""
    rule = MEASURES[knob]
    values = {"rule": rule.reason, "measure": rule.value, "threshold": float(threshold), "count": int(count)}
    for sql in (_KEPT_SIDE, _FALLEN_SIDE):
        for row_id, name, value, kept in connection.execute(sql.format(**values)).fetchall():
            yield Border(row_id, name, value, kept)


def lines(cuts: Cuts) -> Iterator[str]:
    """The comparison as text."""
    was, now = cuts.kept
    yield f"kept: {was:,} now, {now:,} then ({now - was:+,})" + (
        f": {cuts.num_left:,} would fall, {cuts.num_come:,} would come in"
    )
    for title, counts in cuts.counts.items():
        yield f"{title:<20} {'now':>12} {'then':>12} {'change':>10}"
        for name, num_was, num_now in counts:
            yield f"  {name:<18} {num_was:>12,} {num_now:>12,} {num_now - num_was:>+10,}"
    for knob, borders in cuts.borders.items():
        yield f"nearest to select.{knob}"
        for border in borders:
            yield f"  {'kept' if border.kept else 'out ':<4} {border.value:>12.4g}  {border.name}"


def write_page(dataset: Dataset, cuts: Cuts, path: Path) -> None:
    """An HTML file with the comparison and a thumbnail of every picture near a threshold."""
    row_ids = sorted({border.row_id for borders in cuts.borders.values() for border in borders})
    with catalog.connect(dataset) as connection:
        found = connection.execute(
            "SELECT row_id, jpeg FROM proxies WHERE list_contains(?, row_id)", [row_ids]
        ).fetchall()
    pictures = {row_id: _thumbnail(jpeg) for row_id, jpeg in found if jpeg is not None}
    text = html.escape("\n".join(lines(cuts)))
    body = [f"<h1>{html.escape(dataset.root.name)}</h1><pre>{text}</pre>"]
    for knob, borders in cuts.borders.items():
        body.append(f"<h2>select.{html.escape(knob)}</h2><div>")
        for border in borders:
            caption = f"{'kept' if border.kept else 'out'} {border.value:.4g} {border.name}"
            body.append(
                f'<figure><img alt="" src="data:image/jpeg;base64,{pictures.get(border.row_id, "")}">'
                f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            )
        body.append("</div>")
    style = "div{display:flex;flex-wrap:wrap;gap:8px}figure{width:170px;margin:0;font:12px sans-serif}"
    page = f'<!doctype html><meta charset="utf-8"><title>cuts</title><style>{style}</style>{"".join(body)}'
    write_bytes(path, page.encode())


def _thumbnail(jpeg: bytes) -> str:
    picture = open_rgb(jpeg)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
