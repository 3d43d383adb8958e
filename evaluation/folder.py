"""The folder of an evaluation: the steps of its recipe, and a run of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from engine.dataset import Dataset
from engine.flow import Observer
from engine.job import Job
from engine.preflight import check_needs
from engine.runner import LazyRunner
from engine.steps import run_steps
from evaluation.measuring import Wanted, features_job, wanted_networks
from evaluation.nearness import near, nearness_job
from evaluation.painters import Plan, plans
from evaluation.pictures import SAMPLES, pictures_job
from evaluation.prompt_table import prompt_rows, update_prompts
from evaluation.reference import Against, bring_reference
from evaluation.scorers.base import Scorer
from evaluation.scorers.wanted import wanted_scorers
from evaluation.scoring import Question, ResultsJob
from schemas.commit import write_bytes
from schemas.evaluation import EvaluationRecipe
from schemas.files import entries_in, is_file, is_folder, place_of, shown_place, sweep_folder
from schemas.shard_index import ShardIndex

MARKS = {"tables", "recipe.yaml", SAMPLES}
"""One of these is in every evaluation."""
QUICK = "quick-"
"""Prefix of the folder of a quick evaluation, below the whole one's."""


@dataclass(frozen=True)
class Evaluated:
    dataset: Dataset
    results: list[dict[str, Any]]
    """The rows of the table `results`."""
    has_run: bool
    """Whether there was anything to do."""


def evaluate(
    recipe: EvaluationRecipe, observer: Observer, redo: Collection[str] = (), quick: int | None = None
) -> Evaluated:
    """Bring an evaluation up to date; what is drawn and measured already stays. `redo`: jobs to compute anew. `quick`:
    only so many prompts, chosen by their ids, in a folder `quick-<n>`. Raises ValueError: the recipe names what is not
    there, the folder was made from another one, or a model was trained on pictures of the reference. Raises
    PartFailed."""
    recipe = recipe.with_absolute_paths()
    dataset = Dataset(recipe.out_path() / f"{QUICK}{quick}" if quick else recipe.out_path())
    refuse_foreign_folder(dataset)
    rows = prompt_rows(recipe, quick)
    models = [plan for name, model in recipe.models.items() for plan in plans(name, model)]
    networks = wanted_networks(recipe.metrics, recipe.reference is not None)
    scorers = wanted_scorers(recipe)
    steps = steps_of(dataset, recipe, models, networks, scorers)
    if unknown := sorted({*redo} - {"prompts", "results", *(step.job for step in steps)}):
        known = ", ".join(dict.fromkeys(["prompts", *(step.job for step in steps), "results"]))
        raise ValueError(f"--redo {unknown[0]}: no such job; there are {known}")
    check_needs(steps)
    with dataset.lock(), LazyRunner(recipe.run.runner, recipe.run.workers, recipe.run.retries) as runners:
        dataset.sweep()
        sweep_folder(dataset.root / SAMPLES)
        update_prompts(dataset, rows, recipe.prompts.per_part, redo="prompts" in redo)
        held = dataset.held()
        for step in steps:
            step.state(held, step.job in redo)  # a changed knob is refused before anything is computed
        write_bytes(dataset.recipe, recipe.to_yaml().encode())
        against, contaminated = None, dict[str, int]()
        if recipe.reference is not None:
            against = bring_reference(recipe, networks, observer, runners.get)
            contaminated = find_contaminated(models, against, recipe.metrics.allow_contaminated)
        last = ResultsJob.of(Question(models, networks, against, recipe.metrics, contaminated, quick, scorers))
        done, _ = run_steps(dataset.held(), [*steps, last], observer, frozenset(redo), runners.get)
        return Evaluated(dataset, dataset.read_table("results").to_pylist(), bool(done))


def steps_of(
    dataset: Dataset,
    recipe: EvaluationRecipe,
    models: Sequence[Plan],
    networks: Sequence[Wanted],
    scorers: Sequence[Scorer],
) -> list[Job]:
    """The jobs of each model: its pictures, then what each network makes of them, and what each scorer sees in them."""
    moments = recipe.reference.moments_protocol if recipe.reference is not None else None
    shown = [each for each in networks if each.why_not(moments) is None]
    per_prompt = recipe.draw.pictures_per_prompt
    found: list[Job] = [
        job
        for model in models
        for job in (
            pictures_job(dataset.root, model, recipe.draw, recipe.run),
            *(features_job(dataset.root, model.name, each, per_prompt, recipe.run) for each in shown),
            *(each.job(dataset.root, model.name, recipe.run) for each in scorers if each.missing is None),
        )
    ]
    return found + [nearness_job(dataset.root, each.name, models[0].name, recipe.run) for each in near(models)]


def refuse_foreign_folder(dataset: Dataset) -> None:
    """Leave alone what is no evaluation. Raises ValueError: it is a file, a dataset, or a folder of other things."""
    shown = shown_place(dataset.root)
    if is_file(dataset.root):
        raise ValueError(f"out={shown}: is a file; name a folder for the evaluation")
    names = dataset.names()
    is_begun = not names or bool(names & MARKS) or all(name.startswith(QUICK) for name in names)
    is_other = "shards" in names or bool(entries_in(dataset.folder("listing")))
    if not is_begun or is_other or (dataset.recipe.name in names and not dataset.is_evaluation):
        raise ValueError(f"out={shown}: holds other files and no evaluation; name an empty or new folder")


def find_contaminated(models: Sequence[Plan], against: Against, allow: bool) -> dict[str, int]:
    """Model -> pictures of the reference that are in the dataset it was trained on, by the bytes of the originals.
    Raises ValueError: there are such, and they are not allowed."""
    known, found = dict[str, set[str]](), dict[str, int]()
    for model in models:
        recipe = model.trained_on
        if recipe is None or not is_folder(shards := place_of(recipe.dataset) / "shards"):
            continue
        if recipe.dataset not in known:
            index = ShardIndex(shards)
            parts = (part["image_id"].to_pylist() for part in index.parts(["image_id"]))
            known[recipe.dataset] = {each for part in parts for each in part if each in against.image_ids}
        if both := known[recipe.dataset]:
            found[model.name] = len(both)
            if not allow:
                raise ValueError(
                    f"reference {against.name}: contaminated: {len(both):,} of its pictures are in {recipe.dataset}, "
                    f"which {model.name} was trained on, such as {min(both)}; name another reference, or set "
                    "metrics.allow_contaminated=true, which the rows then say"
                )
    return found
