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


def reached(rows: Sequence[Row], block: Block) -> list[str]:
    """For a claim: from which point on its second cell is where the first one ends, by mean loss; and at which points
    the two differ by more than chance."""
    losses = {
        step: [values(rows, cell.name, "val_loss", step) for cell in block.cells]
        for step in sorted({row["step"] for row in rows})
    }
    last = statistics.fmean(losses[max(losses)][0])
    under = next((step for step, (_, with_it) in losses.items() if statistics.fmean(with_it) <= last), None)
    done = f"the last validation loss of {block.labels[0]} (step {max(losses):,})"
    differences = {step: paired_difference(with_it, without) for step, (without, with_it) in losses.items()}
    return [
        f"{block.labels[1]} does not reach {done}"
        if under is None
        else f"{block.labels[1]} reaches {done} by step {under:,}",
        *(
            f"at {len(steps)} of {len(losses)} points its loss is {name}: steps {', '.join(map(str, steps))}"
            for name, sign in (("lower", -1), ("higher", 1))
            if (steps := [step for step, each in differences.items() if each.is_seen and each.mean * sign > 0])
        ),
    ]
