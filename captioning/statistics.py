"""The job `statistics`: Table 1 of the paper over the captions of a dataset, in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any

from curation.reduce import Connection, Reduce
from curation.report.figures import noun_counts, realised_mix, refused_captions
from schemas import recipe
from schemas.paper import TABLE_1
from schemas.tokens import MAX_TOKENS

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "SOURCES",
    "format_mix",
    "format_table1",
    "noun_counts",
    "realised_mix",
    "reduce",
    "refused_captions",
    "table_1_sql",
]

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


def format_mix(mix: Mapping[str, Any], refused: Iterable[Mapping[str, Any]]) -> Table:
    """What the mix came to, for a terminal: the realised ratio beside the coin's, fallbacks, cuts, refused captions.

    Args:
        mix: as `curation.report.figures.realised_mix` counts it.
        refused: as `curation.report.figures.refused_captions` counts it.
    """
    from rich.table import Table

    table = Table(title="The captions of the samples", title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("caption")
    table.add_column("what")
    table.add_column("images", justify="right")
    table.add_column("share", justify="right")
    num_mixed = mix["synthetic"] + mix["raw"]

    def add(caption: str, what: str, num: int) -> None:
        table.add_row(caption, what, f"{num:,}", f"{100 * num / num_mixed:.1f} %" if num_mixed else "-")

    add("synthetic", "in the mix", mix["synthetic"])
    add("synthetic", "said the coin", mix["coin_synthetic"])
    add("synthetic", "the raw one was missing", mix["raw_missing"])
    add("synthetic", "the raw one was refused", mix["raw_refused"])
    add("raw", "in the mix", mix["raw"])
    add("raw", "said the coin", num_mixed - mix["coin_synthetic"])
    add("raw", "the synthetic one was missing", mix["synthetic_missing"])
    add("raw", "the synthetic one was refused", mix["synthetic_refused"])
    add("both", f"cut to {MAX_TOKENS} tokens ({mix['tokenizer'] or 'not counted yet'})", mix["truncated"])
    add("none", "no caption is left", mix["without_caption"])
    for row in refused:
        add(row["caption_source"], f"none: {row['reason'].replace('_', ' ')}", row["num"])
    return table


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
