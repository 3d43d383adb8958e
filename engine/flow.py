"""Map jobs that wait for no reduce between them, as one flow: part n of a job can start once part n of its inputs is
committed."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from engine.counts import Counts, count_whole, note
from engine.dataset import Dataset
from engine.map_job import MapJob
from engine.names import Held, PartName
from engine.run_log import JobResult
from engine.runner import Committed, Queue, Runner, Task


class Observer:
    """What runs jobs calls these methods as it goes on. They do nothing; a subclass shows or records what it wants."""

    def begin(self, job: str, rows: int) -> None:
        """A job starts on this many rows. Others may be in progress, also one of the same name: further captioners."""

    def advance(self, job: str, rows: int, counts: Mapping[str, float] = {}, /) -> None:
        """Rows of a job have been finished; see `engine.runner.Progress`."""

    def end(self, job: str, result: JobResult | None) -> None:
        """A job has ended; None where it was done already."""


class _Course:
    """One job of a flow: which of its parts are through, wait for a worker, or are still to come."""

    def __init__(self, job: MapJob, is_anew: bool, held: Held, observer: Observer, flow: Flow) -> None:
        self.job, self.is_anew = job, is_anew
        self.source, self.task = job.source(held), job.task_maker(held)
        self.num_parts = held.num_parts(job.outputs[-1])
        self.there = [{(name.number, name.made_from): name for name in held.listed(table)} for table in job.outputs]
        self.known, self.through, self.computed = set[int](), set[int](), 0
        self.files, self.counts = list[str](), Counter[str]()
        self.begun, self.has_ended = 0.0, False
        self._held, self._observer = held, observer

        def committed(task: Task, part: Committed) -> None:
            flow.committed(self, task.number, part)

        self.queue = Queue(job, deque(), self._count, committed, self._begin, self.num_parts)

    def _begin(self) -> None:
        self.begun = time.perf_counter()
        open_parts = [number for number in range(self.num_parts) if number not in self.through]
        self._observer.begin(self.job.job, self.job.rows_of(self._held, open_parts))

    def _count(self, rows: int, counts: Mapping[str, float] = {}) -> None:
        self.counts.update(counts)
        self._observer.advance(self.job.job, rows, counts)

    def keep(self, number: int) -> None:
        """A part is there already."""
        if self.begun:
            self._count(self.job.rows_of(self._held, [number]))

    def result(self, dataset: Dataset) -> JobResult:
        """What came of the job; files are opened only of parts that were there already and that nothing has counted."""
        job, seconds = self.job, round(time.perf_counter() - self.begun, 3) if self.begun else 0.0
        found = count_whole(job.outputs[-1], [dataset.tables / file for file in self.files])
        return JobResult(job.job, job.outputs, self.num_parts, self.computed, *found, seconds, dict(self.counts))


class Flow:
    """Runs map jobs, of which no reduce job is between two. What a part is made from is known once the parts of its
    inputs are committed, by the names that their workers return; no folder is listed again for it."""

    def __init__(
        self,
        dataset: Dataset,
        jobs: Sequence[tuple[MapJob, bool]],
        observer: Observer,
        ended: Callable[[MapJob, JobResult | None], None],
    ) -> None:
        """Look at what is there. The records of all jobs are written, since they depend on no part. `jobs`: in order;
        and whether each has something to do although no part of it is missing. `ended`: called in order with each job
        whose last part is through, and None where it was done already."""
        self._dataset, self._held, self._ended = dataset, dataset.held(), ended
        self._courses = [_Course(job, is_anew, self._held, observer, self) for job, is_anew in jobs]

    def run(self, runner: Callable[[], Runner]) -> None:
        """Compute what is missing.

        Args:
            runner: gives the runner, and is only called where there is a part to compute.

        Raises:
            ValueError: a table that a job reads is missing or damaged, or `ended` refuses a result.
            PartFailed: a part could not be computed.
        """
        for course in self._courses:
            for number in range(course.num_parts):
                self._offer(course, number)
        self._end_jobs()
        queues = [course.queue for course in self._courses]
        if any(queue.waiting for queue in queues):
            runner().run_queues(self._dataset, queues)
        for course in self._courses:
            if not course.has_ended:
                inputs = " or ".join(course.job.inputs)
                raise ValueError(f"{course.job.job}: parts of {inputs} are missing; run sigma build again")

    def committed(self, course: _Course, number: int, part: Committed) -> None:
        """Go on from a part that a worker has committed."""
        course.computed += 1
        note(self._dataset.tables / part.files[-1], Counts(part.rows, dict(part.reasons)))
        self._go_on(course, number, part.files)
        self._end_jobs()

    def _offer(self, course: _Course, number: int) -> None:
        """Let a part be computed where that of its inputs is there and it is not."""
        if number in course.known or (made_from := course.source(number)) is None:
            return
        course.known.add(number)
        course.queue.to_come -= 1
        names = [there[number, made_from] for there in course.there if (number, made_from) in there]
        if len(names) < len(course.there):
            course.queue.waiting.append(course.task(number, made_from))
            return
        course.keep(number)
        found = zip(course.job.outputs, names, strict=True)
        self._go_on(course, number, [f"{table}/{name.file}" for table, name in found])

    def _go_on(self, course: _Course, number: int, files: Sequence[str]) -> None:
        course.through.add(number)
        course.files.append(files[-1])
        for file in files:
            table, _, name = file.rpartition("/")
            if (part := PartName.parse(name)) is not None:
                self._held.add(table, part)
        place = self._courses.index(course)
        for later in self._courses[place + 1 :]:
            if not set(course.job.outputs).isdisjoint(later.job.inputs):
                self._offer(later, number)

    def _end_jobs(self) -> None:
        for course in self._courses:
            if course.has_ended or len(course.through) < course.num_parts:
                continue
            course.has_ended, job, result = True, course.job, None
            if course.computed or course.is_anew or job.is_waited_for(self._held):
                job.delete_outdated(self._held)
                result = course.result(self._dataset)
            self._ended(job, result)
