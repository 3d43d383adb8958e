"""The job that compares an export's pictures with the first model's, drawn from the same noise, pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from engine.map_job import MapJob
from engine.runner import Progress
from evaluation.painters import Plan
from evaluation.picture_files import Pixels, named, pictures_table
from evaluation.scorers.base import opened
from schemas.evaluation import Run
from schemas.tables import schema_of

ROUNDING = 1 / 12
"""The mean square of what rounding to 8 bits leaves: equal pictures are no nearer than that, which is 58.9 dB."""


def near(models: Sequence[Plan]) -> list[Plan]:
    """The exports whose pictures compare with the first model's: of the same encoders and the same size."""
    first, *others = models
    return [
        each
        for each in others
        if each.is_export and all(each.how[name] == first.how.get(name) for name in ("encoders", "resolution"))
    ]


def nearness_table(model: str, first: str) -> str:
    """The table of how near a model's pictures are to the first one's."""
    return f"nearness/{model}/{first}"


def nearness_job(root: Path, model: str, first: str, run: Run) -> MapJob:
    table = nearness_table(model, first)
    return MapJob(
        job=f"nearness-{model}",
        inputs=(pictures_table(model), pictures_table(first)),
        outputs=(table,),
        knobs={},
        build=partial(Nearness, root, model, first, run),
        workers=run.workers,
    )


def psnr(one: Pixels, other: Pixels) -> float:
    """The peak signal over the noise between two pictures (h, w, 3) of 8 bits, in dB."""
    apart = float(np.mean((one.astype(np.float64) - other) ** 2))
    return 10 * math.log10(255**2 / max(apart, ROUNDING))


class Nearness:
    """The worker: pictures are decoded on threads."""

    def __init__(self, root: Path, model: str, first: str, run: Run) -> None:
        self._root, self._table, self._threads = root, nearness_table(model, first), run.threads
        self._names = pictures_table(model), pictures_table(first)

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> dict[str, pa.Table]:
        found = []
        sides = (opened(self._root, inputs[name].to_pylist(), self._threads) for name in self._names)
        for (row, one), (_, other) in zip(*sides, strict=True):
            reasons = [each for each in (one, other) if isinstance(each, dict)]
            made = reasons[0] if reasons else {"psnr": psnr(np.asarray(one), np.asarray(other))}
            found.append(named(row) | made)
            progress(1)
        return {self._table: pa.Table.from_pylist(found, schema=schema_of("nearness/"))}
