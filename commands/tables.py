"""Tables that a terminal shows: the rows of a query, the ledger, how far jobs are."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from commands.harmless import harmless
from engine.names import Held


def duration(seconds: float) -> str:
    """1.4 s, 3 min 12 s, 5 h 03 min."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def pace_cells(held: Held, table: str, missing: int) -> tuple[str, str]:
    """The rate at which a table's parts come and the time left, where somebody is at work on it."""
    if not missing:
        return "", ""
    from engine.pace import commit_times, pace

    at_work = pace(commit_times(held, table), missing, time.time())
    if at_work is None:
        return "", ""
    return f"{at_work.parts_per_s * 60:,.1f} parts/min", f"{duration(at_work.seconds_left)} left"


def ledger_table(counts: Iterable[tuple[str, str | None, str | None, int]], num_inputs: int) -> Table:
    """The ledger as a table whose last line is the sum."""
    table = Table(title="Ledger", title_justify="left", show_footer=True, box=None, pad_edge=False)
    table.add_column("outcome", "inputs")
    table.add_column("stage")
    table.add_column("reason")
    table.add_column("count", f"{num_inputs:,}", justify="right")
    style = {"kept": "green", "rejected": "yellow", "error": "red", "purged": "magenta", "pending": "dim"}
    for outcome, stage, reason, count in counts:
        table.add_row(outcome, stage or "", reason or "", f"{count:,}", style=style[outcome])
    return table


def rows_table(names: list[str], rows: Iterable[tuple[object, ...]]) -> Table:
    """The result of a query; texts of the data are shown as they are, never as markup."""
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(Text(harmless(name), style="bold"), overflow="fold")
    for row in rows:
        table.add_row(*(Text("NULL", style="dim") if value is None else Text(harmless(str(value))) for value in row))
    return table


def columns_table(rows: Iterable[tuple[str, str, str, str]]) -> Table:
    """(view, column, type, meaning) of columns, each view a heading above its own; as wide as the terminal allows."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="dim")
    table.add_column()
    heading = None
    for view, column, kind, text in rows:
        if view != heading:
            if heading is not None:
                table.add_row()
            table.add_row(Text(view, style="bold"))
            heading = view
        table.add_row(Text(f"  {column}"), Text(kind), Text(text))
    return table
