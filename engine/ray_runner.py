"""Runs parts on Ray: actors are handed tasks, read and write the dataset themselves, and may die. Each kind of
worker has a pool.

Only this module and `ray_cluster` import ray. No image crosses the object store: the names of files go in and
come out.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from engine import ray_cluster
from engine.dataset import Dataset
from engine.ray_worker import Counts, PartWorker
from engine.runner import Lane, PartFailed, Runner, Task
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


@dataclass(eq=False)
class _Actor:
    handle: Any
    pool: _Pool
    lane: Lane | None = None
    """Whose part it has computed last, or computes."""
    counting: Any = None
    """The answer to `take_counts` that is on its way."""


@dataclass(eq=False)
class _Pool:
    """The actors of one kind."""

    num_gpus: float
    """of each"""
    workers: int | None
    """that its jobs ask for; None is as many as there is room for"""
    actors: set[_Actor] = field(default_factory=set)
    idle: list[_Actor] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)
    """of the present run, in order"""
    room: int = 0
    gpu_workers: int = 0
    """that there is room for, or that were up at once"""
    told: Counter[Lane] = field(default_factory=Counter)
    """The same, as the counts of each lane have it."""

    @property
    def num_waiting(self) -> int:
        return sum(len(lane.waiting) for lane in self.lanes)

    @property
    def num_left(self) -> int:
        """Parts that wait or may come."""
        return sum(len(lane.waiting) + lane.to_come for lane in self.lanes)

    def lane_for(self, actor: _Actor) -> Lane | None:
        """Choose whose part an idle actor computes: of the last lane, for whatever comes after it. One with a GPU stays
        with the weights that it has."""
        if self.num_gpus and actor.lane in self.lanes and actor.lane is not None and actor.lane.waiting:
            return actor.lane
        return next((lane for lane in reversed(self.lanes) if lane.waiting), None)


class RayRunner(Runner):
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
        self._root = ""
        self._pools: dict[tuple[float, int | None], _Pool] = {}
        self._starting: dict[Any, _Actor] = {}
        self._busy: dict[Any, tuple[_Actor, Lane, Task]] = {}
        self._counting: dict[Any, _Actor] = {}
        self._long: set[Any] = set()
        """Parts that were being computed when the driver asked last; one that is done brings its own counts."""
        self._hungry: list[_Pool] = []
        """Pools with parts and without an actor when the driver looked last."""
        self._probe: Path | None = None
        self._lanes: Sequence[Lane] = ()
        self._turn = self._stillborn = 0
        self._look_at = self._count_at = 0.0
        self._autoscales = False
        self._owns = not ray.is_initialized()
        self._alone = False
        if self._owns:
            self._alone = ray_cluster.connect()

    def run_lanes(self, dataset: Dataset, lanes: Sequence[Lane]) -> None:
        """See `Runner.run_lanes`. A part whose worker or node is lost is handed out again, `retries` times.

        Raises:
            ValueError: a worker needs more GPUs than any node has or could have, or a node does not see the dataset.
        """
        lost = Counter[tuple[int, int]]()
        try:
            self._prepare(dataset, lanes)
            jobs = {lane: (place, ray.put(lane.job)) for place, lane in enumerate(lanes)}
            while self._busy or any(lane.waiting for lane in lanes):
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

    def close(self) -> None:
        """Stop the workers, and the cluster where it was started here."""
        self._stop_actors()
        if self._owns and ray.is_initialized():
            ray.shutdown()

    def _prepare(self, dataset: Dataset, lanes: Sequence[Lane]) -> None:
        """Put each lane to the pool of its kind, get all other actors out of the way, and see that all nodes can do the
        jobs."""
        self._autoscales = not self._alone and ray_cluster.autoscaler() is not None
        if self._root != str(dataset.root):
            self._stop_actors()
            self._root = str(dataset.root)
        self._lanes, gpus = lanes, ray_cluster.gpus_of_nodes()
        for pool in self._pools.values():
            pool.lanes, pool.told = [], Counter()
            for actor in pool.actors:
                actor.counting = None
        self._counting = {}  # of another run, whose counts nobody waits for
        for lane in lanes:
            if lane.waiting or lane.to_come:
                slots = ray_cluster.gpu_slots(lane.job, gpus, ray_cluster.could_start if self._autoscales else None)
                kind = slots.num_gpus, lane.job.workers
                pool = self._pools.setdefault(kind, _Pool(*kind))
                pool.lanes.append(lane)
                pool.gpu_workers = slots.count
        for pool in self._pools.values():
            if not pool.lanes:
                self._stop(pool.actors)
        if not self._alone and self._probe is None:
            self._probe = dataset.root / f"{TEMPORARY}{uuid.uuid4().hex}"
            self._probe.touch()
            ray_cluster.see_all(self._probe)
        self._turn += 1
        self._look_at, self._hungry = 0.0, []

    def _hire(self) -> None:
        """Start actors for the parts that have none, as many as there is room for; new nodes make room."""
        pools = [pool for pool in self._pools.values() if pool.lanes]
        if time.monotonic() >= self._look_at:
            self._look(pools)
        for pool in pools:
            num_busy = self._num_up(pool) - len(pool.idle)
            for _ in range(len(pool.actors), min(pool.room, num_busy + pool.num_waiting)):
                self._start(pool)

    def _num_up(self, pool: _Pool) -> int:
        return len(pool.actors) - sum(actor.pool is pool for actor in self._starting.values())

    def _look(self, pools: Sequence[_Pool]) -> None:
        """Count the room for each pool. Idle actors make way where there are too many, or others come up nowhere."""
        self._look_at = time.monotonic() + NODES_EVERY_S
        sharing = [pool for pool in pools if not pool.num_gpus and (pool.num_left or len(pool.actors) > len(pool.idle))]
        for pool in pools:
            pool.room = self._count_room(pool, [other for other in sharing if other is not pool])
            self._stop(pool.idle[: max(0, len(pool.actors) - pool.room)])
        hungry = [pool for pool in pools if pool.num_waiting and not self._num_up(pool)]
        if not set(hungry).isdisjoint(self._hungry):
            for pool in pools:
                if not pool.num_waiting:
                    self._stop(pool.idle)
        self._hungry = hungry

    def _count_room(self, pool: _Pool, others: Sequence[_Pool]) -> int:
        """Actors of a pool. Those on CPUs share these: what a job asks for comes first, and each has one."""
        wanted = pool.workers or self._wanted
        if self._autoscales:
            return wanted or MOST_WORKERS
        if pool.num_gpus:
            fit = max(1, ray_cluster.slots_of(pool.num_gpus, ray_cluster.gpus_of_nodes()))
            return min(wanted or fit, fit)
        if not others:
            return wanted or max(1, int(ray.cluster_resources().get("CPU", 1)))
        cpus = int(ray.cluster_resources().get("CPU", 1))
        left = cpus - sum(1 if pool.workers else other.workers or 1 for other in others)
        return max(1, min(wanted or left, left))

    def _start(self, pool: _Pool) -> None:
        """Ask for an actor. It gets a part only once it runs: a cluster that has lost a node may have no room for it,
        and a part that was promised to it would wait for ever while the others stand idle. One with a GPU takes no CPU
        from the others, which may hold all of them."""
        # one thread works, one answers take_counts
        options = {"num_cpus": 0 if pool.num_gpus else 1, "num_gpus": pool.num_gpus, "max_concurrency": 2}
        actor = _Actor(self._made.options(**options).remote(self._root, bool(pool.num_gpus)), pool)
        pool.actors.add(actor)
        self._starting[actor.handle.why_blind.remote(self._probe and str(self._probe))] = actor

    def _started(self, ref: Any) -> None:
        actor = self._starting.pop(ref)
        pool = actor.pool
        try:
            blind = ray.get(ref)
        except ray.exceptions.RayActorError as error:  # its node went before it came up; `_hire` starts another
            pool.actors.discard(actor)
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

    def _hand_out(self, jobs: Mapping[Lane, tuple[int, Any]]) -> None:
        for pool in self._pools.values():
            while pool.idle and (lane := pool.lane_for(pool.idle[-1])) is not None:
                actor, (place, job_ref) = pool.idle.pop(), jobs[lane]
                actor.lane, task = lane, lane.take()
                if more := pool.gpu_workers - pool.told[lane]:
                    lane.progress(0, {"gpu_workers": more})
                    pool.told[lane] += more
                self._busy[actor.handle.run.remote(self._turn, place, job_ref, task)] = actor, lane, task

    def _take(self, ref: Any, lost: Counter[tuple[int, int]]) -> None:
        """Take the answer of an actor that was given a part."""
        actor, lane, task = self._busy.pop(ref)
        job, number = lane.job.job, task.number
        try:
            files, counts = ray.get(ref)
        except ray.exceptions.RayActorError as error:
            actor.pool.actors.discard(actor)
            place = self._lanes.index(lane), number
            lost[place] += 1
            if lost[place] > self._retries:
                raise PartFailed(job, number, _lost(lost[place], error)) from error
            lane.waiting.append(task)
        except ray.exceptions.RayTaskError as error:
            raise PartFailed(job, number, error.cause or error) from error
        else:
            self._count(counts)
            actor.pool.idle.append(actor)
            lane.committed(task, files)

    def _let_go(self) -> None:
        """Stop the actors that no part needs any more, where others may want their GPUs or the autoscaler could stop
        nodes."""
        for pool in self._pools.values():
            if pool.num_gpus or self._autoscales:
                if (surplus := len(pool.idle) - pool.num_left) > 0:
                    self._stop(pool.idle[:surplus])
                if not pool.num_left:
                    self._stop([actor for actor in self._starting.values() if actor.pool is pool])

    def _stop(self, actors: Iterable[_Actor]) -> None:
        """Stop actors that compute nothing; not those whose counts are on their way."""
        for actor in [actor for actor in actors if actor.counting is None]:
            ray.kill(actor.handle)
            actor.pool.actors.discard(actor)
            if actor in actor.pool.idle:
                actor.pool.idle.remove(actor)
            self._starting = {ref: other for ref, other in self._starting.items() if other is not actor}

    def _stop_actors(self) -> None:
        for pool in self._pools.values():
            for actor in pool.actors:
                ray.kill(actor.handle)
        self._pools, self._starting, self._busy, self._counting = {}, {}, {}, {}
        if self._probe is not None:
            self._probe.unlink(missing_ok=True)
            self._probe = None

    def _answers(self) -> list[Any]:
        """Ask busy actors how far they are, each again only once it has answered; wait, and return all answers that
        have come. An actor that holds Python's lock for long keeps nobody waiting but itself."""
        now = time.monotonic()
        if now >= self._count_at:
            self._count_at = now + POLL_S * max(1.0, len(self._busy) / 100)
            for actor in [actor for ref, (actor, *_) in self._busy.items() if ref in self._long and not actor.counting]:
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
        for lane, counted in counts.items():
            self._lanes[lane].progress(*counted)


def _lost(times: int, error: Exception) -> RuntimeError:
    return RuntimeError(f"its worker was lost {times} times, the last time with: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
