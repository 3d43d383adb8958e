from __future__ import annotations

from collections import Counter, deque
from pathlib import Path

import pytest

from engine.ray_pool import Actor, Pool
from engine.runner import Queue, Task
from tests.engine.flowing import jobs


def queues(*waiting: int, overlaps: bool = False) -> list[Queue]:
    made, own = [], {"own": {"overlaps": overlaps}}
    for job, number in zip(jobs(Path("/nothing"), clean=own, aesthetic=own, mix=own), waiting, strict=False):
        made.append(Queue(job, deque(map(Task, range(number))), lambda *_: None, lambda *_: None))
    return made


def pool_of(
    *limits: int, num_gpus: float = 0, actors: int = 3, waiting: tuple[int, ...] = (5, 5, 5), overlaps: bool = False
) -> Pool:
    pool = Pool(num_gpus, room=99)
    for queue, limit in zip(queues(*waiting, overlaps=overlaps), limits, strict=False):
        pool.queues[queue], pool.holders[queue] = limit, set()
    for name in range(actors):
        actor = Actor(name, pool)
        pool.actors.add(actor)
        pool.idle.append(actor)
    return pool


def hand_out(pool: Pool, actor: Actor) -> str | None:
    """Give an actor a part, and have it done at once; the job of the part."""
    queue = pool.queue_for(actor)
    if queue is None:
        return None
    pool.give(actor, queue)
    queue.take()
    pool.take_back(actor)
    return queue.job.job


def test_a_part_of_the_last_job_comes_first() -> None:
    pool = pool_of(9, 9, 9, waiting=(2, 1, 1))
    (actor, *_) = pool.idle
    assert [hand_out(pool, actor) for _ in range(5)] == ["mix", "aesthetic", "clean", "clean", None]


def test_an_actor_with_a_gpu_stays_with_the_weights_it_has() -> None:
    pool = pool_of(9, 9, num_gpus=1, waiting=(2, 0))
    (actor, *_), (first, last) = pool.idle, pool.queues
    assert hand_out(pool, actor) == "clean"
    last.waiting.append(Task(0))
    assert [hand_out(pool, actor) for _ in range(3)] == ["clean", "aesthetic", None]
    assert not pool.holders[first] and pool.holders[last] == {actor}


def test_no_more_actors_than_a_job_asks_for_load_its_worker() -> None:
    pool = pool_of(9, 1, waiting=(1, 3))
    one, other, _ = pool.idle
    assert hand_out(pool, one) == "aesthetic"
    assert hand_out(pool, other) == "clean"
    assert hand_out(pool, other) is None
    assert hand_out(pool, one) == "aesthetic"
    pool.drop(one)
    assert one not in pool.idle and one not in pool.actors
    assert hand_out(pool, other) == "aesthetic", "in place of the one that is gone"


def test_as_many_actors_are_wanted_as_have_a_part() -> None:
    pool = pool_of(9, 2, waiting=(1, 5))
    first, last = pool.queues
    assert pool.num_wanted(Counter()) == 1 + 2
    assert pool.num_wanted(Counter({first: 3, last: 2})) == 4 + 2
    pool.room = 4
    assert pool.num_wanted(Counter({first: 3, last: 2})) == 4


def given(pool: Pool) -> list[str]:
    """Hand out what may be handed out; the job of each part."""
    jobs = []
    while found := [(actor, queue) for actor in pool.with_room() if (queue := pool.queue_for(actor)) is not None]:
        (actor, queue), *_ = found
        pool.give(actor, queue)
        queue.take()
        jobs.append(queue.job.job)
    return jobs


def test_a_gpu_has_a_second_part_while_as_many_wait_as_there_are_actors() -> None:
    pool = pool_of(9, num_gpus=1, actors=2, waiting=(9,), overlaps=True)
    assert given(pool) == ["clean"] * 4 and not pool.idle
    assert {actor.num_parts for actor in pool.actors} == {2}
    (queue,) = pool.queues
    while len(queue.waiting) > 2:
        queue.take()
    for actor in pool.actors:
        pool.take_back(actor)
    assert len(given(pool)) == 1, "one that waits is left for the actor that is idle first"
    assert len(queue.waiting) == 1


@pytest.mark.parametrize(("num_gpus", "overlaps"), [(0, True), (1, False)])
def test_others_have_one_part_at_a_time(num_gpus: float, overlaps: bool) -> None:
    pool = pool_of(9, num_gpus=num_gpus, actors=2, waiting=(9,), overlaps=overlaps)
    assert len(given(pool)) == 2 and not pool.idle


def test_the_second_part_is_of_the_job_whose_weights_are_loaded() -> None:
    pool = pool_of(9, 9, num_gpus=1, actors=1, waiting=(3, 0), overlaps=True)
    first, last = pool.queues
    (actor,) = pool.actors
    pool.give(actor, first)
    first.take()
    last.waiting.append(Task(0))
    assert given(pool) == ["clean"]
    first.waiting.clear()
    pool.take_back(actor)
    assert given(pool) == [], "it still computes a part of the first job"
    pool.take_back(actor)
    assert given(pool) == ["aesthetic"]


def test_parts_of_a_job_that_lost_an_actor_are_computed_one_at_a_time() -> None:
    pool = pool_of(9, num_gpus=1, actors=1, waiting=(9,), overlaps=True)
    pool.suspected.update(pool.queues)
    assert len(given(pool)) == 1
