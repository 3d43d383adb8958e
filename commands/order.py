"""The order of the jobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schemas.recipe import DataRecipe

if TYPE_CHECKING:  # imported where they are used: the command starts fast
    from engine.dataset import Dataset
    from engine.job import Step


def pipeline(recipe: DataRecipe) -> list[Step]:
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
    from engine.job import Step

    return [
        Step(ingest.stage(recipe)),
        Step(fingerprint.stage(recipe)),
        Step(aesthetic.stage(recipe)),
        Step(dedup.reduce(recipe)),
        Step(clean.stage(recipe)),
        *([Step(screen.stage(recipe))] if recipe.screen.columns() else []),
        Step(select.reduce(recipe)),
        *map(Step, recaption.stages(recipe)),
        Step(mix.stage(recipe)),
        Step(nouns.stage(recipe)),
        *([Step(ground.stage(recipe))] if recipe.ground.enabled else []),
        Step(statistics.count_nouns(recipe)),
        Step(statistics.reduce(recipe)),
        *([Step(balance.reduce(recipe))] if recipe.balance.most_images else []),
        Step(shard_plan.reduce(recipe)),
        Step(shard_writer.stage(recipe, Dataset(recipe.out_path()))),
    ]


def opened(dataset: Path) -> tuple[Dataset, DataRecipe, list[Step]]:
    """A dataset, the recipe that made it, and the steps of that recipe."""
    from engine import catalog
    from engine.dataset import Dataset

    data = Dataset(dataset.absolute())
    catalog.require_dataset(data)
    made_by = DataRecipe.load(data.recipe, [f"out={data.root}"])
    return data, made_by, pipeline(made_by)
