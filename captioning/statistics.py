"""The job `statistics`: Table 1 of the paper over the captions of a dataset, in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any

from curation.reduce import Connection, Reduce
from curation.report.figures import noun_counts
from schemas import recipe
from schemas.paper import TABLE_1

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["SOURCES", "format_table1", "noun_counts", "reduce", "table_1_sql"]

SOURCES = ("raw", "synthetic", "mix")
"""The caption sources of Table 1, in its order."""


def reduce(data_recipe: recipe.DataRecipe) -> Reduce:
    """The job as a reduce: reads `nouns` and `mix`, writes `statistics`, one row per caption source.

    Rows that were not kept have no nouns, so what is counted are the kept images that have a caption.
    """
    valid_above = data_recipe.statistics.valid_above
    return Reduce(
        job="statistics",
        output="statistics",
        inputs=("nouns", "mix"),
        query=partial(_query, valid_above),
        knobs={"statistics.valid_above": valid_above},
    )


def _query(valid_above: int, connection: Connection) -> str:
    return table_1_sql(valid_above)


def table_1_sql(valid_above: int) -> str:
    """The SELECT of Table 1 over the views `nouns` and `mix`.

    Args:
        valid_above: a distinct noun is valid when it occurs more often than this.
    """
    sql = resources.files("captioning").joinpath("statistics.sql").read_text(encoding="utf-8")
    return Template(sql).substitute(valid_above=int(valid_above))  # an integer is the only thing it can become


def format_table1(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Table 1 for a terminal: the rows of the table `statistics`, and under them the paper's, marked as such.

    VN and DN: valid and all distinct nouns; ACL: average caption length in words.
    """
    from rich.table import Table

    table = Table(title="Nouns in the captions (Table 1)", title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("data set")
    table.add_column("caption")
    for header in ("images", "VN/DN", "nouns", "ACL", "per image"):
        table.add_column(header, justify="right")
    for row in rows:
        table.add_row(
            "this one",
            str(row["caption_source"]),
            f"{row['num_images']:,}",
            f"{row['valid_nouns']:,}/{row['distinct_nouns']:,}",
            f"{row['total_nouns']:,}",
            _decimal(row["average_caption_words"]),
            _decimal(row["average_nouns"]),
        )
    for paper in TABLE_1:
        table.add_row(
            f"paper: {paper.dataset}",
            paper.caption,
            paper.volume,
            f"{paper.valid_nouns}/{paper.distinct_nouns}",
            paper.total_nouns,
            paper.average_caption_words,
            paper.average_nouns,
            style="dim",
        )
    return table


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
