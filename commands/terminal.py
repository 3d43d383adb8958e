"""What every command shares: the two consoles, the arguments, and one line for an error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

import recipes
from commands import interrupts
from commands.harmless import DataConsole
from schemas.files import place_of
from schemas.locations import for_datasets, on_disk

WIDEST = 1_000_000
"""The width of an output that is no terminal: nothing in a file or a pipe is cut to fit."""


def _console(stderr: bool) -> DataConsole:
    made = DataConsole(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made.width = WIDEST
    return made


console, complaints = _console(stderr=False), _console(stderr=True)


def found_recipe(name: Path) -> Path:
    """The recipe file that an argument names: a path, or the name of one that comes with Sigma."""
    with refusals():
        return recipes.find(on_disk(name))


RecipeFile = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE",
        callback=found_recipe,
        help="A data recipe: a YAML file, or the name of one that comes with Sigma, such as folder.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE...", help="Knobs of the recipe to set, by their dotted names: out=my-folder"),
]


Given = TypeVar("Given", Path | None, list[Path] | None, str)
Placed = TypeVar("Placed", Path | None, list[Path] | None)


def local(given: Given) -> Given:
    """The callback of every path that is written or read here."""
    with refusals():
        return [on_disk(path) for path in given] if isinstance(given, list) else given and on_disk(given)


def placed(given: Placed) -> Placed:
    """The callback of every dataset: its folder, or the one that means its address in a store."""
    with refusals():
        if isinstance(given, list):
            return [place_of(for_datasets(str(path))) for path in given]
        return given and place_of(for_datasets(str(given)))


DatasetFolder = Annotated[
    Path, typer.Argument(metavar="DATASET", help="A dataset folder, or its address in a store.", callback=placed)
]
Redo = Annotated[
    list[str] | None,
    typer.Option("--redo", metavar="JOB", help="Compute this job and what depends on it anew. May be repeated."),
]
TrainingFile = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE",
        callback=found_recipe,
        help="A training recipe: a YAML file, or the name of one that comes with Sigma, such as train_demo.",
    ),
]
StageName = Annotated[str | None, typer.Option("--stage", help="This stage only; the last trained one for sample.")]

Weights = Annotated[
    Path, typer.Argument(metavar="SRC", help="A .pth, a checkpoint, .safetensors or a folder.", callback=local)
]
Raw = Annotated[bool, typer.Option("--raw", help="Of a checkpoint the last weights, not their average.")]
NumHeads = Annotated[int | None, typer.Option(min=1, help="Needed where SRC does not say; else its width / 72.")]
ImageSize = Annotated[int | None, typer.Option(min=1, help="Needed where SRC does not say, px.")]
PeInterpolation = Annotated[float | None, typer.Option(help="Where it is not image size / 512.")]


def shown(text: str | Path) -> str:
    """A path or text for the console: never read as markup."""
    return escape(str(text))


UNCHANGED = "stopped; nothing was changed"
"""After Ctrl-C, from a command that only shows something."""


def drop_output() -> None:
    """Let nothing more come out, also not what waits to: as the process ends that would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def handler_of(console: Console, level: int = logging.NOTSET) -> logging.Handler:
    """What shows log messages on a console: of a dataset in a store its address, and no name is an order."""
    handler = logging.Handler(level)
    handler.emit = lambda record: console.print(handler.format(record), markup=False, soft_wrap=True)  # type: ignore[method-assign]
    return handler


@contextmanager
def refusals(if_stopped: str | None = None) -> Iterator[None]:
    """Turn what a user can mend into one line and exit status 1; a traceback only with --debug. `if_stopped`: the line
    after Ctrl-C, where the interrupt brings none; None is `interrupts.FINISHED_STAYS`."""
    interrupts.last_line = if_stopped
    from engine.preflight import NeedsMissing
    from engine.runner import PartFailed, describe

    try:
        yield
        sys.stdout.flush()  # as the process ends an error would be a traceback
    except BrokenPipeError:  # whoever reads this output has enough of it, as head does
        drop_output()
        raise typer.Exit(141) from None
    except (KeyboardInterrupt, RuntimeError, ValueError, OSError, PartFailed) as error:
        if isinstance(error, KeyboardInterrupt) or interrupts.came():
            why = (
                f"stopped; {error}"
                if isinstance(error, KeyboardInterrupt) and str(error)
                else interrupts.stopped_line()
            )
            complaints.print(why, markup=False, soft_wrap=True)
            raise typer.Exit(interrupts.exit_status()) from None
        if isinstance(error, RuntimeError) or os.environ.get("SIGMA_DEBUG"):
            raise
        lines = (
            error.lines
            if isinstance(error, NeedsMissing)
            else [str(error) if isinstance(error, PartFailed) else describe(error)]
        )
        for line in lines:
            complaints.print("[red]error:[/] ", end="")
            complaints.print(line, markup=False, soft_wrap=True)  # a command in it can be copied
        try:
            sys.stdout.flush()
        except OSError:
            drop_output()
        raise typer.Exit(1) from None
