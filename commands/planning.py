"""The command that forecasts a build from a sample, and how its forecast is shown."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from commands.harmless import write_plain
from commands.order import pipeline
from commands.terminal import Overrides, RecipeFile, complaints, console, local, refusals, shown
from schemas.files import address_of, shown_place
from schemas.texts import counted

if TYPE_CHECKING:  # imported where they are used: the command starts fast
    from curation.forecast.forecast import Estimate, Forecast
    from schemas.recipe import DataRecipe
    from viewer.sheets.sheet import Sheet


def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    sample: Annotated[int, typer.Option("--sample", help="Inputs to try the recipe on.")] = 500,
    workers: Annotated[int | None, typer.Option(min=1, help="Also give the time that so many workers take.")] = None,
    keep: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep the sample's dataset, to look at it.", callback=local)
    ] = None,
    form: Annotated[Literal["text", "json", "markdown"], typer.Option("--format", help="How to print it.")] = "text",
) -> None:
    """Forecast a build from a sample: survivors, disk, hours per job, shards per bucket. Leaves `out` alone."""
    from schemas.recipe import DataRecipe

    with refusals("stopped; nothing was forecast" + ("" if keep else ", and nothing is left of the sample")):
        made = forecast_build(DataRecipe.load(recipe, overrides or []), sample, workers, keep)
        if form == "json":
            sys.stdout.write(json.dumps(as_json(made), ensure_ascii=False, indent=1) + "\n")
        elif form == "markdown":
            for sheet in sheets(made):
                write_plain(f"## {sheet.title}\n\n{sheet.write('markdown')}\n")
            write_plain("".join(f"- {line}\n" for line in [*_warned(made), *made.notes]))
        else:
            for sheet in sheets(made):
                console.print(sheet.text())
                console.print()
            for line in _warned(made):
                console.print(f"[yellow]{shown(line)}[/]")
            for line in made.notes:
                console.print(line, markup=False)
        if keep is not None:
            complaints.print(f"the sample's dataset: {shown(keep)}")
        if not made.survivors.value:
            raise ValueError(
                f"nothing survives: none of {made.num_sampled:,} sampled inputs passes every rule; the reasons are "
                "above: loosen the recipe's select section"
            )


def forecast_build(recipe: DataRecipe, size: int, workers: int | None, keep: Path | None) -> Forecast:
    """Build a sample of a recipe aside and project it; progress goes to stderr."""
    from commands.console import JobProgress
    from curation.forecast.facts import facts_of
    from curation.forecast.forecast import forecast, with_remarks
    from curation.forecast.sample import build_sample, sampled
    from curation.selection import subsets
    from engine.preflight import check_needs

    subsets.check_subsets(recipe.select)
    check_needs(pipeline(recipe))  # of listing the whole nothing would be left
    out = recipe.out_path()
    with sampled(recipe, size, keep) as sample:
        steps = pipeline(sample.recipe)
        with JobProgress(complaints) as progress:
            build_sample(sample, steps, progress)
        facts = facts_of(sample, steps)
    usual = 1 if recipe.run.runner == "local" else recipe.run.workers or os.cpu_count() or 1
    at_once = sorted({usual, workers or usual})
    made = forecast(facts, recipe.shard.megabytes, recipe.shard.max_samples, at_once)
    room = (sys.maxsize, 0) if address_of(out) else (shutil.disk_usage(_existing(out)).free, _held(out))
    return with_remarks(made, facts, *room, shown_place(out))


def sheets(made: Forecast) -> list[Sheet]:
    """The forecast as tables: outcomes, disk, jobs, buckets."""
    from viewer.sheets.sheet import Sheet

    tried = "all of them tried" if made.is_whole() else f"forecast from {made.num_sampled:,} of them"
    what = f"{counted(made.num_inputs, 'input')}, {tried}"
    return [
        Sheet(what, ("outcome", "reason", "in sample", "inputs", "95 % interval"), _outcome_rows(made)),
        Sheet("Disk", ("what", "size", "95 % interval"), _disk_rows(made)),
        Sheet(
            "Jobs",
            ("job", "table", "CPU-hours", "GPU-hours", *_time_headers(made), "loading", "how"),
            _job_rows(made),
        ),
        Sheet(
            "Shards",
            ("bucket", "in sample", "images", "95 % interval", "median kB", "shards", "about"),
            _bucket_rows(made),
        ),
    ]


def as_json(made: Forecast) -> dict[str, object]:
    """Every number of a forecast; an interval without an end has null there."""
    values = asdict(made)

    def finite(value: object) -> object:
        if isinstance(value, dict):
            return {str(key): finite(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [finite(each) for each in value]
        return None if value == float("inf") else value

    return {name: finite(value) for name, value in values.items()}


def _outcome_rows(made: Forecast) -> list[tuple[str, str, int, int, str]]:
    kept = "kept" if made.is_whole() else "kept, copies counted"
    seen = made.num_sampled - sum(row.in_sample for row in made.outcomes)
    rows = [(kept, "", seen, round(made.survivors.value), _interval(made.survivors))]
    return rows + [
        (row.outcome, row.reason or "", row.in_sample, round(row.inputs.value), _interval(row.inputs))
        for row in made.outcomes
    ]


def _disk_rows(made: Forecast) -> list[tuple[str, str, str]]:
    from curation.forecast.forecast import size_of

    return [
        (name, size_of(size.value), "" if size.low == size.high else f"{size_of(size.low)} to {size_of(size.high)}")
        for name, size in made.disk.items()
    ]


def _time_headers(made: Forecast) -> list[str]:
    numbers = sorted({number for job in made.jobs for number in job.wall_s})
    return [f"at {counted(number, 'worker')}" for number in numbers]


def _job_rows(made: Forecast) -> list[tuple[str | float | None, ...]]:
    from commands.tables import duration

    numbers = sorted({number for job in made.jobs for number in job.wall_s})
    rows: list[tuple[str | float | None, ...]] = []
    for job in made.jobs:
        times = (duration(job.wall_s[number]) if job.wall_s else "" for number in numbers)
        hours = (_hours(job.cpu_hours), _hours(job.gpu_hours))
        rows.append(
            (job.job, job.table, *hours, *times, f"{job.start_s:.1f} s" if job.start_s >= 0.05 else "", job.basis)
        )
    sums = (_hours(sum(getattr(job, what) or 0 for job in made.jobs)) for what in ("cpu_hours", "gpu_hours"))
    walls = (duration(sum(job.wall_s.get(number, 0) for job in made.jobs)) for number in numbers)
    return [*rows, ("all", "", *sums, *walls, "", "")]


def _bucket_rows(made: Forecast) -> list[tuple[str | int | float | None, ...]]:
    return [
        (
            row.bucket,
            row.in_sample,
            round(row.images.value),
            _interval(row.images),
            round(row.median_bytes / 1000),
            round(row.shards.value),
            _interval(row.shards),
        )
        for row in made.buckets
    ]


def _interval(found: Estimate) -> str:
    return "" if found.low == found.high else f"{found.low:,.0f} to {found.high:,.0f}"


def _hours(hours: float | None) -> str:
    """Hours; of what is over in a moment the seconds."""
    if not hours:
        return ""
    if hours < 0.01:
        return f"{hours * 3600:.1f} s"
    return f"{hours:,.2f}" if hours < 100 else f"{hours:,.0f}"


def _warned(made: Forecast) -> list[str]:
    return [f"warning: {line}" for line in made.warnings]


def _existing(path: Path) -> Path:
    """The folder, or the nearest above it that is there: on the same disk."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _held(out: Path) -> int:
    """Bytes of the tables and shards that are there already."""
    files = (path for name in ("tables", "shards") for path in (out / name).rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files)
