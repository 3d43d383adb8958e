"""A scorer: a job that notes what a picture shows, and rules that make numbers of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from curation.images.decode import decode
from curation.images.header import Unreadable
from engine.ahead import ahead
from engine.map_job import MapJob, PayingWorker, Worker
from evaluation.picture_files import read_picture
from evaluation.pictures import pictures_table
from schemas.evaluation import Metrics, Run
from schemas.reasons import ImageError

PUBLISHED_PICTURES = 4
"""Pictures a prompt, of GenEval's and of DPG-Bench's published scores."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Scorer:
    """The scorer of a benchmark, known before anything is loaded."""

    metric: ClassVar[str]
    """Its name in the results."""
    network: str
    """What it looks with, and the beginning of its weights' digest."""
    protocol: str
    """The benchmark and the rules."""
    missing: str | None = None
    """What to type, where it cannot look at pictures."""

    def worker(self) -> Callable[..., Worker | PayingWorker]:
        """Of its job: made of the evaluation's folder, the tables of pictures and answers, this, and `run`."""
        raise NotImplementedError

    def seen_with(self) -> dict[str, Any]:
        """All that its table depends on besides the pictures."""
        raise NotImplementedError

    def table(self, model: str) -> str:
        """The table of what it has seen in a model's pictures."""
        name = re.sub(r"[^\w.-]", "-", self.network.partition("@")[0].rpartition("/")[2])
        return f"answers/{model}/{self.metric}-{name}"

    def job(self, root: Path, model: str, run: Run) -> MapJob:
        pictures, table = pictures_table(model), self.table(model)
        return MapJob(
            job=f"answers-{model}",
            inputs=(pictures,),
            outputs=(table,),
            knobs=self.seen_with(),
            build=partial(self.worker(), root, pictures, table, self, run),
            num_gpus=None,
            workers=run.workers,
        )

    def why_lost(self, row: Row) -> str | None:
        """Why a row of the table counts as missing; None where it counts."""
        return None if row["reason"] is None else str(row["reason"])

    def results(self, rows: Sequence[Row], metrics: Metrics) -> Iterator[dict[str, Any]]:
        """The rows of results of a model, of those that count: the columns that depend on pictures, and flags."""
        raise NotImplementedError


def opened(root: Path, rows: Sequence[Row], threads: int) -> Iterator[tuple[Row, Image.Image | dict[str, Any]]]:
    """Each row of a model's pictures in order, with its picture, upright and RGB, or the reason why it has none."""

    def look(row: Row) -> Image.Image | dict[str, Any]:
        if row["file"] is None or row["width"] is None:
            return {"reason": row["reason"], "detail": row["detail"]}
        try:
            return decode(read_picture(root, row)).image
        except (OSError, Unreadable) as error:
            return {"reason": ImageError.CORRUPT.value, "detail": str(error)}

    yield from zip(rows, ahead(look, rows, threads), strict=True)


def flags_of(rows: Sequence[Row]) -> list[str]:
    """What differs from the published protocol in the pictures."""
    most = max((row["number"] for row in rows), default=0) + 1
    return (
        [] if most == PUBLISHED_PICTURES else [f"pictures: {most} a prompt, where {PUBLISHED_PICTURES} are published"]
    )
