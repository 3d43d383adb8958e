"""Three small map jobs that read each other, for tests of parts that flow from one to the next."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.dataset import Dataset
from engine.map_job import MapJob
from engine.runner import Progress
from tests.building import put, table_of

CHAIN = {"clean": ("listing", "raw_captions"), "aesthetic": ("raw_captions", "scores"), "mix": ("scores", "mix")}
"""Job -> the table it reads, and the one it writes."""


@dataclass(frozen=True)
class Step:
    """A worker that passes a text on, and writes down what it begins."""

    job: str
    log: Path
    adds: str = ""
    fails_at: int = -1
    dies_at: int = -1
    """Its process ends there, the first time."""
    refuses: bool = False
    """The first row of each part has a reason."""
    awaits: tuple[int, str] = (-1, "")
    """At this part, wait until that is in the log."""

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> Mapping[str, pa.Table]:
        read, written = CHAIN[self.job]
        rows = inputs[read].to_pylist()
        number, column = rows[0]["row_id"] // 2, {"scores": "aesthetic_scorer"}.get(written, "caption")
        died = self.begun().count(f"{self.job} {number}")
        with self.log.open("a") as log:
            log.write(f"{self.job} {number}\n")
        if number == self.dies_at and not died:
            os._exit(1)
        if number == self.fails_at:
            raise ValueError("not today")
        until = time.monotonic() + 60
        while number == self.awaits[0] and self.awaits[1] not in self.begun():
            assert time.monotonic() < until, f"{self.awaits[1]} has not begun"
            time.sleep(0.05)
        was = [row.get("raw_caption") or row.get("caption") or row.get("aesthetic_scorer") or "" for row in rows]
        values = [
            {"row_id": row["row_id"], column: text + (self.adds if number == 0 else "")}
            for row, text in zip(rows, was, strict=True)
        ]
        if written == "raw_captions":
            values = [value | {"removed": []} for value in values]
            values[0] |= {"reason": "junk"} if self.refuses else {}
        progress(len(rows))
        return {written: table_of(written, values)}

    def begun(self) -> list[str]:
        """What has begun, in order, by any process."""
        return self.log.read_text().splitlines() if self.log.exists() else []


def jobs(log: Path, knobs: Mapping[str, Any] | None = None, **steps: dict[str, Any]) -> list[MapJob]:
    """The three jobs.

    Args:
        knobs: of the first one.
        steps: more of a job's worker, and of the job itself under `own`.
    """
    made = []
    for job, (read, written) in CHAIN.items():
        more = dict(steps.get(job, {}))
        own = more.pop("own", {})
        build = partial(partial, Step(job, log, **more))
        given = dict(knobs or {}) if job == "clean" else {}
        made.append(MapJob(job=job, outputs=(written,), inputs=(read,), build=build, knobs=given, **own))
    return made


def listed(root: Path, num_parts: int) -> Dataset:
    """A dataset of so many parts of two inputs, of which nothing is computed yet."""
    dataset = Dataset(root)
    for number in range(num_parts):
        origin = {"source": "/photos", "source_name": "photos"}
        row_ids = (2 * number, 2 * number + 1)
        rows = [{"row_id": row, "member": f"{row}.jpg", "raw_caption": f"{row}.", **origin} for row in row_ids]
        put(dataset, "listing", number, table_of("listing", rows))
    return dataset
