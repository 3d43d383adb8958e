"""Metrics over the checkpoints of a training run: the geometry of the charts; the templates draw it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from evaluation.table import LOWER_IS_BETTER, SAME, metric_name, title_of
from viewer.charts import FLOOR, PLOT_HEIGHT, Tick, compact, nice_step, x_at

COMPARED = ("metric", *SAME, "num_generated", "num_reference")
"""Points stand in one chart where these are equal."""
MOST_TICKS = 8


@dataclass(frozen=True)
class Point:
    """A checkpoint; `low` and `high` are where its interval ends, of one without an interval where it is itself."""

    x: float
    y: float
    low: float
    high: float
    label: str


@dataclass(frozen=True)
class Curve:
    name: str
    points: list[Point]

    @property
    def path(self) -> str:
        return "M" + "L".join(f"{point.x:.1f} {point.y:.1f}" for point in self.points)


@dataclass(frozen=True)
class CurveChart:
    """One metric over the steps, of all models that compare."""

    metric: str
    title: str
    is_lower_better: bool
    curves: list[Curve]
    levels: list[tuple[str, float]]
    """(name, y) of models that are no series and compare with these."""
    beyond: list[str]
    """Those whose values are so far away that the curves would be flat."""
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def curve_charts(results: Sequence[Mapping[str, Any]]) -> tuple[list[CurveChart], list[str]]:
    """A chart for each metric that two checkpoints of a model have and that compare, and the points of series that
    stand in none, with what sets them apart."""
    whole = [row for row in results if row["category"] is None and row["value"] is not None]
    measured = [row for row in whole if math.isfinite(row["value"])]
    charts, apart = [], list[str]()
    for key in dict.fromkeys(tuple(row[name] for name in COMPARED) for row in measured):
        rows = [row for row in measured if tuple(row[name] for name in COMPARED) == key]
        checkpoints = sorted((row for row in rows if _series(row)), key=lambda row: (_series(row), row["step"]))
        found = {name: list(each) for name, each in groupby(checkpoints, _series)}
        curves = {name: each for name, each in found.items() if len(each) > 1}
        apart += [f"{row['model']}, {metric_name(row['metric'])} of {row['num_generated']:,} pictures ({title_of(row)})"
                  for name, each in found.items() if name not in curves for row in each]  # fmt: skip
        if curves:
            charts.append(_chart(curves, [row for row in rows if not _series(row)]))
    return charts, apart


def _series(row: Mapping[str, Any]) -> str:
    """The model whose checkpoint this is; empty of a model by itself."""
    name, at, step = row["model"].rpartition("@")
    return name if at and step == str(row["step"]) else ""


def _chart(curves: Mapping[str, Sequence[Mapping[str, Any]]], alone: Sequence[Mapping[str, Any]]) -> CurveChart:
    rows = [row for each in curves.values() for row in each]
    steps = sorted({row["step"] for row in rows})
    ends = [end for row in rows for end in (row["value"], row["low"], row["high"]) if end is not None]
    reach = max(ends) - min(ends)
    near = [row for row in alone if min(ends) - reach <= row["value"] <= max(ends) + reach]
    ends += [row["value"] for row in near]
    ticks = _ticks(min(ends), max(ends))
    shown = steps[:: -(-len(steps) // MOST_TICKS)]

    def x_of(step: int) -> float:
        return x_at(0.03 + 0.94 * (step - steps[0]) / (steps[-1] - steps[0]))

    def y_of(value: float) -> float:
        return FLOOR - PLOT_HEIGHT * (value - ticks[0]) / (ticks[-1] - ticks[0])

    def point(row: Mapping[str, Any]) -> Point:
        low, high = (row["value"] if row[end] is None else row[end] for end in ("low", "high"))
        interval = "" if row["low"] is None else f" ({low:.4g} to {high:.4g})"
        label = f"{row['model']}: {row['value']:.4g}{interval}"
        return Point(x_of(row["step"]), y_of(row["value"]), y_of(low), y_of(high), label)

    first = rows[0]
    return CurveChart(
        metric_name(first["metric"]).removesuffix(" (x100)"),
        f"{title_of(first)}, {first['num_generated']:,} pictures",
        first["metric"].partition(" ")[0] in LOWER_IS_BETTER,
        [Curve(name, [point(row) for row in each]) for name, each in curves.items()],
        [(row["model"], y_of(row["value"])) for row in near],
        [f"{row['model']} {row['value']:.4g}" for row in alone if row not in near],
        [Tick(x_of(step), compact(step)) for step in shown],
        [Tick(y_of(tick), f"{tick:.4g}") for tick in ticks],
    )


def _ticks(low: float, high: float) -> list[float]:
    """Ticks from just under the lowest value to just over the highest."""
    step = nice_step((high - low) or abs(high) or 1.0, 4)
    begin, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * number for number in range(begin, max(end, begin + 1) + 1)]
