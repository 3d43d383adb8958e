"""What `sigma stats` shows: which sheets of figures a question asks for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from captioning import statistics
from captioning.compare import compare
from captioning.sheet import FORMATS, Sheet
from curation.reduce import Connection
from curation.report.figures import table_1


def shown_stats(
    connection: Connection, *, top: int, form: str, compared: tuple[str, str] | None, valid_above: int
) -> Iterator[Table | str]:
    """What to print, in order: tables for a terminal, or one text in another form.

    Args:
        top: how many nouns to list per caption source; in a terminal only.
        form: one of `captioning.sheet.FORMATS`; other than text it writes Table 1, or the comparison, alone.
        compared: two caption sources to put side by side, in place of Table 1.
        valid_above: as the recipe has it.

    Raises:
        ValueError: there is no such form, or a source has no captions here.
    """
    if form not in FORMATS:
        raise ValueError(f"--format {form}: there are {', '.join(FORMATS)}")
    sheet = compare(connection, *compared, valid_above) if compared else statistics.table_1_sheet(table_1(connection))
    if form != "text":
        yield sheet.write(form)
        return
    yield sheet.text()
    if not compared:
        mix = statistics.realised_mix(connection)
        yield statistics.format_mix(mix, statistics.refused_captions(connection))
        yield commonest_nouns(connection, top).text()


def commonest_nouns(connection: Connection, top: int) -> Sheet:
    """The most frequent nouns of each caption source."""
    rows: list[tuple[Any, ...]] = list(statistics.noun_counts(connection, top))
    return Sheet("Commonest nouns", ("captions", "noun", "occurrences", "images"), rows)
