"""Commands that keep a dataset sound: check it, mend it, take images out."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from commands.order import opened
from commands.terminal import DatasetFolder, console, local, placed, refusals, shown


def doctor(
    dataset: Annotated[
        Path | None, typer.Argument(metavar="DATASET", help="Without one, this machine.", callback=placed)
    ] = None,
    mend: Annotated[bool, typer.Option("--repair", help="Make again what is broken, and nothing else.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Files that are looked at at once.")] = os.cpu_count() or 1,
) -> None:
    """Check this machine, or every file of a dataset."""
    from commands.console import JobProgress
    from curation.upkeep import doctor as checks
    from curation.upkeep.machine import check_machine
    from curation.upkeep.repair import repair

    with refusals():
        if mend and dataset is None:
            raise ValueError("--repair mends a dataset: name its folder")
        with JobProgress(console) as bar:
            if mend and dataset is not None:
                _, made_by, steps = opened(dataset)
                for line in repair(made_by, steps, bar):
                    console.print(line, markup=False, soft_wrap=True)
            if dataset is not None:
                root = dataset.absolute()
                bar.begin("doctor", checks.num_to_check(root))
                findings = checks.check_dataset(root, threads, partial(bar.advance, "doctor"))
                bar.end("doctor", None)
            else:
                findings = check_machine()
        for finding in findings:
            mark = "[green]ok[/] " if finding.fine else "[red]bad[/]"
            console.print(f"{mark} {shown(finding.subject)}: {shown(finding.text)}")
        if not all(finding.fine for finding in findings):
            raise typer.Exit(1)


def purge(
    dataset: DatasetFolder,
    why: Annotated[str | None, typer.Option(help="Goes into the log and the ledger; needed.")] = None,
    image_id: Annotated[
        list[str] | None, typer.Option(help="Or its first 8 or more digits. May be repeated, as every selector.")
    ] = None,
    sha256: Annotated[list[str] | None, typer.Option(help="Of the original bytes.")] = None,
    url: Annotated[list[str] | None, typer.Option(help="Exactly.")] = None,
    domain: Annotated[list[str] | None, typer.Option(help="Of the URL, and all its subdomains.")] = None,
    phash: Annotated[list[str] | None, typer.Option(help="16 hex digits; pictures within --distance bits.")] = None,
    distance: Annotated[int, typer.Option(help="Of --phash, in bits.")] = 0,
    duplicates: Annotated[bool, typer.Option("--duplicates", help="Near doubles of a match go too.")] = False,
    features: Annotated[
        list[Path] | None, typer.Option(help="Stored features that lie outside the dataset.", callback=local)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go; change nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Only finish a takedown that was interrupted.")] = False,
) -> None:
    """Take images out for good: of tables, captions, shards and features. They are never ingested again."""
    from curation.upkeep import purge as takedowns
    from curation.upkeep.find import Wanted
    from schemas.files import kept, shown_place
    from schemas.recipe import DataRecipe

    with refusals():
        hashes = (tuple(image_id or ()), tuple(sha256 or ()), tuple(url or ()), tuple(domain or ()), tuple(phash or ()))
        wanted = None if resume else Wanted(*hashes, distance=distance, duplicates=duplicates)
        data, made_by, steps = opened(dataset)
        if wanted is not None and not dry_run and not (why and why.strip()):
            raise ValueError("--why is missing: the log says why an image was taken out")
        lines = takedowns.show_and_purge(data, steps, wanted, why or "", features or [], dry_run, made_by.run)
        for line in lines:
            console.print(line, markup=False, soft_wrap=True)
        built_in = DataRecipe.load(data.recipe, [f"out={shown_place(data.root)}"]).out_path()
        if built_in != data.root and (keeper := kept(built_in)) is not None:
            keeper.tree(built_in)  # which deletes the copies, in run.scratch, of what is no more
