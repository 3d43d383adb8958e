"""The sheets that `sigma stats` shows for a question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from captioning.figures.queries import noun_counts, realised_mix, refused_captions, table_1
from engine.reduce_job import Connection
from schemas.paper import TABLE_1
from schemas.tokens import MAX_TOKENS
from viewer.sheets import concepts
from viewer.sheets.compare import compare
from viewer.sheets.sheet import FORMATS, Sheet, Value


@dataclass(frozen=True)
class Question:
    """The options of `sigma stats`; without any it shows Table 1, the mix and the commonest nouns."""

    top: int = 15
    """The number of nouns or pairs to list."""
    form: str = "text"
    """One of `viewer.sheets.sheet.FORMATS`; other than text it writes one sheet alone."""
    compare: tuple[str, str] | None = None
    """Two caption sources side by side."""
    source: str = "mix"
    """The caption source of the questions below."""
    nouns: bool = False
    growth: bool = False
    pairs: bool = False


def shown_stats(
    connection: Connection, question: Question, valid_above: int, other: Connection | None = None
) -> Iterator[Table | str]:
    """Everything to print, in order: tables for a terminal, or one text in another form.

    Args:
        valid_above: as the recipe has it.
        other: another dataset; the sheet then lists the concepts gained and lost since.

    Raises:
        ValueError: there is no such form, there are two questions at once, or a source has no captions here.
    """
    if question.form not in FORMATS:
        raise ValueError(f"--format {question.form}: there are {', '.join(FORMATS)}")
    chosen = [bool(question.compare), other is not None, question.nouns, question.growth, question.pairs]
    if sum(chosen) > 1:
        raise ValueError("one question at a time: --compare, --against, --nouns, --growth or --pairs")
    sheet = _sheet(connection, question, valid_above, other)
    if question.form != "text":
        yield sheet.write(question.form)
        return
    yield sheet.text()
    if not any(chosen):
        mix = realised_mix(connection)
        yield format_mix(mix, refused_captions(connection))
        yield commonest_nouns(connection, question.top).text()


def _sheet(connection: Connection, question: Question, valid_above: int, other: Connection | None) -> Sheet:
    if question.compare:
        return compare(connection, *question.compare, valid_above)
    if other is not None:
        return concepts.against(connection, other, question.source, question.top)
    if question.nouns:
        return concepts.frequencies(connection, question.source, question.top)
    if question.growth:
        return concepts.growth(connection, question.source)
    if question.pairs:
        return concepts.pairs(connection, question.source, question.top)
    return table_1_sheet(table_1(connection))


def commonest_nouns(connection: Connection, top: int) -> Sheet:
    rows: list[tuple[Any, ...]] = list(noun_counts(connection, top))
    return Sheet("Commonest nouns", ("captions", "noun", "occurrences", "images"), rows)


def table_1_sheet(rows: Iterable[Mapping[str, Any]]) -> Sheet:
    """Table 1: the rows of the table `statistics`, and under them the paper's, marked as such."""
    headers = ("data set", "captions", "images", "VN", "DN", "nouns", "ACL words", "ACL tokens", "tokenizer",
               "per image")  # fmt: skip
    columns = ("caption_source", "num_images", "valid_nouns", "distinct_nouns", "total_nouns", "average_caption_words",
               "average_caption_tokens", "tokenizer", "average_nouns")  # fmt: skip
    ours: list[tuple[Value, ...]] = [
        ("this one" if row["subset"] is None else f"subset {row['subset']}", *(row[column] for column in columns))
        for row in rows
    ]
    papers: list[tuple[Value, ...]] = [
        (f"paper: {row.dataset}", row.caption, row.volume, row.valid_nouns, row.distinct_nouns, row.total_nouns,
         row.average_caption_words, None, None, row.average_nouns)
        for row in TABLE_1
    ]  # fmt: skip
    tokenizers = ", ".join(sorted({str(row[8]) for row in ours if row[8]})) or "no tokenizer yet"
    notes = (
        "VN and DN: valid and all distinct nouns. ACL: average caption length, in words and in tokens as the tokenizer "
        f"({tokenizers}) counts them. Rows that begin with paper: are printed in the PixArt-Σ paper; it counts words.",
    )
    title, left_out = "Nouns in the captions (Table 1)", frozenset({"tokenizer"})
    return Sheet(title, headers, [*ours, *papers], notes, num_quoted=len(papers), narrow=left_out)


def format_mix(mix: Mapping[str, Any], refused: Iterable[Mapping[str, Any]]) -> Table:
    """The captions of the mix, for a terminal: the realised ratio and the coin's, fallbacks, cuts, refused captions.
    `mix`: as `captioning.figures.queries.realised_mix` counts it. `refused`: as
    `captioning.figures.queries.refused_captions` counts it."""
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
