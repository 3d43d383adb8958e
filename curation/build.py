"""Run the jobs of a recipe in order on one dataset: preflight, lock, list, then the jobs, whose parts flow from one to
the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curation.ingest.takedown_log import refuse_unfinished
from engine import catalog, flow
from engine.dataset import Dataset
from engine.job import Job
from engine.ledger import LedgerCount, counts_of, remember_counts
from engine.names import Held
from engine.old_layout import bring_up_to_date
from engine.preflight import check_needs
from engine.reduce_job import explaining_memory
from engine.run_log import JobResult
from engine.runner import LazyRunner
from engine.steps import run_steps, to_run
from schemas.commit import write_bytes
from schemas.files import delete_files, is_file
from schemas.late import late
from schemas.recipe import DataRecipe
from schemas.strict import DUCKDB_MEMORY

with late(__name__):
    from curation.ingest import listing, retry


class Observer(flow.Observer):
    """What follows a build."""

    def listed(self, found: listing.Listed) -> None:
        """The inputs are known."""

    def retried(self, rows: int) -> None:
        """This many inputs that had failed were fetched again."""


@dataclass(frozen=True)
class Built:
    results: list[JobResult]
    """Jobs that had something to do."""
    counts: list[LedgerCount]
    """(outcome, stage, reason, count) over the ledger."""
    num_inputs: int


def build(
    recipe: DataRecipe,
    steps: Sequence[Job],
    observer: Observer | None = None,
    redo: frozenset[str] = frozenset(),
    retry_failed: bool = False,
) -> Built:
    """Bring the steps up to date; with `retry_failed` fetch first again what failed for a passing reason.

    Raises:
        NeedsMissing: something that a job will load is not on this machine; nothing was written.
        ValueError: the dataset was made by another recipe, is being written by another process, or no image is left.
        PartFailed: a part could not be computed.
        OSError: the dataset cannot be written.
    """
    observer = observer or Observer()
    dataset = Dataset(recipe.out_path())
    refuse_out(dataset, recipe)
    bring_up_to_date(dataset)
    with dataset.lock(), LazyRunner(recipe.run.runner, recipe.run.workers, recipe.run.retries) as runners:
        refuse_unfinished(dataset)
        dataset.sweep()
        held = preflight(dataset, recipe, steps, redo)
        if is_new := not is_file(dataset.recipe):  # what is listed can be looked at while the rest is
            write_bytes(dataset.recipe, recipe.to_yaml().encode())
        try:
            listed = listing.update_listing(held, recipe, runners.get)
            observer.listed(listed)
        except ValueError:
            if is_new and "tables" not in dataset.names():
                delete_files(dataset.recipe)  # as if nothing had been typed
            raise
        for step in steps:
            step.delete_unwanted(dataset)
        write_bytes(dataset.recipe, recipe.with_absolute_paths().to_yaml().encode())
        if retry_failed:
            observer.retried(retry.retry_failed(dataset, recipe))
        if listed.num_new or retry_failed:
            held = dataset.held()
        results, held = run_steps(held, steps, observer, redo, runners.get, recipe.run.duckdb_memory)
        if not dataset.catalog.is_file():
            catalog.write_catalog(dataset)
        return Built(results, *conserve(held, recipe.run.duckdb_memory))


def preflight(dataset: Dataset, recipe: DataRecipe, steps: Sequence[Job], redo: frozenset[str]) -> Held:
    """Find every contradiction between recipe and dataset, and what the jobs to be run lack, before anything is
    touched; what holds. Raises ValueError: the first contradiction. Raises NeedsMissing: all that is lacking."""
    held = dataset.held()
    is_listed = listing.is_listed(held, recipe)
    states = [(step, step.state(held, step.job in redo)) for step in steps]
    if is_listed:
        check_needs(to_run(states, redo))
    else:  # new inputs go through every job
        check_needs(steps)
    return held


def conserve(held: Held, memory: str = DUCKDB_MEMORY) -> tuple[list[LedgerCount], int]:
    """The ledger's counts, and the number of inputs they add up to. Call with the lock held: they are remembered.

    Args:
        memory: limit of DuckDB, as `run.duckdb_memory`.

    Raises:
        RuntimeError: they do not.
        ValueError: the memory does not suffice.
    """
    dataset = held.dataset
    catalog.mend_catalog(dataset)
    with explaining_memory("counting the ledger", memory, dataset):
        counts = counts_of(held, memory)
    num_inputs = listing.num_inputs(dataset)
    total = sum(count for *_, count in counts)
    if total != num_inputs:
        raise RuntimeError(f"{dataset.root}: the ledger has {total} rows for {num_inputs} inputs; run sigma doctor")
    remember_counts(held, counts)
    return counts, num_inputs


def refuse_out(dataset: Dataset, recipe: DataRecipe) -> None:
    """Leave alone what is no dataset. Raises ValueError: `out` is a file, an evaluation, a folder that holds other
    things, or in a store while a source is a list of URLs."""
    if is_file(dataset.root):
        raise ValueError(f"out={dataset.root}: is a file; name a folder for the dataset")
    if dataset.is_evaluation:
        raise ValueError(f"out={dataset.root}: is an evaluation; name another folder for the dataset")
    names = dataset.names()
    if names and not {"tables", "shards", "recipe.yaml"} & names:
        raise ValueError(f"out={dataset.root}: holds other files and no dataset; name an empty or new folder")
    if dataset.store is not None and (lists := [each for each in recipe.all_sources() if each.kind == "urls"]):
        raise ValueError(
            f"{lists[0].location()}: what a URL list names is fetched next to the dataset, and {dataset.root} is in a "
            "store: name an out on a disk, or fetch the list with img2dataset and name its output as a source of kind "
            "img2dataset"
        )
