"""What the headers of a collection say, counted: formats, reasons, sizes, what the limits of `select` would keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from curation.selection.select import RULES
from engine import catalog
from engine.dataset import Dataset
from schemas.buckets import nearest_sql, sizes
from schemas.reasons import Rejection
from schemas.recipe import Select

BUCKET_PX = 1024
"""Resolution of the buckets that pictures are counted by."""

SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Quantiles that are shown; the first and the last are the smallest and the largest."""

_PICTURES = """
CREATE TEMP VIEW pictures AS
SELECT *, least(width, height) AS short_side, greatest(width, height) AS long_side FROM headers WHERE reason IS NULL
"""

_BUCKETS = """
SELECT {bucket} AS bucket, count(*) AS num FROM pictures WHERE {passes} GROUP BY bucket ORDER BY bucket::DOUBLE
"""


@dataclass(frozen=True)
class Survey:
    """What a collection holds, by its headers alone."""

    num_inputs: int
    """Of the listing."""
    num_probed: int
    """Inputs whose header was read, or which listing knew to be no picture."""
    num_bytes: int
    """Of the originals."""
    formats: list[tuple[str, int, int]]
    """(format, pictures, bytes) of those without a reason, most first."""
    reasons: list[tuple[str, int]]
    """(reason, inputs), most first."""
    short_side_px: list[float]
    """Quantiles at `SHARES`; empty without a picture. So is `megapixels`."""
    megapixels: list[float]
    num_large_enough: int
    """Pictures that pass `select.min_short_side_px`."""
    num_in_shape: int
    """Pictures that pass `select.max_aspect`."""
    num_passing: int
    """Pictures that pass both."""
    buckets: list[tuple[str, int]]
    """(label, pictures that pass both), from the widest; those that are empty are left out."""

    @property
    def num_pictures(self) -> int:
        """Inputs whose header has nothing against them."""
        return sum(count for _, count, _ in self.formats)


def survey(dataset: Dataset, select: Select) -> Survey:
    """Count what `sigma ingest --probe-only` has read; nothing is computed or changed. Raises ValueError: the folder is
    no dataset."""
    rules = {rule.reason: f"NOT {rule.fails(getattr(select, rule.knob))}" for rule in RULES[:2]}
    large, shapely = rules[Rejection.TOO_SMALL], rules[Rejection.EXTREME_ASPECT]
    shares = list(SHARES)
    with catalog.connect(dataset, reads=["listing", "headers"]) as connection:
        connection.execute(_PICTURES)

        def one(sql: str) -> tuple[int, ...]:
            row = connection.execute(sql).fetchone()
            assert row is not None
            return row

        (num_inputs,) = one("SELECT count(*) FROM listing")
        num_probed, num_bytes = one("SELECT count(*), coalesce(sum(num_bytes), 0)::BIGINT FROM headers")
        num_large, num_in_shape, num_passing = one(
            f"SELECT count(*) FILTER ({large}), count(*) FILTER ({shapely}), count(*) FILTER ({large} AND {shapely}) "
            "FROM pictures"
        )
        formats = connection.execute(
            "SELECT format, count(*) AS num, sum(num_bytes)::BIGINT FROM pictures GROUP BY format "
            "ORDER BY num DESC, format"
        ).fetchall()
        reasons = connection.execute(
            "SELECT reason, count(*) AS num FROM headers WHERE reason IS NOT NULL "
            "GROUP BY reason ORDER BY num DESC, reason"
        ).fetchall()
        short, megapixels = connection.execute(
            f"SELECT quantile_cont(short_side, {shares}), quantile_cont(width::DOUBLE * height / 1e6, {shares}) "
            "FROM pictures"
        ).fetchone() or (None, None)
        bucket = nearest_sql("height::DOUBLE / width")
        buckets = connection.execute(_BUCKETS.format(bucket=bucket, passes=f"{large} AND {shapely}")).fetchall()
    return Survey(
        num_inputs=num_inputs,
        num_probed=num_probed,
        num_bytes=num_bytes,
        formats=formats,
        reasons=reasons,
        short_side_px=short or [],
        megapixels=megapixels or [],
        num_large_enough=num_large,
        num_in_shape=num_in_shape,
        num_passing=num_passing,
        buckets=buckets,
    )


def lines(found: Survey, select: Select) -> Iterator[str]:
    yield (
        f"{found.num_probed:,} of {found.num_inputs:,} inputs, {found.num_bytes / 1e9:,.2f} GB: "
        f"{found.num_pictures:,} pictures by their headers, {found.num_probed - found.num_pictures:,} others"
    )
    for image_format, count, num_bytes in found.formats:
        yield f"  {image_format:<22} {count:>12,} {num_bytes / 1e9:>10,.2f} GB"
    for reason, count in found.reasons:
        yield f"  {reason:<22} {count:>12,}"
    if not found.num_pictures:
        return
    yield f"{'quantile':<24}" + "".join(f"{share:>9.0%}" for share in SHARES)
    yield f"  {'short side, px':<22}" + "".join(f"{value:>9,.0f}" for value in found.short_side_px)
    yield f"  {'megapixels':<22}" + "".join(f"{value:>9,.2f}" for value in found.megapixels)
    yield "would pass"
    for rule, count in (
        (f"min_short_side_px={select.min_short_side_px}", found.num_large_enough),
        (f"max_aspect={select.max_aspect:g}", found.num_in_shape),
        ("both", found.num_passing),
    ):
        yield f"  {rule:<22} {count:>12,} {count / found.num_pictures:>10.1%}"
    if found.buckets:
        yield f"buckets at {BUCKET_PX} px of those that pass both (height / width, height x width)"
    for label, count in found.buckets:
        height, width = sizes(BUCKET_PX)[label]
        yield f"  {label:<6} {f'{height} x {width}':<15} {count:>12,} {count / found.num_passing:>10.1%}"
