"""What runs the parts of jobs: the interface, its errors, the runner in this process, and the one maker of runners."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol, Self

from engine.dataset import Dataset
from schemas.files import TEMPORARY, NoFile, copies_of
from schemas.unread import FULL, StoreError


class Progress(Protocol):
    """How a worker reports that it has finished some rows."""

    def __call__(self, rows: int, counts: Mapping[str, float] = {}, /) -> None:
        """Take a report. `rows`: finished since the last call. `counts`: sums of anything else since the last call, by
        name: images, tokens, seconds. The totals over all workers end in `runs/`."""


class PartFailed(Exception):
    """A part could not be computed; finished parts stay."""

    def __init__(self, job: str, part: int, cause: BaseException) -> None:
        self.job, self.part, self.cause = job, part, cause
        super().__init__(f"{job} stopped at part {part}{_where(cause)}: {describe(cause)}")


def describe(error: BaseException) -> str:
    """An error in one line, with what to do about the ones a user can mend."""
    if isinstance(error, OSError) and error.errno in FULL:
        return f"no space left {_room(error.filename)} and run the same command again, finished parts stay"
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        folder = Path(os.fsdecode(error.filename or "")).parent
        return f"{folder}: is on a disk that can only be read; write elsewhere (out=FOLDER, or --out FILE for a page)"
    if isinstance(error, PermissionError) and error.filename:
        path = Path(os.fsdecode(error.filename2 or error.filename))
        path = path.parent if path.name.startswith(TEMPORARY) else path
        return f"{path}: permission denied; let this user read and write there (chmod, chown), or name another place"
    if isinstance(error, FileExistsError | NotADirectoryError) and error.filename:
        return f"{os.fsdecode(error.filename)}: a file is in the place of a folder; name another place, or move it away"
    if isinstance(error, IsADirectoryError) and error.filename:
        return f"{os.fsdecode(error.filename2 or error.filename)}: is a folder; name a file"
    if isinstance(error, NoFile) and error.filename:
        return f"{error.filename}: is {error.strerror}; name a file, or move it away"
    text = " ".join(str(error).split())
    if isinstance(error, ValueError | OSError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _room(file: str | None) -> str:
    """The disk that a file is to be written to, and how it gets room."""
    if file is None:
        return "on the disk; free some"
    if (base := copies_of(file)) is not None:
        return f"in {base} for copies of what a store holds; name another folder with SIGMA_SCRATCH or run.scratch,"
    return f"on the disk of {Path(os.fsdecode(file)).parent}; free some"


def _where(error: BaseException) -> str:
    notes = [note.removeprefix("image: ") for note in getattr(error, "__notes__", []) if note.startswith("image: ")]
    return f" (image {notes[0]})" if notes else ""


@dataclass(frozen=True)
class Task:
    """A part to compute, and all that a worker needs to know about it: no worker lists a folder."""

    number: int
    made_from: str = ""
    """Of the part's name."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Table -> the file to read of it."""
    replaces: tuple[str, ...] = ()
    """Files, relative to the folder of the tables, that are deleted once the part is committed."""
    paid: tuple[str, ...] | None = None
    """The files of the rows that were paid for in it when it was whole before; None has the worker list them."""


class Committed(NamedTuple):
    """What a worker has committed of a part, so that the driver opens no file for it; nothing where it was there
    already."""

    files: tuple[str, ...] = ()
    """The names of its files."""
    rows: int = 0
    """Of the last of them."""
    reasons: Mapping[str, int] = {}
    """These rows by reason, where they have one."""


@dataclass(frozen=True)
class PartDone:
    number: int
    computed: bool
    """False where it was there already."""


@dataclass(frozen=True, kw_only=True)
class PartJob(ABC):
    """What a runner can run: numbered parts, each of which commits its own output. It must be picklable. A
    `engine.map_job.MapJob` is one; so is a set of features, whose parts are shards."""

    job: str
    """Its name, for messages."""
    build: Callable[[], Any]
    """Makes what a process needs once, such as loaded weights."""
    workers: int | None = None
    """Workers at once; None is as many as the runner has for any job."""
    num_gpus: float | None = 0
    """GPUs that each worker holds for itself, a part of one where it is under 1; None takes one where there are any."""
    overlaps: bool = False
    """Whether a worker with a GPU may have two parts at a time: its model has one while the other is read or
    committed."""

    @abstractmethod
    def run_part(self, dataset: Dataset, worker: Callable[[], Any], task: Task, progress: Progress) -> Committed:
        """Compute and commit a part. `worker`: gives what `build` made; calling it first makes it."""


