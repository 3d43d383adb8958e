"""The table of results: a number per model, metric and category, with all that it depends on. The measures are imported
where they are used: they take torch, and a finished evaluation is planned without it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from engine.dataset import Dataset
from engine.job import Job, State
from engine.names import Held, PartName
from engine.run_log import JobResult
from evaluation.measured_rows import Rows, by_category, missing, read_rows
from evaluation.measuring import Wanted
from evaluation.nearness import near, nearness_table
from evaluation.painters import Plan
from evaluation.paired import Distances, Scores, half_width, with_changes
from evaluation.pictures import pictures_table
from evaluation.reference import NAME, Against, encodings_of
from evaluation.scorers.base import Scorer
from schemas.evaluation import Metrics
from schemas.strict import DUCKDB_MEMORY
from schemas.tables import schema_of

if TYPE_CHECKING:
    from evaluation.results import Measure


@dataclass(frozen=True)
class Question:
    """What the table of results is to say, known before it is computed."""

    models: Sequence[Plan]
    networks: Sequence[Wanted]
    against: Against | None
    metrics: Metrics
    contaminated: Mapping[str, int]
    """Model -> pictures of the reference that it was trained on."""
    quick: int | None
    scorers: Sequence[Scorer] = ()

    def tables(self) -> list[str]:
        shown = [each for each in self.networks if self.why_not(each) is None]
        pictures = [pictures_table(model.name) for model in self.models]
        pictures += [nearness_table(model.name, self.models[0].name) for model in near(self.models)]
        looked: list[Wanted | Scorer] = [*shown, *(each for each in self.scorers if each.missing is None)]
        return pictures + [each.table(model.name) for model in self.models for each in looked]

    def why_not(self, wanted: Wanted) -> str | None:
        """Why the pictures were not shown to a network."""
        return wanted.why_not(None if self.against is None else self.against.protocol)

    def knobs(self) -> dict[str, Any]:
        """All that the rows depend on besides their tables."""
        reference = None
        if self.against is not None:
            shown = [each for each in self.networks if self.why_not(each) is None and each.protocol != "clip"]
            digests = {each.protocol: self.against.digest(each) for each in shown}
            reference = [self.against.name, digests, list(self.against.encodings)]
        return {
            "columns": schema_of("results").names,
            "models": {model.name: [model.step, dict(model.how)] for model in self.models},
            "networks": [[*each.metrics, each.name, each.protocol, each.missing] for each in self.networks],
            "reference": reference,
            "metrics": self.metrics.resolved(),
            "contaminated": dict(self.contaminated),
            "quick": self.quick,
            "scorers": [[each.metric, each.protocol, each.missing, each.seen_with()] for each in self.scorers],
        }


@dataclass(frozen=True, kw_only=True)
class ResultsJob(Job):
    """The job that computes the table `results`; it costs no picture, so changed knobs compute it anew unasked."""

    question: Question

    @classmethod
    def of(cls, question: Question) -> ResultsJob:
        """The job, whose inputs the jobs before it write."""
        inputs = tuple(question.tables())
        return cls(job="results", outputs=("results",), inputs=inputs, knobs=question.knobs(), question=question)

    def state(self, held: Held, redo: bool = False) -> State:
        return super().state(held, redo=True)

    def run(self, dataset: Dataset, memory: str = DUCKDB_MEMORY) -> JobResult:
        made_from = self.expected(held := dataset.held())[0]
        assert made_from is not None, "all inputs are there"
        rows = [row for wanted in self.question.networks for row in _of_network(dataset, self.question, wanted)]
        rows += [row for scorer in self.question.scorers for row in _of_scorer(dataset, self.question, scorer)]
        rows += [row for model in near(self.question.models) for row in _of_nearness(dataset, self.question, model)]
        rows = list(with_changes(rows, self.question.models[0].name))
        written = dataset.commit_part("results", 0, made_from, pa.Table.from_pylist(rows, schema=schema_of("results")))
        held.add("results", PartName.of(written))
        self.delete_outdated(held)
        return JobResult(self.job, self.outputs, 1, 1, len(rows))


def _of_network(dataset: Dataset, question: Question, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """The rows of all models under one network."""
    against, why = question.against, question.why_not(wanted)
    is_compared = wanted.protocol != "clip" and against is not None
    reference = None
    if why is None and is_compared and against is not None and against.dataset is not None:
        reference = read_rows(against.dataset, wanted.table(NAME), "features")
    for model in question.models:
        row = _row_of(model, wanted.name, wanted.protocol, question)
        if is_compared and against is not None:
            row["reference"] = against.name
        if why is not None:
            yield from (row | {"metric": metric, "reason": why} for metric in wanted.metrics)
        elif not is_compared or against is None:
            yield from (row | each for each in _agreement(dataset, model, wanted, question.metrics))
        else:
            row["reference_digest"] = against.digest(wanted)
            flags = _flags(dataset, model, question)
            for each in _compared(dataset, model, wanted, question, reference):
                yield row | each | {"flags": [*each["flags"], *flags]}


def _row_of(model: Plan, network: str, protocol: str, question: Question) -> dict[str, Any]:
    """The columns that all rows of a model under one network have."""
    return {
        "model": model.name,
        "step": model.step,
        "network": network,
        "protocol": protocol,
        "drawn": json.dumps(model.how, sort_keys=True),
        "quick": question.quick,
        "flags": [],
    }


def _of_scorer(dataset: Dataset, question: Question, scorer: Scorer) -> Iterator[dict[str, Any]]:
    """The rows of all models under the scorer of a benchmark."""
    for model in question.models:
        row = _row_of(model, scorer.network, scorer.protocol, question)
        if scorer.missing is not None:
            yield row | {"metric": scorer.metric, "reason": scorer.missing}
            continue
        seen = [(each, scorer.why_lost(each)) for each in dataset.read_table(scorer.table(model.name)).to_pylist()]
        there = [each for each, why in seen if why is None]
        lost = [(each["prompt_id"], why) for each, why in seen if why is not None]
        lacking = missing(Rows(np.zeros(len(there)), np.array([]), np.array([]), lost), "pictures")
        if lacking and not question.metrics.allow_missing:
            yield row | {"metric": scorer.metric, "reason": lacking, "num_generated": len(there)}
            continue
        flags = ["missing"] * (lacking is not None)
        yield from (
            row | each | {"flags": [*flags, *each["flags"]]} for each in scorer.results(there, question.metrics)
        )


def _flags(dataset: Dataset, model: Plan, question: Question) -> list[str]:
    """What all numbers of a model against the reference suffer from."""
    flags, against = [], question.against
    encodings = encodings_of(dataset.read_table(pictures_table(model.name), ["format", "quality"]))
    if against is not None and against.dataset is not None and encodings != against.encodings:
        shown = [", ".join(some[:3]) + (", ..." if len(some) > 3 else "") for some in (encodings, against.encodings)]
        flags.append(f"encodings: {shown[0]} against {shown[1]}")
    if number := question.contaminated.get(model.name):
        flags.append(f"contaminated: {number:,} pictures of the reference were trained on")
    return flags


def _compared(
    dataset: Dataset, model: Plan, wanted: Wanted, question: Question, reference: Rows | None
) -> Iterator[dict[str, Any]]:
    """The rows of a model against the reference: all pictures first, then each category that both sides have."""
    drawn = read_rows(dataset, wanted.table(model.name), "features")
    lacking = missing(drawn, "pictures")
    if lacking is None and reference is not None:
        lacking = missing(reference, "pictures of the reference")
    if lacking and not question.metrics.allow_missing:
        yield from _refused(wanted, drawn, reference, lacking)
        return
    flags = [] if lacking is None else ["missing"]
    if reference is None:
        yield from _against_moments(drawn, wanted, question.against, flags)
        return
    yield from _of_one(None, drawn, reference.values, wanted, question.metrics, flags)
    both = (set(drawn.categories) & set(reference.categories)) - {""}
    for category in sorted(both) if question.metrics.by_category else ():
        own = drawn.of(category)
        yield from _of_one(category, own, reference.of(category).values, wanted, question.metrics, flags)


def _refused(wanted: Wanted, drawn: Rows, reference: Rows | None, why: str) -> Iterator[dict[str, Any]]:
    sizes = {"num_generated": len(drawn.values), "num_reference": None if reference is None else len(reference.values)}
    yield from ({"metric": metric, "reason": why, "flags": [], **sizes} for metric in wanted.metrics)


def _against_moments(
    drawn: Rows, wanted: Wanted, against: Against | None, flags: list[str]
) -> Iterator[dict[str, Any]]:
    """The rows of pictures against moments: FID, and why there is nothing else."""
    from evaluation.frechet import frechet_distance, moments
    from evaluation.results import FEWEST, Measure, distance_of_many, groups_of

    assert against is not None and against.moments is not None
    x, prompts = drawn.values, drawn.prompts.tolist()
    row: dict[str, Any] = {"num_generated": len(x), "flags": flags}
    reasons = dict.fromkeys(wanted.metrics, "the reference is moments, which give FID alone")
    if len(x) < FEWEST:
        reasons = dict.fromkeys(wanted.metrics, _too_few(len(x)))
    else:
        del reasons["fid"]
        if len(x) > x.shape[1]:
            found = Measure("fid", *distance_of_many(x, groups_of(prompts), *against.moments))
        else:  # ten more would take minutes
            found, flags = Measure("fid", frechet_distance(*moments(x), *against.moments)), [*flags, "rank_deficient"]
        yield row | _measured(found, prompts) | {"flags": flags}
    yield from (row | {"metric": metric, "reason": why} for metric, why in reasons.items())


def _measured(found: Measure, prompts: list[str]) -> dict[str, Any]:
    """The columns of a number, with its interval and what its change is computed from where there is one."""
    row = {"metric": found.metric, "value": found.value}
    if (half := half_width(found.left_out)) is None:
        return row
    basis = Distances(found.value, found.left_out, prompts)
    return row | {"low": found.value - half, "high": found.value + half, "basis": basis}


def _too_few(num: int) -> str:
    from evaluation.results import FEWEST

    return f"a comparison needs at least {FEWEST} pictures a side, and there are {num}"


def _of_one(
    category: str | None, drawn: Rows, y: np.ndarray, wanted: Wanted, metrics: Metrics, flags: list[str]
) -> Iterator[dict[str, Any]]:
    """The rows of one set of pictures against one reference."""
    from evaluation.mmd import cmmd
    from evaluation.results import FEWEST, distances, flags_of

    x, prompts = drawn.values, drawn.prompts.tolist()
    row: dict[str, Any] = {"category": category, "num_generated": len(x), "num_reference": len(y), "flags": flags}
    fewest = min(len(x), len(y))
    if fewest < FEWEST:
        yield from (row | {"metric": metric, "reason": _too_few(fewest)} for metric in wanted.metrics)
        return
    if wanted.protocol == "cmmd":
        for name, unbiased in (("cmmd", False), ("cmmd unbiased", True)):
            yield row | {"metric": name, "value": cmmd(x, y, unbiased=unbiased)}
        return
    row["flags"] = [*flags, *flags_of(x, y)]
    for each in distances(x, y, prompts):
        if each.metric == "fid" and category is not None and fewest <= x.shape[1] and not metrics.allow_singular:
            why = (
                f"{fewest:,} pictures give no covariance of {x.shape[1]:,} features; metrics.allow_singular=true gives "
                "the value all the same"
            )
            yield row | {"metric": "fid", "reason": why}
            continue
        yield row | _measured(each, prompts)


def _agreement(dataset: Dataset, model: Plan, wanted: Wanted, metrics: Metrics) -> Iterator[dict[str, Any]]:
    """The rows of CLIP-Score: a cosine with a bootstrap over prompts, and the share of prompts that were cut."""
    table = wanted.table(model.name)
    rows, shares = read_rows(dataset, table, "cosine"), read_rows(dataset, table, "share_read")
    lacking = missing(rows, "pictures")
    if lacking and not metrics.allow_missing:
        yield from _refused(wanted, rows, None, lacking)
        return
    for category, own in by_category(rows, metrics):
        basis, read = Scores.of(own.prompts.tolist(), own.values), (shares.of(category) if category else shares).values
        cut = f"cut: {(read < 1).mean():.0%} of the prompts, {read.mean():.0%} of a prompt's tokens read on average"
        yield (
            {"metric": "clip_score", "category": category, "num_generated": len(own.values)}
            | basis.columns
            | {
                "value": float(own.values.mean()),
                "flags": ["missing"] * (lacking is not None) + [cut] * bool((read < 1).any()),
            }
        )


def _of_nearness(dataset: Dataset, question: Question, model: Plan) -> Iterator[dict[str, Any]]:
    """The rows of PSNR: how near an export's pictures are to the first model's, with a bootstrap over prompts."""
    first = question.models[0].name
    row = _row_of(model, "pixels", "same noise", question) | {"metric": "psnr", "reference": first}
    rows = read_rows(dataset, nearness_table(model.name, first), "psnr")
    lacking = missing(rows, "pairs of pictures")
    if lacking and not question.metrics.allow_missing:
        yield row | {"reason": lacking}
        return
    for category, own in by_category(rows, question.metrics):
        flags = ["missing"] * (lacking is not None)
        yield (
            row
            | Scores.of(own.prompts.tolist(), own.values).columns
            | {"category": category, "num_generated": len(own.values), "flags": flags}
        )
