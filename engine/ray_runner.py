"""Runs parts on Ray: actors are handed part numbers, read and write the dataset themselves, and may die.

The only module that imports ray. No image crosses the object store: a part number goes in, a flag comes out.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import ray
import ray.exceptions

from engine.dataset import Dataset
from engine.runner import PartDone, PartFailed, PartJob, Progress, once

POLL_S = 0.3
"""How often the driver asks busy workers how far they are, in seconds."""

CONNECT_TIMEOUT_S = 10.0

OBJECT_STORE_BYTES = 80_000_000
"""Object store of a cluster started here: no image data passes through it."""


@dataclass(frozen=True)
class GpuSlots:
    """What a job gets of the cluster's GPUs."""

    num_gpus: float
    """of each worker"""
    count: int
    """workers that have room at once; 0 where they hold none"""


def gpu_slots(job: PartJob, gpus_of_nodes: Sequence[float]) -> GpuSlots:
    """Share the GPUs out. A worker runs on one node, so a node's remainder is of no use to it.

    Raises:
        ValueError: no node has as many as a worker needs, and it would wait for ever.
    """
    num_gpus = job.num_gpus
    if num_gpus is None:
        num_gpus = 1 if any(gpus >= 1 for gpus in gpus_of_nodes) else 0
    if not num_gpus:
        return GpuSlots(0, 0)
    count = sum(int(gpus / num_gpus + 1e-6) for gpus in gpus_of_nodes)
    if not count:
        raise ValueError(
            f"{job.job}: gpus_per_worker={num_gpus:g}: the largest node of the cluster has "
            f"{max(gpus_of_nodes, default=0):g} GPUs; set it to 0 to compute on the CPU, or add a node that has them"
        )
    return GpuSlots(num_gpus, count)


class PartWorker:
    """One actor: builds the worker of a job once, then runs the parts it is handed."""

    def __init__(self, root: str) -> None:
        self._dataset = Dataset(Path(root))
        self._lock = Lock()  # one thread counts, another asks
        self._turn = -1
        self._worker: Callable[[], Any] | None = None
        self._rows = 0
        self._counts = Counter[str]()

    def run(self, turn: int, job: PartJob, number: int) -> bool:
        """Compute and commit a part; True unless it was taken over.

        Args:
            turn: counts the jobs of the runner; a new one drops the last job's worker and its weights.
        """
        if self._worker is None or turn != self._turn:
            self._turn, self._worker = turn, once(job.build)
        return job.run_part(self._dataset, self._worker, number, self._count)

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