@dataclass(eq=False)
class Queue:
    """A job with its parts that can be computed. More join them when parts of other queues are committed."""

    job: PartJob
    waiting: deque[Task]
    progress: Progress
    committed: Callable[[Task, Committed], None]
    """Called in the driver with each part and what `PartJob.run_part` returned; may add parts to the queues after this
    one."""
    begin: Callable[[], None] | None = None
    """Called when the first part is given to a worker."""
    to_come: int = 0
    """Parts that may join those that wait."""

    def take(self) -> Task:
        """Take the part that waits longest, for a worker that is ready."""
        if self.begin is not None:
            self.begin()
            self.begin = None
        return self.waiting.popleft()

    def put_back(self, task: Task) -> None:
        """Have a part computed again whose worker was lost; its rows may have been paid for and kept by then."""
        self.waiting.append(replace(task, paid=None))


class Runner(ABC):
    """Runs parts of jobs; `close` frees what it holds."""

    @abstractmethod
    def run_queues(self, dataset: Dataset, queues: Sequence[Queue]) -> None:
        """Compute and commit parts until none waits. Parts of a queue join only its successors. Raises PartFailed: the
        first real error, with the part and the image it happened on."""

    @abstractmethod
    def close(self) -> None:
        """Free workers and connections."""

    def expect(self, dataset: Dataset, num_parts: int) -> None:
        """Hear that there will be so many parts at least, for workers without a GPU. They may come up meanwhile."""
        return

    def run(self, dataset: Dataset, job: PartJob, parts: Sequence[Task], progress: Progress) -> list[PartDone]:
        """Compute and commit the parts of one job; raises as `run_queues`."""
        done: list[PartDone] = []

        def committed(task: Task, part: Committed) -> None:
            done.append(PartDone(task.number, bool(part.files)))

        self.run_queues(dataset, [Queue(job, deque(parts), progress, committed)])
        return done


class LocalRunner(Runner):
    """Runs every part in this process, queue after queue, so that only one job has its weights loaded; `workers`
    and `num_gpus` of a job say nothing here. A part is computed again, `retries` times, if a store did not answer."""

    def __init__(self, retries: int = 0) -> None:
        self._retries = retries

    def run_queues(self, dataset: Dataset, queues: Sequence[Queue]) -> None:
        for queue in queues:
            worker, unanswered = once(queue.job.build), Counter[int]()
            while queue.waiting:
                task = queue.take()
                try:
                    part = queue.job.run_part(dataset, worker, task, queue.progress)
                except Exception as error:
                    unanswered[task.number] += isinstance(error, StoreError)
                    if not 0 < unanswered[task.number] <= self._retries:
                        raise PartFailed(queue.job.job, task.number, error) from error
                    queue.put_back(task)
                else:
                    queue.committed(task, part)

    def close(self) -> None:
        """Nothing is held."""


class LazyRunner:
    """The runner that a recipe names, made when the first part needs it; use it as a context, which closes it. Ray
    takes a second to import and more to start, and a dataset that is finished needs none of it."""

    def __init__(self, kind: str, workers: int | None, retries: int) -> None:
        """Make nothing yet. `kind`: `local` or `ray`; the others are those of `RayRunner`."""
        self._kind, self._workers, self._retries = kind, workers, retries
        self._runner: Runner | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._runner is not None:
            self._runner.close()

    def get(self) -> Runner:
        """The runner, which the first call makes."""
        if self._runner is None and self._kind == "local":
            self._runner = LocalRunner(self._retries)
        elif self._runner is None:
            from engine.ray_runner import RayRunner

            self._runner = RayRunner(self._workers, self._retries)
        return self._runner


def once(build: Callable[[], Any]) -> Callable[[], Any]:
    """A worker that is built at the first call and kept: weights are loaded once, and only if they are needed."""
    built: list[Any] = []
    building = Lock()

    def get() -> Any:
        with building:
            if not built:
                built.append(build())
            return built[0]

    return get
