"""The order of the jobs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.files import shown_place

if TYPE_CHECKING:  # imported where they are used: the command starts fast
    from engine.dataset import Dataset
    from engine.job import Job
    from schemas.recipe import DataRecipe


def pipeline(recipe: DataRecipe) -> list[Job]:
    """Every step from raw images to shards, in order."""
    from captioning import balance, clean, ground, mix, nouns, recaption
    from captioning.figures import statistics
    from curation.dedup import dedup, fingerprint
    from curation.ingest import ingest
    from curation.scores import aesthetic, screen
    from curation.selection import select
    from curation.shards import plan as shard_plan
    from curation.shards import writer as shard_writer
    from engine.dataset import Dataset

    return [
        ingest.map_job(recipe),
        fingerprint.map_job(recipe),
        aesthetic.map_job(recipe),
        dedup.reduce_job(recipe),
        clean.map_job(recipe),
        *([screen.map_job(recipe)] if recipe.screen.columns() else []),
        select.reduce_job(recipe),
        *recaption.map_jobs(recipe),
        mix.map_job(recipe),
        nouns.map_job(recipe),
        *([ground.map_job(recipe)] if recipe.ground.enabled else []),
        statistics.count_nouns(recipe),
        statistics.reduce_job(recipe),
        *([balance.reduce_job(recipe)] if recipe.balance.most_images else []),
        shard_plan.reduce_job(recipe),
        shard_writer.map_job(recipe, Dataset(recipe.out_path())),
    ]


def steps_upto(recipe: DataRecipe, upto: str | None = None, redo: Iterable[str] | None = None) -> list[Job]:
    """The steps of the jobs up to one of them; without one, of all. Raises ValueError: the recipe leaves that job out
    or has an impossible subset, or `redo` names no job."""
    from curation.selection import subsets
    from schemas.recipe import JOBS

    upto = upto or JOBS[-1]
    asked = [("--redo ", job) for job in redo or ()] + [("", upto)]
    if unknown := [option + job for option, job in asked if job not in JOBS]:
        raise ValueError(f"{unknown[0]}: no such job; there are {', '.join(JOBS)}")
    if upto == "ground" and not recipe.ground.enabled:
        raise ValueError("ground.enabled is false; set ground.enabled=true, the job needs the weights of ground.clip")
    if upto == "screen" and not recipe.screen.columns():
        raise ValueError("no screen is on; set one, such as screen.sharpness=true")
    if upto == "balance" and recipe.balance.most_images is None:
        raise ValueError("balance.most_images is null; set one, such as balance.most_images=20000")
    subsets.check_subsets(recipe.select)
    wanted = JOBS[: JOBS.index(upto) + 1]
    return [step for step in pipeline(recipe) if step.job in wanted]


def opened(dataset: Path) -> tuple[Dataset, DataRecipe, list[Job]]:
    """A dataset, the recipe that made it, and the steps of that recipe. Copies of what is in a store are made where the
    dataset is opened: the scratch folder of the recipe may be that of another machine."""
    from engine import catalog
    from engine.dataset import Dataset
    from schemas.recipe import DataRecipe

    data = Dataset(dataset.absolute())
    catalog.require_dataset(data)
    made_by = DataRecipe.load(data.recipe, [f"out={shown_place(data.root)}", "run.scratch=null"])
    return data, made_by, pipeline(made_by)
