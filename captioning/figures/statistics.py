"""The job `statistics`: Table 1 of the paper over the captions of a dataset, in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from captioning.figures.compare import read_sql
from captioning.figures.sheet import Sheet, Value
from curation.report.figures import noun_counts, realised_mix, refused_captions
from engine.reduce import Reduce
from schemas import recipe
from schemas.paper import TABLE_1
from schemas.tokens import MAX_TOKENS

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "count_nouns",
    "format_mix",
    "noun_counts",
    "noun_uses_sql",
    "realised_mix",
    "reduce",
    "refused_captions",
    "table_1_sheet",
    "table_1_sql",
]


def count_nouns(data_recipe: recipe.DataRecipe) -> Reduce:
    """The first half of the job: writes `noun_uses`. The recipe has no knob for it."""
    return Reduce(
        job="statistics",
        output="noun_uses",
        inputs=("nouns", "mix", "selection"),
        query=lambda _: noun_uses_sql(),
        knobs={},
    )


def reduce(data_recipe: recipe.DataRecipe) -> Reduce:
    """The second half: writes `statistics`, one row per caption source for the whole set and for each subset.

    Rows that were not kept have no nouns, so what is counted are the kept images that have a caption.
    """
    valid_above = data_recipe.statistics.valid_above
    return Reduce(
        job="statistics",
        output="statistics",
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


def table_1_sheet(rows: Iterable[Mapping[str, Any]]) -> Sheet:
    """Table 1: the rows of the table `statistics`, and under them the paper's, marked as such."""
    headers = (
        "data set",
        "captions",
        "images",
        "VN",
        "DN",
        "nouns",
        "ACL words",
        "ACL tokens",
        "tokenizer",
        "per image",
    )
    ours: list[tuple[Value, ...]] = [
        (
            f"subset {row['subset']}" if row["subset"] is not None else "this one",
            row["caption_source"],
            row["num_images"],
            row["valid_nouns"],
            row["distinct_nouns"],
            row["total_nouns"],
            row["average_caption_words"],
            row["average_caption_tokens"],
            row["tokenizer"],
            row["average_nouns"],
        )
        for row in rows
    ]
    papers: list[tuple[Value, ...]] = [
        (
            f"paper: {row.dataset}",
            row.caption,
            row.volume,
            row.valid_nouns,
            row.distinct_nouns,
            row.total_nouns,
            row.average_caption_words,
            None,
            None,
            row.average_nouns,
        )
        for row in TABLE_1
    ]
    notes = (
        "VN and DN: valid and all distinct nouns. ACL: average caption length, in words and in tokens as the tokenizer "
        "named counts them. Rows that begin with paper: are printed in the PixArt-Σ paper, which counts words.",
    )
    return Sheet("Nouns in the captions (Table 1)", headers, [*ours, *papers], notes, num_quoted=len(papers))


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
