"""The geometry of the charts; the templates draw it, so that every label is escaped there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.duck import Row
from schemas.buckets import LABELS
from schemas.reasons import OUTCOMES
from viewer.figures import Histogram

WIDTH, HEIGHT = 720, 300
"""Size of a chart in its own units; it scales with the page."""
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 22, 34
"""Margins around the plot."""
PLOT_WIDTH, PLOT_HEIGHT, FLOOR = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM, HEIGHT - BOTTOM


@dataclass(frozen=True)
class Tick:
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
    """Fig. 6 of the paper: share of captions over words, or over tokens with a line at the trainer's limit."""

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
    levels = nice_levels(max(map(max, shares.values())))
    reach = histogram.num_bins * histogram.bin_width
    series = []
    for source, values in shares.items():
        path = f"M{LEFT:.1f} {FLOOR:.1f}" + "".join(
            f"V{y_at(value / levels[-1]):.1f}H{x_at((place + 1) / histogram.num_bins):.1f}"
            for place, value in enumerate(values)
        )
        path += f"V{FLOOR:.1f}"
        mean = histogram.means[source]
        series.append(Series(source, path, path + "Z", x_at(mean / reach), sum(histogram.counts[source]), mean))
    x_step = max(1, int(nice_step(reach, 8)))
    x_ticks = [Tick(x_at(length / reach), str(length)) for length in range(0, reach + 1, x_step)]
    y_ticks = [Tick(y_at(level / levels[-1]), f"{100 * level:g} %") for level in levels]
    return LengthChart(series, x_ticks, y_ticks, limit, x_at((limit or 0) / reach))


def size_chart(pictures: Sequence[Row]) -> SizeChart | None:
    """The scatter of sizes; None without pictures."""
    if not pictures:
        return None
    sides = [side for row in pictures for side in (row["width"], row["height"])]
    low, high = math.log2(min(sides)) - 0.3, math.log2(max(sides)) + 0.3

    def share(power: float) -> float:
        return (power - low) / (high - low)

    points = [
        Point(x_at(share(math.log2(width))), y_at(share(math.log2(height))), row["outcome"], f"{width} x {height} px")
        for row in pictures
        for width, height in [(row["width"], row["height"])]
    ]
    powers = list(range(math.ceil(low), math.floor(high) + 1)) or [round(low)]
    ticks = [(share(power), f"{2.0**power:,.0f}") for power in powers[:: 1 + len(powers) // 9]]

    def diagonals(aspects: Sequence[tuple[str, float]]) -> list[tuple[str, float, float, float, float]]:
        """Lines of one shape each, given as log2 of width / height, where they cross the plot."""
        spans = ((label, aspect, max(low, low + aspect), min(high, high + aspect)) for label, aspect in aspects)
        return [
            (label, x_at(share(start)), y_at(share(start - aspect)), x_at(share(end)), y_at(share(end - aspect)))
            for label, aspect, start, end in spans
            if start < end
        ]

    return SizeChart(
        points,
        [outcome for outcome in OUTCOMES if any(point.outcome == outcome for point in points)],
        [Tick(x_at(at), label) for at, label in ticks],
        [Tick(y_at(at), label) for at, label in ticks],
        diagonals((("2:1", 1.0), ("1:1", 0.0), ("1:2", -1.0))),
        diagonals([(label, -math.log2(float(label))) for label in LABELS]),
    )


def x_at(share: float) -> float:
    """The x of a share of the horizontal axis; a share above 1 is drawn at its end."""
    return LEFT + PLOT_WIDTH * min(share, 1.0)


def y_at(share: float) -> float:
    """The y of a share of the vertical axis."""
    return FLOOR - PLOT_HEIGHT * share


def nice_levels(highest: float, least_step: float = 0.0) -> list[float]:
    """Ticks of a vertical axis from 0 to `highest` or just above it."""
    step = max(least_step, nice_step(highest, 4))
    return [step * number for number in range(math.ceil(highest / step - 1e-9) + 1)]


def nice_step(highest: float, num_steps: int) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that reaches `highest` in at most `num_steps` steps."""
    rough = highest / num_steps
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))


@dataclass(frozen=True)
class Bar:
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
    """The histogram of scores on their scale of 1 to 10; None without scores. `bins`: `bin` (ordinal from 1 on, in
    steps of `bin_width`), `kept` and `others`, the pictures in it. `threshold`: lowest score that is kept, where there
    is one."""
    if not bins:
        return None
    levels = nice_levels(max(row["kept"] + row["others"] for row in bins), least_step=1.0)
    bar_width = PLOT_WIDTH * bin_width / 9

    def x_of(score: float) -> float:
        return x_at((max(score, 1.0) - 1) / 9)

    bars = []
    for row in bins:
        score, height = 1 + row["bin"] * bin_width, 0.0
        for kind, count in (("kept", row["kept"]), ("rejected", row["others"])):
            if count:
                tall = PLOT_HEIGHT * count / levels[-1]
                label = f"{score:g} to {score + bin_width:g}: {count:,} {'kept' if kind == 'kept' else 'not kept'}"
                y = FLOOR - height - tall
                bars.append(Bar(x_of(score) + 0.5, y, max(1.0, bar_width - 1), tall, kind, label))
                height += tall
    return ScoreChart(
        bars,
        [Tick(x_of(score), str(score)) for score in range(1, 11)],
        [Tick(y_at(level / levels[-1]), compact(level)) for level in levels],
        threshold,
        0.0 if threshold is None else x_of(threshold),
    )


def compact(value: float) -> str:
    """1500 as 1.5k, 2000000 as 2M: a count short enough for an axis."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
