"""The order of the jobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schemas.recipe import DataRecipe

if TYPE_CHECKING:  # imported where they are used: the command starts fast
    from engine.dataset import Dataset
    from engine.job import Job


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
        ingest.stage(recipe),
        fingerprint.stage(recipe),
        aesthetic.stage(recipe),
        dedup.reduce(recipe),
        clean.stage(recipe),
        *([screen.stage(recipe)] if recipe.screen.columns() else []),
        select.reduce(recipe),
        *recaption.stages(recipe),
        mix.stage(recipe),
        nouns.stage(recipe),
        *([ground.stage(recipe)] if recipe.ground.enabled else []),
        statistics.count_nouns(recipe),
        statistics.reduce(recipe),
        *([balance.reduce(recipe)] if recipe.balance.most_images else []),
        shard_plan.reduce(recipe),
        shard_writer.stage(recipe, Dataset(recipe.out_path())),
    ]


def opened(dataset: Path) -> tuple[Dataset, DataRecipe, list[Job]]:
    """A dataset, the recipe that made it, and the steps of that recipe."""
    from engine import catalog
    from engine.dataset import Dataset

    data = Dataset(dataset.absolute())
    catalog.require_dataset(data)
    made_by = DataRecipe.load(data.recipe, [f"out={data.root}"])
    return data, made_by, pipeline(made_by)
