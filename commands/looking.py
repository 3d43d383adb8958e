"""Commands that look at a dataset and change nothing."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from commands.evaluating import show_progress
from commands.harmless import write_plain
from commands.order import opened, pipeline
from commands.terminal import UNCHANGED, DatasetFolder, complaints, console, local, placed, refusals, shown
from schemas.files import shown_place

TERMINAL_ROWS = 1000
"""The most rows of a query that are shown on a terminal, unless a number is given."""
MOST_ROWS = 2**31 - 1
"""The largest number of rows that DuckDB's calls take everywhere."""


def status(dataset: DatasetFolder) -> None:
    """Show parts done per job, and the ledger."""
    from commands.tables import ledger_table, pace_cells, rows_table
    from engine import catalog
    from engine.dataset import Dataset
    from engine.ledger import counts_of
    from schemas.recipe import DataRecipe

    with refusals(UNCHANGED):
        data = Dataset(dataset.absolute())
        if data.is_evaluation:
            show_progress(data)
            return
        catalog.require_dataset(data)
        catalog.mend_catalog(data)
        held = data.held()
        data.refuse_lost_inputs(held)
        recipe = DataRecipe.load(data.recipe, [f"out={shown_place(data.root)}"])
        rows = []
        steps = pipeline(recipe)
        if held.listed("headers"):  # no build runs it: it is shown where there is something of it
            from curation.ingest import headers

            steps.insert(0, headers.map_job(recipe))
        for step in steps:
            total, missing, table = len(step.expected(held)), len(step.missing(held)), step.outputs[-1]
            rows.append((step.job, table, f"{total - missing:,} of {total:,}", *pace_cells(held, table, missing)))
        console.print(rows_table(["job", "table", "parts done", "rate", "time left"], rows))
        counts = counts_of(held)
        console.print(ledger_table(counts, sum(count for *_, count in counts)))


def stats(
    dataset: DatasetFolder,
    top: Annotated[int, typer.Option(min=1, help="How many nouns to list.")] = 15,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B", help="Two caption sources side by side: raw, synthetic, mix, or a captioner's name."
        ),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="Nouns gained and lost since another one.", callback=placed)
    ] = None,
    nouns: Annotated[bool, typer.Option("--nouns", help="Nouns with the share of captions that have them.")] = False,
    growth: Annotated[bool, typer.Option("--growth", help="Distinct nouns against the number of captions.")] = False,
    pairs: Annotated[bool, typer.Option("--pairs", help="Pairs of nouns in one caption.")] = False,
    source: Annotated[str, typer.Option(help="The caption source of the last four.")] = "mix",
    form: Annotated[str, typer.Option("--format", help="text, or one table as json, csv, markdown or latex.")] = "text",
) -> None:
    """Show the caption statistics: Table 1 with the paper's rows, the realised mix, and the commonest nouns."""
    from engine import catalog
    from engine.dataset import Dataset
    from schemas.recipe import DataRecipe
    from viewer.sheets.stats import Question, shown_stats

    with refusals(UNCHANGED), ExitStack() as open_until_then:
        data = Dataset(dataset.absolute())
        connection = open_until_then.enter_context(catalog.connect(data))
        other = open_until_then.enter_context(catalog.connect(Dataset(against.absolute()))) if against else None
        valid_above = DataRecipe.load(data.recipe, [f"out={shown_place(data.root)}"]).statistics.valid_above
        question = Question(top, form, compare, source, nouns, growth, pairs)
        for part in shown_stats(connection, question, valid_above, other):
            if isinstance(part, str):
                write_plain(part)
            else:
                console.print(part)


