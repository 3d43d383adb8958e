"""The command `judge`: which of several models makes the better pictures, as a model or people see it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from commands.terminal import Overrides, complaints, console, found_recipe, local, refusals, shown

if TYPE_CHECKING:
    from evaluation.judge.people import Taken
    from evaluation.judge.results import Results


def judge(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", callback=found_recipe, help="A judge's recipe: a YAML file.")
    ],
    overrides: Overrides = None,
    page: Annotated[
        Path | None, typer.Option(help="Write a page on which people judge, and ask nobody.", callback=local)
    ] = None,
    answers: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Take what people have answered on the page. May be repeated.", callback=local
        ),
    ] = None,
) -> None:
    """Have a model behind a server, or people, judge pairs of pictures of the same prompts."""
    from commands.console import JobProgress
    from engine.dataset import Dataset
    from evaluation.judge.asking import ask
    from evaluation.judge.journal import Journal
    from evaluation.judge.pairs import find_pairs, questions_of
    from evaluation.judge.people import by_blind_id, take_answers
    from evaluation.judge.results import results
    from schemas.commit import write_bytes
    from schemas.judging import JudgeRecipe
    from viewer.preferences import write_blind_page, write_figure

    with refusals("stopped; what was answered stays, run the same command to go on"):
        made = JudgeRecipe.load(recipe, overrides or [])
        found = find_pairs(made)
        blind = by_blind_id(found.pairs)
        console.print(
            f"{len(found.pairs):,} pairs of {len(made.models)} models, of {found.num_prompts:,} of "
            f"{found.num_all:,} prompts"
        )
        if page is not None:
            write_blind_page(page, made, blind)
            console.print(f"page: {shown(page)} ({len(blind):,} pairs)   then sigma judge RECIPE --answers FILE")
            return
        data = Dataset(made.out_path())
        made.refuse_other(data.recipe)
        with data.lock(), JobProgress(console) as bar:
            data.sweep()
            journal, failures = Journal.of(data), dict[str, str]()
            for file in answers or ():
                _show_taken(file, take_answers(file, blind, journal))
            write_bytes(data.recipe, made.to_yaml().encode())
            if not answers:
                questions = [one for pair in found.different for one in questions_of(pair, made.aspects, made.judge)]
                bar.begin("judge", len(questions))
                failures = ask(made.judge, questions, journal, partial(bar.advance, "judge"))
            come = results(made, found.pairs, journal)
            come.write(data)
            write_figure(data.root / "preferences.svg", come.preferences)
        _show(come, data.root)
        if failures:
            raise ValueError(
                f"{len(failures):,} questions have no answer, for example: {next(iter(failures.values()))}; run the "
                "same command to ask them again"
            )


def _show_taken(file: Path, taken: Taken) -> None:
    num_new, num_known, refused = taken
    console.print(f"{shown(file)}: {num_new:,} answers, {num_known:,} known before, {len(refused):,} refused")
    for line in refused[:20]:
        complaints.print(f"  {line}", markup=False, soft_wrap=True)
    if len(refused) > 20:
        complaints.print(f"  and {len(refused) - 20:,} more")


def _percent(row: Mapping[str, Any], *names: str) -> str:
    """Shares in percent: a value, or a value and its interval."""
    if row.get(names[0]) is None:
        return "-"
    value, *limits = (f"{100 * row[name]:.1f}" for name in names)
    return value + (f" ({limits[0]} to {limits[1]})" if limits else "")


def _show(come: Results, root: Path) -> None:
    """The preferences in percent, the strengths, and what makes them doubtful."""
    columns = ("models", "aspect", "judge", "pairs", "win rate, %", "wins / decided", "tied", "position", "unparsed",
               "refused", "lean")  # fmt: skip
    table = Table(*columns, box=None, pad_edge=False)
    for row in come.preferences:
        table.add_row(
            Text(f"{row['model_a']} : {row['model_b']}"),
            row["aspect"],
            Text(row["judge"]),
            f"{row['num_pairs']:,}",
            _percent(row, "win_rate", "low", "high"),
            _percent(row, "decided", "decided_low", "decided_high"),
            *(_percent(row, f"share_{name}") for name in ("tied", "position", "unparsed", "refused")),
            _percent(row, "lean", "lean_low", "lean_high"),
        )
    console.print(table)
    for row in come.preferences:
        if row["reason"]:
            console.print(f"{row['model_a']} : {row['model_b']}, {row['aspect']}: {row['reason']}", markup=False)
    for (aspect, judge), rows in groupby(come.strengths, lambda row: (row["aspect"], row["judge"])):
        found = list(rows)
        values = ", ".join(f"{row['model']} {row['strength'] or 0:+.3f}" for row in found)
        console.print(f"strengths on {aspect} by {judge}: {found[0]['reason'] or values}", markup=False, soft_wrap=True)
    for warning in come.warnings():
        console.print(Text(warning, style="red"), soft_wrap=True)
    console.print(f"tables: {shown(root / 'tables')}   figure: {shown(root / 'preferences.svg')}", soft_wrap=True)
