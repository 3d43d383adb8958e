"""The figures of an experiment as text: means over seeds, what differs by more than chance, what was published."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.ablation.cells import GRID, Block, Experiment
from evaluation.ablation.run import Row
from evaluation.ablation.spread import paired_difference
from schemas.paper import TABLE_3

PUBLISHED_PX = (512, 1024)


@dataclass(frozen=True)
class Sheet:
    """A table to print."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def values(rows: Sequence[Row], cell: str, metric: str, step: int | None = None) -> list[float]:
    """A metric of a cell by seed, at a step or at its last; none where a seed lacks it."""
    own = [row for row in rows if row["cell"] == cell]
    at = max(row["step"] for row in own) if step is None else step
    found = [row[metric] for row in sorted(own, key=lambda row: row["seed"]) if row["step"] == at]
    return [] if None in found else found


def sheets(experiment: Experiment, rows: Sequence[Row]) -> list[Sheet]:
    """A sheet per block."""
    return [_sheet(experiment, block, rows) for block in experiment.blocks]


def _sheet(experiment: Experiment, block: Block, rows: Sequence[Row]) -> Sheet:
    first = block.labels[0]
    metrics = {"val_loss": "validation loss", "fid": "FID", "clip_score": "CLIP-Score"}
    shown = [name for name in metrics if values(rows, block.cells[0].name, name)]
    columns = [block.title]
    for name in shown:
        columns += [f"{metrics[name]} ± spread", f"less that of {first} (95 %)"]
    columns += ["s per step", "ratio"]
    published = [
        px
        for px in PUBLISHED_PX
        if experiment.name == GRID and any((block.title, px) == (r.block, r.px) for r in TABLE_3)
    ]
    columns += [f"published, 0.6B at {px} px" for px in published]
    lines = []
    for label, cell in zip(block.labels, block.cells, strict=True):
        line = [label]
        for name in shown:
            found, reference = values(rows, cell.name, name), values(rows, block.cells[0].name, name)
            line += [f"{statistics.fmean(found):.4g} ± {statistics.stdev(found):.2g}"]
            line += ["" if cell == block.cells[0] else str(paired_difference(found, reference))]
        times = next(row for row in rows if row["cell"] == cell.name)
        line += [f"{times['seconds_per_step']:.3g}", f"{times['seconds_ratio']:.2f}"]
        line += [_published(block.title, label, px) for px in published]
        lines.append(tuple(line))
    return Sheet(block.title, tuple(columns), lines)


def _published(block: str, label: str, px: int) -> str:
    for row in TABLE_3:
        if (row.block, row.value, row.px) == (block, label, px):
            clip = f", CLIP {row.clip_score:.3f}".replace("0.", ".") if row.clip_score else ""
            return f"FID {row.fid:.3f}{clip}" + (f", {row.seconds:g} s" if row.seconds else "")
    return ""


def reached(rows: Sequence[Row], block: Block) -> str:
    """For a claim: from which point on the mean loss of its second cell is below the last one of its first."""
    without, with_it = (cell.name for cell in block.cells)
    last = statistics.fmean(values(rows, without, "val_loss"))
    steps = sorted({row["step"] for row in rows})
    under = [step for step in steps if statistics.fmean(values(rows, with_it, "val_loss", step)) <= last]
    if not under:
        return f"{block.labels[1]} does not reach the last validation loss of {block.labels[0]}"
    done = f"the last validation loss of {block.labels[0]} (step {steps[-1]:,})"
    return f"{block.labels[1]} reaches {done} by step {under[0]:,}"
