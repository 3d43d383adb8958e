"""From what a sample of the inputs has come to, what the whole will: pictures, bytes, hours and shards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from curation.forecast.estimate import Estimate, pairs_of, share_of, total_of
from schemas.reasons import Rejection
from schemas.texts import counted

REFERENCE_CORES = 2
REFERENCES = {"duplicates": (33_000_000, 555.0), "selection": (33_000_000, 107.0), "statistics": (4_000_000, 227.6)}
"""Reduce table -> (rows, seconds), measured on `REFERENCE_CORES` busy cores: docs/benchmarks.md, "Duplicates at scale"
and "Statistics". A sample of hundreds of rows tells only what it costs to start DuckDB."""

MEASURED, REFERENCED, UNKNOWN = "measured", "scaled", "not forecast"


@dataclass(frozen=True)
class JobFacts:
    job: str
    table: str
    is_reduce: bool
    seconds: float
    """of the wall clock, starting workers included"""
    busy_s: float = 0.0
    """of all workers together, without loading"""
    cpu_s: float = 0.0
    """of their processes, without loading"""
    gpu_s: float = 0.0
    start_s: float = 0.0
    """of a worker, to load what it needs"""
    wants_gpu: bool = False
    """it would take a GPU where there is one"""
    max_workers: int | None = None
    """as the recipe sets for this job alone"""
    gpu_workers: int | None = None
    """workers that the GPUs there are have room for at once; None where they hold none"""


@dataclass(frozen=True)
class TableSize:
    """How a table grows: `per_file` bytes of each file, and `per_input` more of each input."""

    per_file: float
    per_input: Sequence[float]
    """of groups of inputs that a coin has put together, to see how much it varies"""
    mean: float
    """bytes per input over the whole sample"""
    on_disk: int
    """bytes of its files here"""
    files: str = "parts"
    """what it is a file per: 'parts', 'shards' or 'one'"""


@dataclass(frozen=True)
class BucketFacts:
    bytes_of: Sequence[int]
    """of each original"""
    num_shards: int


@dataclass(frozen=True)
class Facts:
    """What building the sample has shown."""

    num_inputs: int
    num_sampled: int
    num_parts: int
    """that the whole listing has"""
    outcomes: Sequence[tuple[str, str | None, str | None, int]]
    """(outcome, stage, reason, count), as the ledger counts"""
    duplicate_pairs: int
    tables: Mapping[str, TableSize]
    proxy_bytes: Sequence[float]
    """of each sampled input"""
    shard_bytes: Sequence[float]
    """of each sampled input in its tar; 0 where it is in none"""
    buckets: Mapping[str, BucketFacts]
    jobs: Sequence[JobFacts]
    listing_s: float = 0.0
    """to list all inputs; 0 where they were listed already"""
    unsampled: Sequence[str] = ()
    """sources of which no input is in the sample"""
    all_synthetic: bool = False
    """no sampled input has a caption of its own"""


@dataclass(frozen=True)
class Outcome:
    """One kind of row of the ledger."""

    outcome: str
    reason: str | None
    in_sample: int
    inputs: Estimate


@dataclass(frozen=True)
class Bucket:
    bucket: str
    in_sample: int
    images: Estimate
    median_bytes: float
    shards: Estimate

    def is_short(self) -> bool:
        """Whether its images are likely to fill not even one shard."""
        return self.shards.value <= 1


@dataclass(frozen=True)
class JobForecast:
    job: str
    table: str
    basis: str
    start_s: float
    cpu_hours: float | None
    gpu_hours: float | None
    wall_s: Mapping[int, float]
    """by the number of workers; empty where it is not forecast"""


@dataclass(frozen=True)
class Forecast:
    num_inputs: int
    num_sampled: int
    survivors: Estimate
    """Images that every rule keeps; of copies of each other all are counted, unless the whole was looked at."""
    outcomes: Sequence[Outcome]
    duplicate_pairs_in_sample: int
    duplicate_pairs: Estimate | None
    """None where the sample cannot say: its interval would reach as far as all inputs."""
    disk: Mapping[str, Estimate]
    """bytes: tables, proxies, shards, all"""
    jobs: Sequence[JobForecast]
    buckets: Sequence[Bucket]
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def is_whole(self) -> bool:
        return self.num_sampled == self.num_inputs


def shards_of(images: float, num_bytes: float, shard_bytes: float, max_samples: int) -> float:
    """Shards of a bucket as `shard_plan` cuts them: one more wherever bytes or samples pass a multiple of the limit."""
    if images <= 0:
        return 0
    return 1 + math.floor(num_bytes / shard_bytes) + math.floor(max(images - 1, 0) / max_samples)


def forecast(facts: Facts, shard_megabytes: float, max_samples: int, workers: Sequence[int]) -> Forecast:
    """Project the sample.

    Args:
        shard_megabytes: of `shard.megabytes`, in units of 10^6 bytes.
        max_samples: of `shard.max_samples`.
        workers: numbers of workers to give the wall-clock time for.
    """
    population, sampled = facts.num_inputs, facts.num_sampled
    is_whole = sampled == population
    doubles = sum(count for *_, reason, count in facts.outcomes if reason == Rejection.DUPLICATE)
    num_kept = sum(count for outcome, *_, count in facts.outcomes if outcome == "kept")
    survivors = share_of(num_kept if is_whole else num_kept + doubles, sampled, population)
    outcomes = [
        Outcome(outcome, reason, count, share_of(count, sampled, population))
        for outcome, _, reason, count in facts.outcomes
        if outcome != "kept" and (is_whole or reason != Rejection.DUPLICATE)
    ]
    pairs = pairs_of(facts.duplicate_pairs, sampled, population)
    buckets = _buckets(facts, survivors, num_kept, shard_megabytes * 1e6, max_samples)
    num_shards = sum(bucket.shards.value for bucket in buckets)
    return Forecast(
        num_inputs=population,
        num_sampled=sampled,
        survivors=survivors,
        outcomes=outcomes,
        duplicate_pairs_in_sample=facts.duplicate_pairs,
        duplicate_pairs=pairs if pairs.high < population else None,
        disk=_disk(facts, num_shards),
        jobs=[*_listing(facts, workers), *(_job(job, facts, workers) for job in facts.jobs)],
        buckets=buckets,
    )


def _buckets(facts: Facts, survivors: Estimate, num_kept: int, shard_bytes: float, max_samples: int) -> list[Bucket]:
    """The survivors dealt out by the sample's shares; their sum is the estimate of all."""
    found = []
    is_whole = facts.num_sampled == facts.num_inputs
    for name, bucket in sorted(facts.buckets.items(), key=lambda entry: float(entry[0])):
        count = len(bucket.bytes_of)
        value = survivors.value * count / num_kept
        bounds = share_of(count, facts.num_sampled, facts.num_inputs)
        scale = value / bounds.value  # of copies of each other the sample's shards hold one
        images = Estimate(value, bounds.low * scale, bounds.high * scale)
        mean = sum(bucket.bytes_of) / count
        low, middle, high = (
            bucket.num_shards if is_whole else shards_of(number, number * mean, shard_bytes, max_samples)
            for number in (images.low, images.value, images.high)
        )
        median = sorted(bucket.bytes_of)[count // 2]
        found.append(Bucket(name, count, images, median, Estimate(middle, low, high)))
    return found


def _disk(facts: Facts, num_shards: float) -> dict[str, Estimate]:
    population = facts.num_inputs
    tables = Estimate(0, 0, 0)
    for table in facts.tables.values():
        if facts.num_sampled == population:
            tables = tables.plus(Estimate(table.on_disk, table.on_disk, table.on_disk))
            continue
        files = {"parts": facts.num_parts, "shards": num_shards, "one": 1}[table.files]
        fixed = files * table.per_file
        value = fixed + population * table.mean
        reach = 0.0
        if len(table.per_input) > 1:
            varied = total_of(table.per_input, population)
            reach = varied.high - varied.value
        tables = tables.plus(Estimate(value, max(value - reach, table.on_disk), value + reach))
    proxies = total_of(facts.proxy_bytes, population)
    shards = total_of(facts.shard_bytes, population)
    whole = tables.plus(proxies).plus(shards)
    return {"tables": tables, "proxies": proxies, "shards": shards, "all": whole}


def _listing(facts: Facts, workers: Sequence[int]) -> list[JobForecast]:
    """The whole was listed to draw from it, by one process."""
    if not facts.listing_s:
        return []
    wall = dict.fromkeys(workers, facts.listing_s)
    return [JobForecast("ingest", "listing", MEASURED, 0.0, facts.listing_s / 3600, None, wall)]


def _job(job: JobFacts, facts: Facts, workers: Sequence[int]) -> JobForecast:
    population, sampled = facts.num_inputs, facts.num_sampled
    if job.is_reduce:
        return _reduce_job(job, population, sampled, workers)
    factor = population / sampled
    wall = {}
    for number in workers:
        at_once = min(job.max_workers or number, job.gpu_workers or number, max(facts.num_parts, 1))
        wall[number] = job.start_s + job.busy_s * factor / at_once
    gpu_hours = job.gpu_s * factor / 3600 if job.gpu_s else None
    return JobForecast(job.job, job.table, MEASURED, job.start_s, job.cpu_s * factor / 3600, gpu_hours, wall)


def _reduce_job(job: JobFacts, population: int, sampled: int, workers: Sequence[int]) -> JobForecast:
    if population == sampled:
        wall = dict.fromkeys(workers, job.seconds)
        return JobForecast(job.job, job.table, MEASURED, 0.0, None, None, wall)
    if job.table not in REFERENCES:
        return JobForecast(job.job, job.table, UNKNOWN, 0.0, None, None, {})
    rows, seconds = REFERENCES[job.table]
    grown = seconds * population * math.log(max(population, 2)) / (rows * math.log(rows))
    cpu_hours = REFERENCE_CORES * grown / 3600
    wall = dict.fromkeys(workers, job.seconds + grown)
    return JobForecast(job.job, job.table, REFERENCED, 0.0, cpu_hours, None, wall)


def with_remarks(made: Forecast, facts: Facts, free_bytes: int, held_bytes: int, out: str) -> Forecast:
    """The same forecast with what its reader must know: warnings of what will go wrong, notes of what it cannot say.
    `free_bytes`: of the disk that holds `out`. `held_bytes`: that the dataset has there already. `out`: the dataset
    folder, to be named."""
    warnings, notes = [], []
    need = made.disk["all"]
    room = free_bytes + held_bytes
    if need.high > room:
        likely = "" if need.value > room else "may "
        warnings.append(
            f"disk: {out} {likely}need{'' if likely else 's'} {size_of(need.value)} (up to {size_of(need.high)}), and "
            f"{size_of(free_bytes)} are free" + (f" beside {size_of(held_bytes)} of it" if held_bytes else "")
        )
    if short := [bucket.bucket for bucket in made.buckets if bucket.is_short()]:
        warnings.append(f"buckets that fill less than one shard: {', '.join(short)}")
    if facts.unsampled:
        warnings.append(f"no input of {', '.join(facts.unsampled)} is in the sample; a larger one has some")
    if facts.all_synthetic:
        notes.append("no input has a caption of its own: the mix will be all synthetic")
    if made.is_whole():
        notes.append(f"all {made.num_inputs:,} inputs were tried: counts and bytes are exact, no interval is needed")
    else:
        unseen = share_of(0, made.num_sampled, made.num_inputs)
        notes.append(f"a reason or a bucket that the sample does not show may have up to {unseen.high:,.0f} inputs")
        notes.append(_of_duplicates(made))
    if cpu_only := [job.table for job in facts.jobs if job.wants_gpu and not job.gpu_s]:
        notes.append(f"{', '.join(cpu_only)}: run on a CPU here; what a GPU would take is not forecast")
    if on_gpus := {job.job: job.gpu_hours for job in made.jobs if job.gpu_hours}:
        hours = sum(job.cpu_hours or 0 for job in made.jobs if job.job not in on_gpus)
        alone = ", ".join(f"sigma build --only {job} {hours:,.2f} GPU-hours" for job, hours in on_gpus.items())
        notes.append(f"in allocations of their own: {alone}; sigma build for the rest {hours:,.2f} CPU-hours")
    if held := [f"{job.table} {job.gpu_workers:,}" for job in facts.jobs if job.gpu_workers]:
        notes.append(f"the GPUs have room for so many workers at once, and no more are reckoned: {', '.join(held)}")
    referenced = [job.table for job in made.jobs if job.basis == REFERENCED]
    if referenced:
        notes.append(
            f"{', '.join(referenced)}: not measured but scaled by n log n from docs/benchmarks.md, where "
            f"{REFERENCE_CORES} busy cores of another machine did it"
        )
    if unknown := [job.table for job in made.jobs if job.basis == UNKNOWN]:
        notes.append(f"{', '.join(unknown)}: not forecast; the sample is too small to show how it grows")
    notes.append(
        "disk: what stays at the end, which is also the peak but for what DuckDB spills; while --redo makes shards "
        "anew the old ones are kept too"
    )
    return replace(made, warnings=warnings, notes=notes)


def _of_duplicates(made: Forecast) -> str:
    seen = (
        f"duplicates: both of a pair are seldom in a sample; it holds {counted(made.duplicate_pairs_in_sample, 'pair')}"
    )
    if made.duplicate_pairs is None:
        return f"{seen}, which is too few to say how many there are: survivors count every copy"
    pairs = made.duplicate_pairs
    return (
        f"{seen}, so the whole has about {pairs.value:,.0f} ({pairs.low:,.0f} to {pairs.high:,.0f}); survivors count "
        "every copy, and at most one falls per pair"
    )


def size_of(num_bytes: float) -> str:
    """Bytes in units of 1000: 950 B, 1.2 kB, 34.5 GB."""
    if not math.isfinite(num_bytes):
        return "any size"
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"
