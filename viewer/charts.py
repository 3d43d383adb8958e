"""The geometry of the charts; the templates draw it, so that every label is escaped there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.catalog import Row
from schemas.buckets import LABELS
from schemas.reasons import OUTCOMES
from viewer.figures import Histogram

WIDTH, HEIGHT = 720, 300
"""Size of a chart in its own units; it scales with the page."""
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 22, 34
"""Margins around the plot."""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Series:
    """One caption source as a stepped outline over the bins."""

    name: str
    line: str
    """SVG path of the outline"""
    area: str
    """the same, closed along the axis"""
    mean_at: float
    num: int
    mean: float


@dataclass(frozen=True)
class LengthChart:
    """Fig. 6 of the paper: share of captions over words, or over tokens with a line where the trainer stops reading."""

    series: list[Series]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    limit: int | None
    limit_at: float


@dataclass(frozen=True)
class Point:
    """One picture in the scatter of sizes."""

    x: float
    y: float
    outcome: str
    label: str


@dataclass(frozen=True)
class SizeChart:
    """Height over width, both logarithmic, so that one aspect is one diagonal."""

    points: list[Point]
    outcomes: list[str]
    """those that have a point"""
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    diagonals: list[tuple[str, float, float, float, float]]
    """(label, x1, y1, x2, y2) of the aspects 2:1, 1:1 and 1:2"""
    buckets: list[tuple[str, float, float, float, float]]
    """the same for the aspect of every bucket"""


def length_chart(histogram: Histogram, limit: int | None = None) -> LengthChart | None:
    """Outlines of the histogram, each as the share of its own source; None without captions."""
    if not histogram.counts:
        return None
    shares = {source: [count / sum(bins) for count in bins] for source, bins in histogram.counts.items()}
    step = nice_step(max(map(max, shares.values())), 4)
    highest = step * math.ceil(max(map(max, shares.values())) / step - 1e-9)
    plot_width, plot_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    bin_width = plot_width / histogram.num_bins
    floor = HEIGHT - BOTTOM

    def y_of(share: float) -> float:
        return floor - plot_height * share / highest

    series = []
    for source, values in shares.items():
        path = f"M{LEFT:.1f} {floor:.1f}" + "".join(
            f"V{y_of(value):.1f}H{LEFT + (place + 1) * bin_width:.1f}" for place, value in enumerate(values)
        )
        path += f"V{floor:.1f}"
        mean = histogram.means[source]
        mean_at = LEFT + min(mean / histogram.bin_width * bin_width, plot_width)
        series.append(Series(source, path, path + "Z", mean_at, sum(histogram.counts[source]), mean))
    reach = histogram.num_bins * histogram.bin_width
    x_step = max(1, int(nice_step(reach, 8)))
    x_ticks = [Tick(LEFT + plot_width * length / reach, str(length)) for length in range(0, reach + 1, x_step)]
    levels = [step * number for number in range(round(highest / step) + 1)]
    y_ticks = [Tick(y_of(level), f"{100 * level:g} %") for level in levels]
    return LengthChart(series, x_ticks, y_ticks, limit, LEFT + plot_width * min(1.0, (limit or 0) / reach))


def size_chart(pictures: Sequence[Row]) -> SizeChart | None:
    """The scatter of sizes; None without pictures."""
    if not pictures:
        return None
    sides = [side for row in pictures for side in (row["width"], row["height"])]
    low, high = math.log2(min(sides)) - 0.3, math.log2(max(sides)) + 0.3
    plot_width, plot_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x_of(width: float) -> float:
        return LEFT + plot_width * (math.log2(width) - low) / (high - low)

    def y_of(height: float) -> float:
        return HEIGHT - BOTTOM - plot_height * (math.log2(height) - low) / (high - low)

    points = [
        Point(x_of(row["width"]), y_of(row["height"]), row["outcome"], f"{row['width']} x {row['height']} px")
        for row in pictures
    ]
    powers = list(range(math.ceil(low), math.floor(high) + 1)) or [round(low)]
    steps = powers[:: 1 + len(powers) // 9]

    def diagonals(aspects: Sequence[tuple[str, float]]) -> list[tuple[str, float, float, float, float]]:
        """Lines of one shape each, given as log2 of width / height, where they cross the plot."""
        spans = ((label, aspect, max(low, low + aspect), min(high, high + aspect)) for label, aspect in aspects)
        return [
            (label, x_of(2**start), y_of(2 ** (start - aspect)), x_of(2**end), y_of(2 ** (end - aspect)))
            for label, aspect, start, end in spans
            if start < end
        ]

    return SizeChart(
        points,
        [outcome for outcome in OUTCOMES if any(point.outcome == outcome for point in points)],
        [Tick(x_of(2.0**power), f"{2.0**power:,.0f}") for power in steps],
        [Tick(y_of(2.0**power), f"{2.0**power:,.0f}") for power in steps],
        diagonals((("2:1", 1.0), ("1:1", 0.0), ("1:2", -1.0))),
        diagonals([(label, -math.log2(float(label))) for label in LABELS]),
    )


def nice_step(highest: float, num_steps: int) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that reaches `highest` in at most `num_steps` steps."""
    rough = highest / num_steps
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))


@dataclass(frozen=True)
class Bar:
    """A rectangle of a bar chart."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    label: str


@dataclass(frozen=True)
class ScoreChart:
    """Pictures over their aesthetic score, kept ones below, the others on top of them."""

    bars: list[Bar]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    threshold: float | None
    threshold_at: float


def score_chart(bins: Sequence[Row], bin_width: float, threshold: float | None) -> ScoreChart | None:
    """The histogram of scores on their scale of 1 to 10; None without scores.

    Args:
        bins: `bin` (ordinal from 1 on, in steps of `bin_width`), `kept` and `others`, the pictures in it.
        threshold: lowest score that is kept, where there is one.
    """
    if not bins:
        return None
    highest = max(row["kept"] + row["others"] for row in bins)
    step = max(1.0, nice_step(highest, 4))
    top = step * math.ceil(highest / step - 1e-9)
    plot_width, plot_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    bar_width = plot_width * bin_width / 9

    def x_of(score: float) -> float:
        return LEFT + plot_width * (min(max(score, 1.0), 10.0) - 1) / 9

    bars = []
    for row in bins:
        score, height = 1 + row["bin"] * bin_width, 0.0
        for kind, count in (("kept", row["kept"]), ("rejected", row["others"])):
            if count:
                tall = plot_height * count / top
                label = f"{score:g} to {score + bin_width:g}: {count:,} {'kept' if kind == 'kept' else 'not kept'}"
                y = HEIGHT - BOTTOM - height - tall
                bars.append(Bar(x_of(score) + 0.5, y, max(1.0, bar_width - 1), tall, kind, label))
                height += tall
    levels = [step * number for number in range(round(top / step) + 1)]
    return ScoreChart(
        bars,
        [Tick(x_of(score), str(score)) for score in range(1, 11)],
        [Tick(HEIGHT - BOTTOM - plot_height * level / top, compact(level)) for level in levels],
        threshold,
        0.0 if threshold is None else x_of(threshold),
    )


def compact(value: float) -> str:
    """1500 as 1.5k, 2000000 as 2M: a count that fits beside an axis."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
