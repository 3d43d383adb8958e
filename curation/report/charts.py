"""The geometry of the report's charts; the template draws it, so that every label is escaped there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from curation.report.figures import OUTCOMES, Histogram, Row

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
    """Fig. 6 of the paper: share of captions over words."""

    series: list[Series]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


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


def length_chart(histogram: Histogram) -> LengthChart | None:
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
        mean_at = LEFT + min(mean / histogram.bin_words * bin_width, plot_width)
        series.append(Series(source, path, path + "Z", mean_at, sum(histogram.counts[source]), mean))
    words = histogram.num_bins * histogram.bin_words
    word_step = max(1, int(nice_step(words, 8)))
    x_ticks = [Tick(LEFT + plot_width * word / words, str(word)) for word in range(0, words + 1, word_step)]
    levels = [step * number for number in range(round(highest / step) + 1)]
    return LengthChart(series, x_ticks, [Tick(y_of(level), f"{100 * level:g} %") for level in levels])


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
    diagonals = []
    for label, aspect in (("2:1", 1.0), ("1:1", 0.0), ("1:2", -1.0)):  # log2 of width / height
        start, end = max(low, low + aspect), min(high, high + aspect)
        if start < end:
            diagonals.append(
                (label, x_of(2**start), y_of(2 ** (start - aspect)), x_of(2**end), y_of(2 ** (end - aspect)))
            )
    return SizeChart(
        points,
        [outcome for outcome in OUTCOMES if any(point.outcome == outcome for point in points)],
        [Tick(x_of(2.0**power), f"{2.0**power:,.0f}") for power in steps],
        [Tick(y_of(2.0**power), f"{2.0**power:,.0f}") for power in steps],
        diagonals,
    )


def nice_step(highest: float, num_steps: int) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that reaches `highest` in at most `num_steps` steps."""
    rough = highest / num_steps
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))
