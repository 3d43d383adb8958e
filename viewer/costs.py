"""The time and money that each job took, over all its runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.dataset import Dataset
from engine.run_log import read_runs


@dataclass(frozen=True)
class JobCost:
    """One job, over all its runs so far."""

    job: str
    num_runs: int
    """The number of runs in which it had something to do."""
    parts: int
    """Parts that were computed, over all runs; parts that were there already cost nothing."""
    seconds: float
    """Wall clock, over all runs."""
    rows: int
    """Rows of its table after the last run."""
    rows_per_s: float | None
    """The speed of the last run that computed every part; None without such a run."""
    hours_per_million: float | None
    """The time of a million inputs at that speed, on the machines it ran on."""
    gpu_hours: float | None
    """Hours for which its workers held GPUs, over all runs; None where they held none, or nothing was counted."""
    cost: float | None
    """The price of these hours in the runs whose recipe has `caption.price_per_gpu_hour`; None without such a run."""


def job_costs(dataset: Dataset) -> list[JobCost]:
    """Throughput and cost of every step, in the order in which they first ran."""
    by_job: dict[str, list[dict[str, Any]]] = {}
    for entry in read_runs(dataset):
        name = entry["job"] if entry["tables"] == [] else f"{entry['job']} → {', '.join(entry['tables'])}"
        by_job.setdefault(name, []).append(entry)
    costs = []
    for name, entries in by_job.items():
        whole = [e for e in entries if e["seconds"] > 0 and e["rows"] and e.get("parts_computed") == e.get("parts")]
        rate = whole[-1]["rows"] / whole[-1]["seconds"] if whole else None
        costs.append(
            JobCost(
                job=name,
                num_runs=len(entries),
                parts=sum(int(entry.get("parts_computed", 0)) for entry in entries),
                seconds=sum(entry["seconds"] for entry in entries),
                rows=entries[-1]["rows"],
                rows_per_s=rate,
                hours_per_million=1e6 / rate / 3600 if rate else None,
                gpu_hours=sum(entry.get("gpu_hours", 0.0) for entry in entries) or None,
                cost=sum(entry["cost"] for entry in entries if "cost" in entry)
                if any("cost" in entry for entry in entries)
                else None,
            )
        )
    return costs
