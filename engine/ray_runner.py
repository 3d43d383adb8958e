"""Runs parts on Ray: actors are handed tasks, read and write the dataset themselves, and may die.

Only this module and `ray_cluster` import ray. No image crosses the object store: the names of files go in, and a flag
comes out.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import ray
import ray.exceptions

from engine import ray_cluster
from engine.dataset import Dataset
from engine.runner import PartDone, PartFailed, PartJob, Progress, Task, once
from schemas.commit import TEMPORARY

POLL_S = 0.3
"""How often the driver asks busy workers how far they are, in seconds; with many workers less often."""
LAST_COUNTS_S = 10.0
"""The longest that the driver waits for the counts of workers that have finished, in seconds."""
NODES_EVERY_S = 5.0
"""How often the driver looks for new nodes, in seconds."""
MOST_STILLBORN = 20
"""Workers that may die one after the other before any comes up."""
MOST_WORKERS = 1000
"""Workers that an autoscaler is asked for at most. It starts nodes up to its own maximum; the others wait."""


class PartWorker:
    """One actor: builds the worker of a job once, then runs the parts it is handed."""

    def __init__(self, root: str) -> None:
        self._dataset = Dataset(Path(root))
        self._lock = Lock()  # one thread counts, another asks
        self._turn = -1
        self._worker: Callable[[], Any] | None = None
        self._rows = 0
        self._counts = Counter[str]()

    def why_blind(self, probe: str | None) -> str:
        """See `ray_cluster.why_blind`."""
        return ray_cluster.why_blind(probe) if probe else ""

    def run(self, turn: int, job: PartJob, task: Task) -> tuple[bool, tuple[int, dict[str, float]]]:
        """Compute and commit a part.

        Args:
            turn: counts the jobs of the runner; a new one drops the last job's worker and its weights.

        Returns:
            What `PartJob.run_part` returns, and the rows and counts that nobody has asked for yet.
        """
        if self._worker is None or turn != self._turn:
            self._turn, self._worker = turn, once(job.build)
        answer = job.run_part(self._dataset, self._worker, task, self._count)
        return answer, self.take_rows()

    def take_rows(self) -> tuple[int, dict[str, float]]:
        """Rows finished since the last call, and what was counted over them."""
        with self._lock:
            rows, self._rows = self._rows, 0
            counts, self._counts = self._counts, Counter()
        return rows, dict(counts)

    def _count(self, rows: int, counts: Mapping[str, float] = {}) -> None:
        with self._lock:
            self._rows += rows
            self._counts.update(counts)


@dataclass(eq=False)
class _Actor:
    handle: Any
    counting: Any = None
    """The answer to `take_rows` that is on its way."""


class RayRunner:
    """Runs jobs on the Ray cluster of `cluster_address`, or on one started here and stopped by `close`."""

    def __init__(self, workers: int | None, retries: int) -> None:
        """Connect.

        Args:
            workers: of a job that asks for no number; None is one per CPU, or as many as the GPUs allow.

        Raises:
            ValueError: the cluster does not answer, or refuses this user.
        """
        self._wanted, self._retries = workers, retries
        self._made: Any = ray.remote(PartWorker)
        self._idle: list[_Actor] = []
        self._starting: dict[Any, _Actor] = {}
        self._busy: dict[Any, tuple[_Actor, Task]] = {}
        self._counting: dict[Any, _Actor] = {}
        self._long: set[Any] = set()
        """Parts that were being computed when the driver asked last; one that is done brings its own counts."""
        self._kind: tuple[str, float, int | None] = ("", 0, None)
        """Of the actors that are up: the dataset, the GPUs each holds, and how many workers a job asked for."""
        self._probe: Path | None = None
        self._turn = self._room = self._reported = self._stillborn = 0
        self._look_at = self._count_at = 0.0
        self._autoscales = False
        self._owns = not ray.is_initialized()
        self._alone = False
        if self._owns:
            self._alone = ray_cluster.connect()

    def run(self, dataset: Dataset, job: PartJob, parts: Sequence[Task], progress: Progress) -> list[PartDone]:
        """See `Runner.run`. A part whose worker or node is lost is handed out again, `retries` times.

        Raises:
            ValueError: a worker needs more GPUs than any node has or could have, or a node does not see the dataset.
        """
        waiting = deque(parts)
        lost = Counter[int]()
        done: list[PartDone] = []
        try:
            self._prepare(dataset, job, progress)
            job_ref = ray.put(job)
            while waiting or self._busy:
                self._hire(job, len(waiting))
                while self._idle and waiting:
                    actor, task = self._idle.pop(), waiting.popleft()
                    self._busy[actor.handle.run.remote(self._turn, job_ref, task)] = (actor, task)
                if not waiting:
                    self._let_go()
                for ref in self._answers():
                    if ref in self._starting:
                        self._started(ref, progress)
                        continue
                    if ref in self._counting:
                        self._counted(ref, progress)
                        continue
                    actor, task = self._busy.pop(ref)
                    number = task.number
                    try:
                        answer, counted = ray.get(ref)
                    except ray.exceptions.RayActorError as error:
                        lost[number] += 1
                        if lost[number] > self._retries:
                            raise PartFailed(job.job, number, _lost(lost[number], error)) from error
                        waiting.append(task)
                    except ray.exceptions.RayTaskError as error:
                        raise PartFailed(job.job, number, error.cause or error) from error
                    else:
                        progress(*counted)
                        done.append(PartDone(number, answer))
                        self._idle.append(actor)
            while self._counting and (late := ray.wait([*self._counting], timeout=LAST_COUNTS_S)[0]):
                self._counted(late[0], progress)
            self._let_go()
        except BaseException:
            self._stop_actors()  # workers that are still busy must not outlive the job
            raise
        return done

    def close(self) -> None:
        """Stop the workers, and the cluster where it was started here."""
        self._stop_actors()
        if self._owns and ray.is_initialized():
            ray.shutdown()

    def _prepare(self, dataset: Dataset, job: PartJob, progress: Progress) -> None:
        """Get the actors of another kind out of the way, and see that all nodes can do the job."""
        self._autoscales = not self._alone and ray_cluster.autoscaler() is not None
        slots = ray_cluster.gpu_slots(
            job, ray_cluster.gpus_of_nodes(), ray_cluster.could_start if self._autoscales else None
        )
        kind = (str(dataset.root), slots.num_gpus, job.workers)
        if self._kind != kind:
            self._stop_actors()
            self._kind = kind
        if not self._alone and self._probe is None:
            self._probe = dataset.root / f"{TEMPORARY}{uuid.uuid4().hex}"
            self._probe.touch()
            ray_cluster.see_all(self._probe)
        if slots.count:
            progress(0, {"gpu_workers": slots.count})
        self._reported = slots.count
        self._turn += 1
        self._look_at = 0.0

    def _hire(self, job: PartJob, num_waiting: int) -> None:
        """Start actors for the parts that have none, as many as there is room for; new nodes make room."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + NODES_EVERY_S
            self._room = self._count_room(job.workers or self._wanted)
        there = len(self._idle) + len(self._starting) + len(self._busy)
        for _ in range(there, min(self._room, len(self._busy) + num_waiting)):
            self._start()

    def _count_room(self, wanted: int | None) -> int:
        if self._autoscales:
            return wanted or MOST_WORKERS
        if num_gpus := self._kind[1]:
            fit = max(1, ray_cluster.slots_of(num_gpus, ray_cluster.gpus_of_nodes()))
            return min(wanted or fit, fit)
        return wanted or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def _start(self) -> None:
        """Ask for an actor. It gets a part only once it runs: a cluster that has lost a node may have no room for it,
        and a part that was promised to it would wait for ever while the others stand idle."""
        root, num_gpus, _ = self._kind
        # one thread works, one answers take_rows
        actor = _Actor(self._made.options(num_cpus=1, num_gpus=num_gpus, max_concurrency=2).remote(root))
        self._starting[actor.handle.why_blind.remote(self._probe and str(self._probe))] = actor

    def _started(self, ref: Any, progress: Progress) -> None:
        actor = self._starting.pop(ref)
        try:
            blind = ray.get(ref)
        except ray.exceptions.RayActorError as error:  # its node went before it came up; `_hire` starts another
            self._stillborn += 1
            if self._stillborn > MOST_STILLBORN + len(self._starting):
                raise ValueError(
                    f"no worker comes up on the cluster: {_first_line(error)}; see session_latest/logs in Ray's folder"
                ) from error
            return
        self._stillborn = 0
        if blind:
            raise ray_cluster.blind_nodes(self._kind[0], [blind])
        self._idle.append(actor)
        up = len(self._idle) + len(self._busy)
        if self._kind[1] and up > self._reported:
            progress(0, {"gpu_workers": up - self._reported})
            self._reported = up

    def _let_go(self) -> None:
        """Stop the actors that no part needs, where others may want their GPUs or the autoscaler could stop nodes."""
        if not (self._kind[1] or self._autoscales):
            return
        for actor in [*self._starting.values(), *(actor for actor in self._idle if actor.counting is None)]:
            ray.kill(actor.handle)
        self._starting = {}
        self._idle = [actor for actor in self._idle if actor.counting is not None]

    def _stop_actors(self) -> None:
        for actor in [*self._idle, *self._starting.values(), *(actor for actor, _ in self._busy.values())]:
            ray.kill(actor.handle)
        self._idle, self._starting, self._busy, self._counting = [], {}, {}, {}
        if self._probe is not None:
            self._probe.unlink(missing_ok=True)
            self._probe = None

    def _answers(self) -> list[Any]:
        """Ask busy actors how far they are, each again only once it has answered; wait, and return all answers that
        have come. An actor that holds Python's lock for long keeps nobody waiting but itself."""
        now = time.monotonic()
        if now >= self._count_at:
            self._count_at = now + POLL_S * max(1.0, len(self._busy) / 100)
            for actor in [actor for ref, (actor, _) in self._busy.items() if ref in self._long and not actor.counting]:
                actor.counting = actor.handle.take_rows.remote()
                self._counting[actor.counting] = actor
            self._long = set(self._busy)
        refs = [*self._busy, *self._starting, *self._counting]
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        return ready or ray.wait(refs, timeout=POLL_S)[0]

    def _counted(self, ref: Any, progress: Progress) -> None:
        self._counting.pop(ref).counting = None
        try:
            progress(*ray.get(ref))
        except ray.exceptions.RayActorError:
            return  # its part's own answer says so too, and is dealt with there


def _lost(times: int, error: Exception) -> RuntimeError:
    return RuntimeError(f"its worker was lost {times} times, the last time with: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
