"""An ablation as one figure: bars with the spread over seeds for the grid, curves for the claims."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.ablation.cells import GRID, Block, Experiment
from evaluation.ablation.table import values
from schemas.commit import write_bytes
from viewer.rendering import environment

COLOURS = ("#c97f02", "#066baa")
WIDTH, HEIGHT = 380, 190
"""Of the plot of a panel, without its labels."""
Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Scale:
    """Values on a plot of `HEIGHT`, from the top; the ticks are the lowest, middle and highest value."""

    low: float
    high: float

    @classmethod
    def over(cls, found: Sequence[float]) -> Scale:
        """The range of values with some air: bars do not begin at 0, which the figure says."""
        air = 0.08 * (max(found) - min(found)) or 1e-3
        return cls(min(found) - air, max(found) + air)

    def at(self, value: float) -> float:
        return HEIGHT * (self.high - value) / (self.high - self.low)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        return [(self.at(value), f"{value:.3g}") for value in (self.low, (self.low + self.high) / 2, self.high)]


def write_ablation(path: Path, title: str, found: Sequence[tuple[Experiment, Rows]]) -> None:
    """Write the figure as SVG: a panel for each block of the grid and measure, one for each claim and measure."""
    panels = [
        panel
        for experiment, rows in found
        for block in experiment.blocks
        for metric in ("val_loss", "fid")
        if (panel := _panel(experiment, block, rows, metric)) is not None
    ]
    page = environment(False).get_template("ablation.svg.jinja")
    text = page.render(title=title, panels=panels, colours=COLOURS, width=WIDTH, height=HEIGHT)
    write_bytes(path, text.encode())


def _panel(experiment: Experiment, block: Block, rows: Rows, metric: str) -> dict[str, Any] | None:
    """Curves where there is more than one point of a claim, else bars; None where nothing is measured."""
    steps = [step for step in sorted({row["step"] for row in rows}) if values(rows, block.cells[0].name, metric, step)]
    if not steps:
        return None
    is_claim = experiment.name != GRID
    shown = steps if is_claim else steps[-1:]
    bars = len(shown) == 1
    found = [[values(rows, cell.name, metric, step) for step in shown] for cell in block.cells]
    scale = Scale.over([value for cell in found for seeds in cell for value in seeds])
    series = []
    for number, (label, cell) in enumerate(zip(block.labels, found, strict=True)):
        x = [(number + 0.5) / len(found)] if bars else [step / steps[-1] for step in shown]
        y = [(scale.at(statistics.fmean(seeds)), scale.at(max(seeds)), scale.at(min(seeds))) for seeds in cell]
        points = [(WIDTH * share, *of_seeds) for share, of_seeds in zip(x, y, strict=True)]
        series.append({"label": label, "points": points})
    num = max(row.get("num_pictures") or 0 for row in rows)
    measure = {"val_loss": "validation loss", "fid": f"FID of {num:,} pictures"}[metric]
    return {
        "title": f"{experiment.name if is_claim else block.title}: {measure}, {experiment.stage.resolution:,} px",
        "ticks": scale.ticks,
        "series": series,
        "bars": bars,
        "steps": shown,
    }
