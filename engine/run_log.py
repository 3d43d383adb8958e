"""The log of what ran on a dataset: one JSON file per job and run in `runs/`, for people and for the forecast."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from engine.dataset import Dataset
from schemas.files import find_files
from schemas.late import installed, late
from schemas.seal import read_json, write_json

with late(__name__):
    import platform
    import socket

log = logging.getLogger(__name__)

PACKAGES = ("sigma-pipeline", "duckdb", "pillow", "pyarrow", "ray", "spacy", "torch", "transformers")
"""Packages whose versions a record names."""


@dataclass(frozen=True)
class JobResult:
    job: str
    tables: tuple[str, ...]
    parts: int
    computed: int
    """Parts that were computed; the others were there already, or were taken back unchanged."""
    rows: int
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    counts: dict[str, float] = field(default_factory=dict)
    """What its workers have counted, see `engine.runner.Progress`."""

    def rates(self) -> dict[str, float]:
        """Throughput of the whole job, where its workers have counted images and tokens; see `throughput`."""
        return throughput(self.counts, self.seconds)


def throughput(counts: Mapping[str, float], seconds: float) -> dict[str, float]:
    """What counters come to: `images_per_s` and `tokens_per_s` over the wall time of all workers together,
    `model_share` (of a worker's time, inside the model), `gpu_hours`, and `cost` where a price is known. `counts`:
    images, tokens, and seconds summed over the workers: model_s, worker_s, gpu_s. `seconds`: wall time."""
    if not counts.get("worker_s") or not seconds:
        return {}
    rates = {
        "images_per_s": counts.get("images", 0) / seconds,
        "tokens_per_s": counts.get("tokens", 0) / seconds,
        "model_share": counts.get("model_s", 0) / counts["worker_s"],
        "gpu_hours": counts.get("gpu_s", 0) / 3600,
    }
    return rates | ({"cost": counts["cost"]} if "cost" in counts else {})


def write_run(dataset: Dataset, result: JobResult) -> None:
    """Write `runs/<time>-<job>.json`: what ran, where, how long, and with which versions."""
    now = datetime.now(UTC)
    entry = {
        "job": result.job,
        "tables": list(result.tables),
        "finished": now.isoformat(timespec="seconds"),
        "seconds": result.seconds,
        "parts": result.parts,
        "parts_computed": result.computed,
        "rows": result.rows,
        "rows_by_reason": result.reasons,
        **{name: round(count, 3) for name, count in result.counts.items() if name != "cost"},
        **{name: round(rate, 4) for name, rate in result.rates().items()},
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in PACKAGES},
    }
    name = f"{now.strftime('%Y%m%dT%H%M%S%f')}-{result.job}.json"
    write_json(dataset.runs / name, entry)


def read_runs(dataset: Dataset) -> list[dict[str, Any]]:
    """What has run, oldest first. A file that is no whole record of a run is named in a warning and passed over:
    records are there to look at, and no table depends on one."""
    found = []
    for path in find_files(dataset.runs, "*.json"):
        try:
            entry = read_json(path)
        except (ValueError, OSError):
            entry = {}
        if {"job", "seconds", "rows", "tables", "finished"} <= entry.keys():
            found.append(entry)
        else:
            log.warning("%s: is no record of a run; passed over", path)
    return found