class RayRunner:
    """Runs jobs on a Ray cluster: the one RAY_ADDRESS names, or one started here and stopped by `close`."""

    def __init__(self, workers: int | None, retries: int) -> None:
        """Connect.

        Args:
            workers: of a job that asks for no number; None is one per CPU, or as many as the GPUs allow.

        Raises:
            ValueError: RAY_ADDRESS names a cluster that does not answer.
        """
        self._wanted, self._retries = workers, retries
        self._actors: list[Any] = []
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._kind: tuple[str, float, int | None] = ("", 0, None)
        """Of the actors that are up: the dataset, the GPUs each holds, and how many workers a job asked for."""
        self._turn = 0
        self._owns = not ray.is_initialized()
        if self._owns:
            connect()

    def run(self, dataset: Dataset, job: PartJob, parts: Sequence[int], progress: Progress) -> list[PartDone]:
        """See `Runner.run`. A part whose worker or node is lost is handed out again, `retries` times.

        Raises:
            ValueError: a worker needs more GPUs than any node of the cluster has.
        """
        slots = gpu_slots(job, [node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]])
        kind = (str(dataset.root), slots.num_gpus, job.workers)
        if self._kind != kind:
            self._stop_actors()
            self._kind = kind
        if slots.count:
            progress(0, {"gpu_workers": slots.count})
        self._grow(min(self._num_workers(job, slots), len(parts)))
        self._turn += 1
        job_ref = ray.put(job)
        waiting = deque(parts)
        busy: dict[Any, tuple[Any, int]] = {}
        lost: dict[int, int] = {}
        done: list[PartDone] = []
        try:
            while waiting or busy:
                while self._idle and waiting:
                    actor, number = self._idle.pop(), waiting.popleft()
                    busy[actor.run.remote(self._turn, job_ref, number)] = (actor, number)
                ready, _ = ray.wait([*busy, *self._starting], timeout=POLL_S)
                self._poll([actor for actor, _ in busy.values()], progress)
                for ref in ready:
                    if ref in self._starting:
                        self._started(ref)
                        continue
                    actor, number = busy.pop(ref)
                    try:
                        done.append(PartDone(number, ray.get(ref)))
                    except ray.exceptions.RayActorError as error:
                        lost[number] = lost.get(number, 0) + 1
                        if lost[number] > self._retries:
                            raise PartFailed(job.job, number, _lost(lost[number], error)) from error
                        waiting.append(number)
                        self._start()
                    except ray.exceptions.RayTaskError as error:
                        raise PartFailed(job.job, number, error.cause or error) from error
                    else:
                        self._poll([actor], progress)
                        self._idle.append(actor)
        except BaseException:
            self._stop_actors()  # workers that are still busy must not outlive the job
            raise
        return done

    def close(self) -> None:
        """Stop the workers, and the cluster where it was started here."""
        self._stop_actors()
        if self._owns and ray.is_initialized():
            ray.shutdown()

    def _num_workers(self, job: PartJob, slots: GpuSlots) -> int:
        if slots.num_gpus:
            return min(job.workers or self._wanted or slots.count, slots.count)
        return job.workers or self._wanted or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def _grow(self, count: int) -> None:
        while len(self._idle) + len(self._starting) < count:
            self._start()

    def _start(self) -> None:
        """Ask for an actor. It gets a part only once it runs: a cluster that has lost a node may have no room for it,
        and a part that was promised to it would wait for ever while the others stand idle."""
        actor: Any = ray.remote(PartWorker)
        # one thread works, one answers take_rows
        root, num_gpus, _ = self._kind
        started = actor.options(num_cpus=1, num_gpus=num_gpus, max_concurrency=2).remote(root)
        self._actors.append(started)
        self._starting[started.take_rows.remote()] = started

    def _started(self, ref: Any) -> None:
        actor = self._starting.pop(ref)
        try:
            ray.get(ref)
        except ray.exceptions.RayActorError:
            self._start()  # its node went before it came up
        else:
            self._idle.append(actor)

    def _stop_actors(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
        self._actors, self._idle, self._starting = [], [], {}

    def _poll(self, actors: list[Any], progress: Progress) -> None:
        refs = [actor.take_rows.remote() for actor in actors]
        if not refs:
            return
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=POLL_S)
        for ref in ready:
            try:
                progress(*ray.get(ref))
            except ray.exceptions.RayActorError:
                continue  # its part's own answer says so too, and is dealt with there


def _lost(times: int, error: Exception) -> RuntimeError:
    why = str(error).strip().splitlines()
    return RuntimeError(f"its worker was lost {times} times, the last time with: {why[0] if why else 'no message'}")


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine.

    Raises:
        ValueError: the named cluster does not answer.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address is not None:
        _knock(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray 2.60 announces a change of a GPU default on every start; it does not concern parts.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address or "local", **options)  # None would join a cluster that somebody else runs here
    except SystemExit:
        raise KeyboardInterrupt from None  # Ray's answer to SIGTERM
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """Ray itself tries an address for minutes before it says that nobody is there."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        return  # 'auto' and 'local' are Ray's own words
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ValueError(
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({error.strerror or error}); "
            "start it, or unset RAY_ADDRESS to use this machine alone"
        ) from None
