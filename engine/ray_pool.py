"""A pool of actors on Ray: which of them have loaded what, and whose part each computes next."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from engine.runner import Queue


@dataclass(eq=False)
class Actor:
    """A process that computes parts, as the driver sees it."""

    handle: Any
    pool: Pool
    queue: Queue | None = None
    """Whose part it has computed last, or computes."""
    num_parts: int = 0
    """that it computes"""
    counting: Any = None
    """The answer to `take_counts` that is on its way."""


@dataclass(eq=False)
class Pool:
    """The actors that hold so many GPUs each."""

    num_gpus: float
    actors: set[Actor] = field(default_factory=set)
    idle: list[Actor] = field(default_factory=list)
    queues: dict[Queue, int] = field(default_factory=dict)
    """Those of the present run, in order, and the most actors that may load the worker of each."""
    holders: dict[Queue, set[Actor]] = field(default_factory=dict)
    """The actors that have loaded it."""
    room: int = 0
    gpu_workers: int = 0
    """that there is room for, or that were up at once"""
    suspected: set[Queue] = field(default_factory=set)
    """Those one of whose parts may have taken its actor with it."""
    told: Counter[Queue] = field(default_factory=Counter)
    """The same, as the counts of each queue have it."""

    @property
    def num_waiting(self) -> int:
        """Parts that wait."""
        return sum(len(queue.waiting) for queue in self.queues)

    @property
    def num_left(self) -> int:
        """Parts that wait or may come."""
        return sum(len(queue.waiting) + queue.to_come for queue in self.queues)

    def num_wanted(self, busy: Counter[Queue]) -> int:
        """Actors that would have a part."""
        return min(self.room, sum(min(most, busy[queue] + len(queue.waiting)) for queue, most in self.queues.items()))

    def with_room(self) -> list[Actor]:
        """The actors that may have a part, idle ones first."""
        busy = [actor for actor in self.actors if actor.num_parts == 1] if self.num_gpus else []
        return [*reversed(self.idle), *busy]

    def queue_for(self, actor: Actor) -> Queue | None:
        """Choose whose part an actor computes: an idle one that of the last queue, for the sake of whatever comes after
        it. One with a GPU stays with the weights that it has. A busy one has a second part of its queue, see
        `engine.runner.PartJob.overlaps`, but not of the last ones, which then would wait for it and not for an idle
        one."""
        if actor.num_parts and (queue := actor.queue) is not None:
            enough = len(queue.waiting) >= len(self.actors) and queue not in self.suspected
            return queue if enough and queue.job.overlaps else None
        waiting = (queue for queue in reversed(self.queues) if queue.waiting)
        mine = [
            queue for queue in waiting if actor in self.holders[queue] or len(self.holders[queue]) < self.queues[queue]
        ]
        return actor.queue if self.num_gpus and actor.queue in mine else next(iter(mine), None)

    def give(self, actor: Actor, queue: Queue) -> None:
        """Let an actor have a part of a queue."""
        actor.num_parts += 1
        if actor.num_parts > 1:
            return
        self.idle.remove(actor)
        if self.num_gpus and actor.queue in self.holders:
            self.holders[actor.queue].discard(actor)
        actor.queue = queue
        self.holders[queue].add(actor)

    def take_back(self, actor: Actor) -> None:
        """Hear that an actor has ended with a part."""
        actor.num_parts -= 1
        if not actor.num_parts:
            self.idle.append(actor)

    def drop(self, actor: Actor) -> None:
        """Forget an actor that is no more."""
        self.actors.discard(actor)
        self.idle = [other for other in self.idle if other is not actor]
        for holders in self.holders.values():
            holders.discard(actor)