def sql(
    dataset: DatasetFolder,
    query: Annotated[str | None, typer.Argument(help="One SELECT.")] = None,
    tables: Annotated[
        bool, typer.Option("--tables", help="Print the views, their columns and what these mean.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0, max=MOST_ROWS, help="Most rows of a table; 1000 on a terminal, else all.", show_default=False
        ),
    ] = None,
    form: Annotated[
        Literal["table", "csv", "json", "parquet"], typer.Option("--format", help="How to print the rows.")
    ] = "table",
) -> None:
    """Query a dataset with SQL, read-only. Views: every table, and `ledger` with one row per input."""
    from commands.tables import columns_table, rows_table
    from engine import catalog, duck
    from engine.dataset import Dataset
    from engine.one_state import one_state
    from viewer.export import exported

    with refusals(UNCHANGED):
        if query is None and not tables:
            raise ValueError("give a query, or --tables to see what there is to query")
        if form == "parquet" and sys.stdout.isatty():
            raise ValueError("--format parquet is no text: send it to a file, with > rows.parquet behind the command")
        if form != "table" and limit is not None:
            raise ValueError(f"--limit is for tables; with --format {form} write LIMIT {limit} into the query")
        data = Dataset(dataset.absolute())
        reads = catalog.named_in(query or "")
        with one_state(data), catalog.connect_read_only(data, reads) as connection:
            if query is None and form == "table":
                console.print(columns_table(catalog.described_columns(connection)))
                return
            result = catalog.columns_query(connection) if query is None else duck.query(connection, query)
            if form != "table":
                for chunk in exported(result, form):
                    write_plain(chunk)
                return
            if limit is None and console.is_terminal:
                limit = TERMINAL_ROWS
            names = [column[0] for column in result.description or []]
            console.print(rows_table(names, result.fetchall() if limit is None else result.fetchmany(limit)))
            if result.fetchone():
                complaints.print(f"more than {limit:,} rows: the rest is not shown (--limit)")


def report(
    dataset: DatasetFolder, out: Annotated[Path | None, typer.Option(help="Where to write it.", callback=local)] = None
) -> None:
    """Write report.html: a dataset's funnel, statistics and captioned pictures, or an evaluation's results and
    samples."""
    with refusals(UNCHANGED):
        console.print(f"report: {shown(write_report_page(dataset.absolute(), out))}")


def write_report_page(dataset: Path, out: Path | None = None) -> Path:
    """Write the report of a dataset or an evaluation and return its path."""
    from curation.upkeep.doctor import memory_of
    from engine import catalog
    from engine.dataset import Dataset
    from engine.one_state import one_state
    from viewer.evaluation_report import write_evaluation_report
    from viewer.report import write_report

    data = Dataset(dataset)
    path = out or data.report
    if data.is_evaluation:
        write_evaluation_report(data, path)
        return path
    memory = memory_of(data)
    with one_state(data), catalog.connect(data, memory) as connection:
        write_report(connection, data.root, path, memory)
    return path


def browse(
    dataset: DatasetFolder,
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen on; only this machine reaches the default.")] = (
        "127.0.0.1"
    ),
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A name that browsers may ask for. May be repeated."),
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
) -> None:
    """Look at a dataset or an evaluation in a browser: search, filter, every row; models side by side. Read-only."""
    import webbrowser

    from engine.dataset import Dataset
    from viewer import server as pages
    from viewer.guard import is_loopback

    def ready(url: str) -> None:
        console.print(f"browse: {shown(url)}   (Ctrl-C ends it)")
        if not no_open:
            webbrowser.open(url)

    with refusals(UNCHANGED):
        if not is_loopback(host):
            complaints.print(
                f"warning: {shown(host)} can be reached from other machines, and nobody is asked who they are"
            )
        pages.serve(Dataset(dataset.absolute()), host, port, allow_host or [], ready)


def cuts(
    dataset: DatasetFolder,
    overrides: Annotated[list[str], typer.Argument(metavar="select.KEY=VALUE...", help="Thresholds to move.")],
    pictures: Annotated[
        int, typer.Option(min=0, max=MOST_ROWS, help="To name on each side of a moved threshold.")
    ] = 10,
    page: Annotated[Path | None, typer.Option("--html", help="Write a page that shows them.", callback=local)] = None,
) -> None:
    """Show what other thresholds would keep, from the tables alone; nothing is computed or changed."""
    from curation.selection import thresholds
    from viewer.thresholds import lines, write_page

    with refusals(UNCHANGED):
        data, made_by, _ = opened(dataset)
        found = thresholds.compare(data, made_by, thresholds.changed_recipe(made_by, overrides), pictures)
        for line in lines(found):
            console.print(line, markup=False, soft_wrap=True)
        if page is not None:
            write_page(data, found, page)
            console.print(f"page: {shown(page)}")
