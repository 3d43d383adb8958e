"""The job `balance`: how much an image counts, so that images of common concepts do not drown the others."""

from __future__ import annotations

from captioning.figures.queries import read_sql
from engine.duck import Connection
from engine.reduce_job import ReduceJob
from schemas.recipe import DataRecipe

_COMMON = """
CREATE OR REPLACE TEMPORARY TABLE common AS
SELECT noun, round(ln(1 - {most_images} / num_images) * 1099511627776)::BIGINT AS log_missed
FROM noun_uses
WHERE subset IS NULL AND caption_source = 'mix' AND num_images > {most_images}
"""
"""Nouns that more than that many images have. What is added up for an image is a whole number of 2^-40, so that the sum
does not depend on its order."""


def reduce_job(recipe: DataRecipe) -> ReduceJob:
    """The job as a reduce: writes `balance`, a row per kept image that has a caption. The weight is in the shards'
    index whatever is dropped, so that a trainer may draw by it instead."""
    most_images = recipe.balance.most_images
    assert most_images is not None, "the job runs only where it is set"
    drop = "true" if recipe.balance.drop else "false"

    def weigh(connection: Connection) -> str:
        connection.execute(_COMMON.format(most_images=most_images))
        return read_sql("balance.sql", drop=drop)

    return ReduceJob(
        job="balance",
        outputs=("balance",),
        inputs=("nouns", "mix", "noun_uses"),
        query=weigh,
        knobs={f"balance.{name}": value for name, value in recipe.balance.resolved().items()},
        by_parts=True,
    )
