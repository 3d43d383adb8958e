"""Judges stored answers again by the gate of today, part by part; no captioner is built, none is called."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any

import pyarrow as pa

from captioning.texts.gate import Judgement, judge
from engine.counts import counts_of
from engine.dataset import Dataset, as_stored, read_parquet
from engine.job import Job
from engine.map_job import MapJob
from engine.names import Held
from engine.run_log import JobResult
from engine.runner import Committed, LazyRunner, PartJob, Progress, Queue, Task
from schemas.files import delete_files
from schemas.reasons import CaptionReason
from schemas.recipe import DataRecipe

CAPTION = "caption"
"""In place of a reason, in the counts of what has changed."""


def judged_again(
    row: Mapping[str, Any], languages: Collection[str] | None, prompt: str | None
) -> tuple[str, Judgement] | None:
    """The answer in a row of `captions`, as far as it is kept, and what the gate says of it now; None without one."""
    answer = row["caption"] if row["refused_caption"] is None else row["refused_caption"]
    if answer is None:
        return None
    found = judge(answer, ended=row["reason"] != CaptionReason.CUT, languages=languages, prompt=prompt)
    whole = row["refused_caption"] is not None  # what is cut off a refused answer is still in it
    before = (piece for piece in row["cut"] or () if not (whole and (piece in answer or piece in found.cut)))
    return answer, replace(found, cut=(*found.cut, *before))


@dataclass(frozen=True, kw_only=True)
class JudgeAgain(PartJob):
    """A table of captions whose parts a runner judges again. Its workers load nothing."""

    table: str
    languages: Collection[str] | None
    job: str = "caption"
    build: Callable[[], Any] = NoneType

    def run_part(self, dataset: Dataset, worker: Callable[[], Any], task: Task, progress: Progress) -> Committed:
        """Commit the part anew where a row of it changes; of a killed run's two files of a part, one stays."""
        path = dataset.folder(self.table) / task.inputs[self.table]
        table = as_stored(self.table, read_parquet(path))
        rows, changes = table.to_pylist(), Counter[str]()
        for row in rows:
            again = judged_again(row, self.languages, row["prompt"])
            if again is not None:
                answer, found = again
                now: dict[str, Any] = {"caption": found.caption, "reason": found.reason and str(found.reason)}
                now |= {"refused_caption": answer if found.reason else None, "cut": [*found.cut] or None}
                if any(row[name] != value for name, value in now.items()):
                    changes[f"{row['reason'] or CAPTION} to {now['reason'] or CAPTION}"] += 1
                    row.update(now)
        if changes:
            table = pa.Table.from_pylist(rows, schema=table.schema)
            path = dataset.commit_part(self.table, task.number, task.made_from, table)
        delete_files(*(path.with_name(file) for file in task.replaces if file != path.name))
        progress(len(rows), changes)
        return Committed((f"{self.table}/{path.name}",), *counts_of(self.table, table))


def judge_again(
    recipe: DataRecipe, steps: Sequence[Job], begin: Callable[[int], None], advance: Progress
) -> Iterator[str]:
    """Judge every stored answer of a dataset again, and say table by table how many rows have changed, and to what.
    `steps`: of the job `caption`. `begin` is called with the rows of each table, `advance` with those that are judged.
    Raises ValueError: there is no caption, a knob of `caption` was changed, or another process writes the dataset; or,
    once all is committed, more pictures lack a caption than `caption.max_failed_share` allows."""
    dataset = Dataset(recipe.out_path())
    tables = [step for step in steps if isinstance(step, MapJob) and dataset.held().parts(step.outputs[0])]
    if not tables:
        raise ValueError(f"{dataset.root}: has no captions to judge again; write some with sigma caption first")
    with dataset.lock(), LazyRunner(recipe.run.runner, recipe.run.workers, recipe.run.retries) as runners:
        held, results = dataset.held(), list[JobResult]()
        for step in tables:
            _refuse_changes(step, held)
        for step in tables:
            (table,) = step.outputs
            listed = held.listed(table)
            tasks = deque(
                Task(number, name.made_from, {table: name.file}, tuple(n.file for n in listed if n.number == number))
                for number, name in held.parts(table).items()
            )
            begin(step.rows_of(held, [task.number for task in tasks]))
            if step.failures is not None:
                step.failures.begin(dataset, table)
            num_parts, reasons, changes = len(tasks), Counter[str](), Counter[str]()
            num_rows = 0

            def progress(rows: int, counts: Mapping[str, float] = {}, /, seen: Counter[str] = changes) -> None:
                seen.update({change: int(count) for change, count in counts.items()})
                advance(rows)

            def committed(_: Task, part: Committed, seen: Counter[str] = reasons) -> None:
                nonlocal num_rows
                num_rows += part.rows
                seen.update(part.reasons)

            job = JudgeAgain(table=table, languages=recipe.clean.languages)
            runners.get().run_queues(dataset, [Queue(job, tasks, progress, committed)])
            results.append(JobResult("caption", (table,), num_parts, num_parts, num_rows, dict(reasons)))
            shown = ", ".join(f"{count:,} {change}" for change, count in changes.most_common())
            yield f"{table}: {num_rows:,} rows judged again, {changes.total():,} changed" + (
                f": {shown}" if shown else ""
            )
        for step, result in zip(tables, results, strict=True):
            step.check(dataset, result)


def _refuse_changes(step: MapJob, held: Held) -> None:
    try:
        step.state(held)
    except ValueError as error:
        record = held.record(step.outputs[0])
        names = step.knobs.keys() | (record.knobs.keys() if record else set())
        changed = {name for name in names if not record or record.knobs.get(name) != step.knobs.get(name)}
        if changed != {"clean.languages"}:
            raise
        raise ValueError(
            f"{error}. Other languages need --redo clean --redo caption in place of --judge-again: that judges paid "
            "answers anew without asking for them, and only a captioner that draws is asked again for refused ones"
        ) from None
