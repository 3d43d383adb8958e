"""The list of the commands. What each one does is in the other files of this folder."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from copy import copy
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_command_name
from typer.models import CommandInfo

from commands import (
    ablating,
    building,
    evaluating,
    evaluation_set,
    exporting,
    judging,
    keeping,
    learning,
    looking,
    planning,
    showing,
    weights,
)
from commands.terminal import complaints, console, drop_output, handler_of

_UsageError: Any = typer.BadParameter.__base__  # its place differs between releases of typer


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """See `TyperGroup.invoke`: where a setting is typed as an option, the error says how it is written."""
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            is_unknown, context = hasattr(error, "possibilities"), error.ctx
            if is_unknown and context and any(each.name == "overrides" for each in context.command.params):
                error.message += f"; a setting is written {error.option_name.lstrip('-')}=VALUE"
            raise


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Raw photos to a PixArt-Σ-style dataset, and the trainer that learns from it.\n\n"
    "Start with [bold]sigma demo[/], or with your own folder:\n\n"
    "  sigma build folder images=~/Pictures out=my-dataset",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        console.print(f"sigma {metadata.version('sigma-pipeline')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ["SIGMA_DEBUG"] = "1"
    try:
        Path.cwd()
    except FileNotFoundError:  # libraries that load or look for files answer it with anything
        complaints.print("[red]error:[/] the folder that you are in is gone; cd to another one, then run this again")
        raise typer.Exit(1) from None


SINGLE = "Single jobs (each brings what it needs up to date first)"

app.command()(building.build)
app.command()(planning.plan)
app.command(rich_help_panel=SINGLE)(building.ingest)
app.command(rich_help_panel=SINGLE)(building.caption)
app.command(rich_help_panel=SINGLE)(building.nouns)
for _job, _what in building.JOB_COMMANDS.items():
    app.command(_job, rich_help_panel=SINGLE, help=_what)(building.job_command(_job))
for _command in (
    looking.status,
    looking.stats,
    looking.sql,
    looking.report,
    looking.browse,
    keeping.doctor,
    looking.cuts,
    keeping.purge,
    building.work,
    building.recipe,
    learning.index,
    learning.encode,
    learning.train,
    learning.sample,
    learning.convert,
    exporting.export,
    exporting.export_report,
    evaluating.evaluate,
    evaluation_set.evaluate_set,
    judging.judge,
    ablating.ablate,
    showing.demo,
):
    app.command()(_command)

app.add_typer(weights.weights, name="weights")
captioners = typer.Typer(no_args_is_help=True, help="Check a captioner's weights.")
app.add_typer(captioners, name="captioner")
captioners.command()(learning.validate)


@captioners.callback()
def captioner_commands() -> None:
    """Keeps `validate` a command of its own while it is the only one."""


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Last resort for a defect of ours: say so in one line, the traceback only with --debug."""
    if os.environ.get("SIGMA_DEBUG"):
        sys.__excepthook__(kind, error, trace)
        return
    if isinstance(error, OSError):  # of what is printed before a command begins
        complaints.print(f"error: {error}", markup=False)
        drop_output()
        return
    complaints.print(f"internal error: {kind.__name__}: {error}", markup=False)
    complaints.print("This is a defect of sigma, not of your data; sigma --debug COMMAND shows where it happened.")


def asked_for(words: Iterable[str]) -> typer.Typer:
    """The commands without those that the words do not name, if they name one: to read what each of them takes lasts
    longer than many a command does."""
    named = next((word for word in words if not word.startswith("-")), None)
    commands = [found for found in app.registered_commands if named == _name(found)]
    groups = [found for found in app.registered_groups if named == found.name]
    if not (commands or groups):
        return app
    one = copy(app)
    one.registered_commands, one.registered_groups = commands, groups
    return one


def _name(command: CommandInfo) -> str:
    return command.name or get_command_name(getattr(command.callback, "__name__", ""))


def run() -> None:
    """Run the command that was typed; ends with SystemExit."""
    sys.excepthook = _one_line
    logging.lastResort = handler_of(complaints, logging.WARNING)
    get_command(asked_for(sys.argv[1:]))()
