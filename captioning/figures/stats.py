"""What `sigma stats` shows: which sheets of figures a question asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from captioning.figures import concepts, statistics
from captioning.figures.compare import compare
from captioning.figures.sheet import FORMATS, Sheet
from curation.report.figures import table_1
from engine.reduce import Connection


@dataclass(frozen=True)
class Question:
    """What is asked of `sigma stats`; nothing asked is Table 1, the mix and the commonest nouns."""

    top: int = 15
    """How many nouns or pairs to list."""
    form: str = "text"
    """One of `captioning.figures.sheet.FORMATS`; other than text it writes one sheet alone."""
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
    """What to print, in order: tables for a terminal, or one text in another form.

    Args:
        valid_above: as the recipe has it.
        other: another dataset, to be asked which concepts were gained and lost since.

    Raises:
        ValueError: there is no such form, two questions at once, or a source has no captions here.
    """
    if question.form not in FORMATS:
        raise ValueError(f"--format {question.form}: there are {', '.join(FORMATS)}")
    asked = [bool(question.compare), other is not None, question.nouns, question.growth, question.pairs]
    if sum(asked) > 1:
        raise ValueError("one question at a time: --compare, --against, --nouns, --growth or --pairs")
    sheet = _sheet(connection, question, valid_above, other)
    if question.form != "text":
        yield sheet.write(question.form)
        return
    yield sheet.text()
    if not any(asked):
        mix = statistics.realised_mix(connection)
        yield statistics.format_mix(mix, statistics.refused_captions(connection))
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
    return statistics.table_1_sheet(table_1(connection))


def commonest_nouns(connection: Connection, top: int) -> Sheet:
    """The most frequent nouns of each caption source."""
    rows: list[tuple[Any, ...]] = list(statistics.noun_counts(connection, top))
    return Sheet("Commonest nouns", ("captions", "noun", "occurrences", "images"), rows)
