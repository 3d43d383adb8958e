"""Runs parts on Ray: actors are handed tasks, read and write the dataset themselves, and may die. Each kind of worker
has a pool. Only this module and `ray_cluster` import ray. No image crosses the object store: the names of files go in
and come out."""

from __future__ import annotations

import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from engine import ray_cluster
from engine.dataset import Dataset
from engine.ray_pool import Actor, Pool
from engine.ray_worker import Counts, PartWorker
from engine.runner import PartFailed, Queue, Runner, Task
from schemas.commit import write_bytes
from schemas.files import TEMPORARY, delete_files
from schemas.unread import StoreError

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


class RayRunner(Runner):
    """Runs jobs on the Ray cluster of `cluster_address`, or on one started here and stopped by `close`."""

    def __init__(self, workers: int | None, retries: int) -> None:
        """Connect. `workers`: of a job that asks for no number; None is one per CPU, or as many as the GPUs allow.
        Raises ValueError: the cluster does not answer, or refuses this user."""
        self._wanted, self._retries = workers, retries
        self._made: Any = ray.remote(PartWorker)
        self._root = ""
        self._pools: dict[float, Pool] = {}
        """GPUs of each actor -> the pool."""
        self._starting: dict[Any, Actor] = {}
        self._busy: dict[Any, tuple[Actor, Queue, Task]] = {}
        self._counting: dict[Any, Actor] = {}
        self._long: set[Any] = set()
        """Parts that were being computed when the driver asked last; one that is done brings its own counts."""
        self._hungry: list[Pool] = []
        """Pools with parts and without an actor when the driver looked last."""
        self._probe: Path | None = None
        self._queues: Sequence[Queue] = ()
        self._turn = self._stillborn = 0
        self._look_at = self._count_at = 0.0
        self._autoscales = False
        self._owns = not ray.is_initialized()
        self._alone = False
        if self._owns:
            self._alone = ray_cluster.connect()

    def run_queues(self, dataset: Dataset, queues: Sequence[Queue]) -> None:
        """See `Runner.run_queues`. A part whose worker or node is lost is handed out again, `retries` times. Raises
        ValueError: a worker needs more GPUs than any node has or could have, or a node does not see the dataset."""
        lost = Counter[tuple[int, int]]()
        try:
            self._prepare(dataset, queues)
            jobs = {queue: (place, ray.put(queue.job)) for place, queue in enumerate(queues)}
            while self._busy or any(queue.waiting for queue in queues):
                self._hire()
                self._hand_out(jobs)
                self._let_go()
                for ref in self._answers():
                    if ref in self._starting:
                        self._started(ref)
                    elif ref in self._counting:
                        self._counted(ref)
                    else:
                        self._take(ref, lost)
            while self._counting and (late := ray.wait([*self._counting], timeout=LAST_COUNTS_S)[0]):
                self._counted(late[0])
            self._let_go()
        except BaseException:
            self._stop_actors()  # workers that are still busy must not outlive the jobs
            raise

    def expect(self, dataset: Dataset, num_parts: int) -> None:
        """See `Runner.expect`. Nothing is started where workers are up already. Raises as `run_queues`."""
        if not self._pools:
            self._prepare(dataset, ())
            pool = self._pools[0] = Pool(0)
            for _ in range(min(num_parts, self._wanted or _num_cpus())):
                self._start(pool)

    def close(self) -> None:
        """Stop the workers, and the cluster where it was started here."""
        self._stop_actors()
        if self._owns and ray.is_initialized():
            ray.shutdown()

    def _prepare(self, dataset: Dataset, queues: Sequence[Queue]) -> None:
        """Put each queue to a pool, get all other actors out of the way, and see that all nodes can do the jobs."""
        self._autoscales = not self._alone and ray_cluster.autoscaler() is not None
        if self._root != str(dataset.root):
            self._stop_actors()
            self._root = str(dataset.root)
        self._queues, gpus = queues, ray_cluster.gpus_of_nodes()
        for pool in self._pools.values():
            pool.queues, pool.holders, pool.suspected, pool.told = {}, {}, set(), Counter()
            for actor in pool.actors:
                actor.queue = actor.counting = None
        self._counting = {}  # of another run, whose counts nobody waits for
        for queue in queues:
            if queue.waiting or queue.to_come:
                slots = ray_cluster.gpu_slots(queue.job, gpus, ray_cluster.could_start if self._autoscales else None)
                pool = self._pools.setdefault(slots.num_gpus, Pool(slots.num_gpus))
                pool.queues[queue] = queue.job.workers or self._wanted or sys.maxsize
                pool.holders[queue], pool.gpu_workers = set(), slots.count
        for pool in self._pools.values():
            if not pool.queues:
                self._stop(pool.actors)
        if not self._alone and self._probe is None:
            self._probe = dataset.root / f"{TEMPORARY}{uuid.uuid4().hex}"
            write_bytes(self._probe, b"")
            ray_cluster.see_all(self._probe)
        self._turn += 1
        self._look_at, self._hungry = 0.0, []

    def _hire(self) -> None:
        """Start actors for the parts that have none, as many as there is room for; new nodes make room."""
        pools = [pool for pool in self._pools.values() if pool.queues]
        if time.monotonic() >= self._look_at:
            self._look(pools)
        busy = Counter(actor.queue for actor in {actor for actor, *_ in self._busy.values()} if actor.queue)
        for pool in pools:
            for _ in range(len(pool.actors), pool.num_wanted(busy)):
                self._start(pool)

    def _num_up(self, pool: Pool) -> int:
        return len(pool.actors) - sum(actor.pool is pool for actor in self._starting.values())

    def _look(self, pools: Sequence[Pool]) -> None:
        """Count the room for each pool. Where one gets no actor, idle ones of others make way."""
        self._look_at = time.monotonic() + NODES_EVERY_S
        for pool in pools:
            pool.room = self._count_room(pool)
        hungry = [pool for pool in pools if pool.num_waiting and not self._num_up(pool)]
        if not set(hungry).isdisjoint(self._hungry):
            for pool in pools:
                if not pool.num_waiting:
                    self._stop(pool.idle)
        self._hungry = hungry

    def _count_room(self, pool: Pool) -> int:
        most = max(pool.queues.values())
        if self._autoscales:
            return min(most, MOST_WORKERS)
        if pool.num_gpus:
            return min(most, max(1, ray_cluster.slots_of(pool.num_gpus, ray_cluster.gpus_of_nodes())))
        return most if most < sys.maxsize else _num_cpus()

    def _start(self, pool: Pool) -> None:
        """Ask for an actor. It gets a part only once it runs: a cluster that has lost a node may have no room for it,
        and a part that was promised to it would wait for ever while the others stand idle. One with a GPU takes no CPU
        from the others, which may hold all of them."""
        # one thread or two work, one answers take_counts
        options = {"num_cpus": 0 if pool.num_gpus else 1, "num_gpus": pool.num_gpus, "max_concurrency": 3}
        actor = Actor(self._made.options(**options).remote(self._root, bool(pool.num_gpus)), pool)
        pool.actors.add(actor)
        self._starting[actor.handle.why_blind.remote(self._probe and str(self._probe))] = actor

    def _started(self, ref: Any) -> None:
        actor = self._starting.pop(ref)
        pool = actor.pool
        try:
            blind = ray.get(ref)
        except ray.exceptions.RayActorError as error:  # its node went before it came up; `_hire` starts another
            pool.drop(actor)
            self._stillborn += 1
            if self._stillborn > MOST_STILLBORN + len(self._starting):
                raise ValueError(
                    f"no worker comes up on the cluster: {_first_line(error)}; see session_latest/logs in Ray's folder"
                ) from error
            return
        self._stillborn = 0
        if blind:
            raise ray_cluster.blind_nodes(self._root, [blind])
        pool.idle.append(actor)
        if pool.num_gpus:
            pool.gpu_workers = max(pool.gpu_workers, self._num_up(pool))

    def _hand_out(self, jobs: Mapping[Queue, tuple[int, Any]]) -> None:
        for pool in self._pools.values():
            for actor in pool.with_room():
                if (queue := pool.queue_for(actor)) is None:
                    continue
                pool.give(actor, queue)
                (place, job_ref), task = jobs[queue], queue.take()
                if more := pool.gpu_workers - pool.told[queue]:
                    queue.progress(0, {"gpu_workers": more})
                    pool.told[queue] += more
                self._busy[actor.handle.run.remote(self._turn, place, job_ref, task)] = actor, queue, task

    def _take(self, ref: Any, lost: Counter[tuple[int, int]]) -> None:
        """Take the answer of an actor that was given a part."""
        actor, queue, task = self._busy.pop(ref)
        job, number = queue.job.job, task.number
        try:
            part, counts = ray.get(ref)
        except ray.exceptions.RayError as error:
            cause = error.cause or error if isinstance(error, ray.exceptions.RayTaskError) else error
            if isinstance(cause, StoreError):
                actor.pool.take_back(actor)
            elif isinstance(error, ray.exceptions.RayActorError):
                actor.pool.drop(actor)
                actor.pool.suspected.add(queue)
            else:
                raise PartFailed(job, number, cause) from error
            place = self._queues.index(queue), number
            lost[place] += 1
            if lost[place] > self._retries:
                why = cause if isinstance(cause, StoreError) else _lost(lost[place], error)
                raise PartFailed(job, number, why) from error
            queue.put_back(task)
        else:
            self._count(counts)
            actor.pool.take_back(actor)
            queue.committed(task, part)

    def _let_go(self) -> None:
        """Stop the actors that no part needs any more, where others may want their GPUs or the autoscaler could stop
        nodes."""
        for pool in self._pools.values():
            if pool.num_gpus or self._autoscales:
                if (surplus := len(pool.idle) - pool.num_left) > 0:
                    self._stop(pool.idle[:surplus])
                if not pool.num_left:
                    self._stop([actor for actor in self._starting.values() if actor.pool is pool])

    def _stop(self, actors: Iterable[Actor]) -> None:
        """Stop actors that compute nothing; not those whose counts are on their way."""
        for actor in [actor for actor in actors if actor.counting is None]:
            ray.kill(actor.handle)
            actor.pool.drop(actor)
            self._starting = {ref: other for ref, other in self._starting.items() if other is not actor}

    def _stop_actors(self) -> None:
        for pool in self._pools.values():
            for actor in pool.actors:
                ray.kill(actor.handle)
        self._pools, self._starting, self._busy, self._counting = {}, {}, {}, {}
        if self._probe is not None:
            delete_files(self._probe)
            self._probe = None

    def _answers(self) -> list[Any]:
        """Ask busy actors how far they are, each again only once it has answered; wait, and return all answers that
        have come. An actor that holds Python's lock for long keeps nobody waiting but itself."""
        now = time.monotonic()
        if now >= self._count_at:
            self._count_at = now + POLL_S * max(1.0, len(self._busy) / 100)
            for actor in {actor for ref, (actor, *_) in self._busy.items() if ref in self._long and not actor.counting}:
                actor.counting = actor.handle.take_counts.remote()
                self._counting[actor.counting] = actor
            self._long = set(self._busy)
        refs = [*self._busy, *self._starting, *self._counting]
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        return ready or ray.wait(refs, timeout=POLL_S)[0]

    def _counted(self, ref: Any) -> None:
        self._counting.pop(ref).counting = None
        try:
            self._count(ray.get(ref))
        except ray.exceptions.RayActorError:
            return  # its part's own answer says so too, and is dealt with there

    def _count(self, counts: Counts) -> None:
        for queue, counted in counts.items():
            self._queues[queue].progress(*counted)


def _num_cpus() -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _lost(times: int, error: Exception) -> RuntimeError:
    return RuntimeError(f"its worker was lost {times} times, the last time with: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
