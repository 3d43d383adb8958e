"""The job `statistics`: Table 1 of the paper over the captions of a dataset, in SQL."""

from __future__ import annotations

from captioning.figures.queries import read_sql
from engine.reduce_job import ReduceJob
from schemas import recipe


def count_nouns(data_recipe: recipe.DataRecipe) -> ReduceJob:
    """The first half of the job: writes `noun_uses`. The recipe has no knob for it."""
    return ReduceJob(
        job="statistics",
        outputs=("noun_uses",),
        inputs=("nouns", "mix", "selection"),
        query=lambda _: noun_uses_sql(),
        knobs={},
    )


def reduce_job(data_recipe: recipe.DataRecipe) -> ReduceJob:
    """The second half: writes `statistics`, one row per caption source for the whole set and for each subset.

    Rows that were not kept have no nouns, so what is counted are the kept images that have a caption.
    """
    valid_above = data_recipe.statistics.valid_above
    return ReduceJob(
        job="statistics",
        outputs=("statistics",),
        inputs=("noun_uses", "nouns", "mix", "selection"),
        query=lambda _: table_1_sql(valid_above),
        knobs={"statistics.valid_above": valid_above},
    )


def noun_uses_sql() -> str:
    """The SELECT of `noun_uses` over the views of a dataset."""
    return read_sql("noun_uses.sql", subsets=read_sql("subsets.sql"))


def table_1_sql(valid_above: int) -> str:
    """The SELECT of Table 1 over the views of a dataset.

    Args:
        valid_above: a distinct noun is valid when it occurs more often than this.
    """
    return read_sql("table_1.sql", subsets=read_sql("subsets.sql"), valid_above=int(valid_above))
