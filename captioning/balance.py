"""The job `balance`: how much an image counts, so that images of common concepts do not drown the others."""

from __future__ import annotations

from captioning.figures.queries import read_sql
from engine.reduce_job import ReduceJob
from schemas.recipe import DataRecipe


def reduce_job(recipe: DataRecipe) -> ReduceJob:
    """The job as a reduce: writes `balance`, a row per kept image that has a caption. The weight is in the shards'
    index whatever is dropped, so that a trainer may draw by it instead."""
    most_images = recipe.balance.most_images
    assert most_images is not None, "the job runs only where it is set"
    drop = "true" if recipe.balance.drop else "false"
    return ReduceJob(
        job="balance",
        outputs=("balance",),
        inputs=("nouns", "mix", "noun_uses"),
        query=lambda _: read_sql("balance.sql", most_images=most_images, drop=drop),
        knobs={f"balance.{name}": value for name, value in recipe.balance.resolved().items()},
    )
