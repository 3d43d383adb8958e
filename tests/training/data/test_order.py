"""The order: a pure function of position that loses nothing."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.order import BatchOrder

rows_strategy = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from([(16, 16), (16, 32), (32, 16)])), min_size=1, max_size=60
)


def order_of(rows, batch=4, seed=0, window=1000) -> BatchOrder:
    rows = sorted(rows)
    return BatchOrder([shard for shard, _ in rows], [shape for _, shape in rows], batch, seed, window)


@given(rows=rows_strategy, batch=st.integers(1, 9), seed=st.integers(-5, 5), window=st.integers(1, 70))
@settings(max_examples=60, deadline=None)
def test_an_epoch_deals_every_row_in_batches_of_one_shape(rows, batch, seed, window):
    order = order_of(rows, batch, seed, window)
    shapes = [shape for _, shape in sorted(rows)]
    seen: Counter[int] = Counter()
    draws = set()
    for step in range(len(order)):
        dealt = order.batch(step)
        assert len(dealt.rows) == batch
        assert {shapes[row] for row in dealt.rows} == {dealt.shape}
        seen.update(dealt.rows.tolist())
        draws.update(zip(dealt.rows.tolist(), dealt.occurrences.tolist(), strict=True))
    assert set(seen) == set(range(len(rows)))
    assert len(draws) == sum(seen.values())  # a row that comes again has another occurrence, so other noise
    for shape in set(shapes):  # no row of a shape comes more than one time more often than another
        counts = [seen[row] for row in range(len(rows)) if shapes[row] == shape]
        assert max(counts) - min(counts) <= 1


@given(rows=rows_strategy, steps=st.lists(st.integers(0, 200), min_size=1, max_size=10))
@settings(max_examples=30, deadline=None)
def test_a_batch_depends_on_its_step_alone(rows, steps):
    walked, jumped = order_of(rows), order_of(rows)
    all_steps = [walked.batch(step) for step in range(max(steps) + 1)]
    for step in steps:
        a, b = all_steps[step], jumped.batch(step)
        assert a.epoch == b.epoch and a.shape == b.shape
        assert np.array_equal(a.rows, b.rows) and np.array_equal(a.occurrences, b.occurrences)


def test_epochs_and_seeds_differ():
    rows = [("a", (16, 16))] * 40
    first, other_seed = order_of(rows, seed=1), order_of(rows, seed=2)
    epoch = [first.batch(step).rows.tolist() for step in range(10)]
    assert epoch != [first.batch(10 + step).rows.tolist() for step in range(10)]
    assert epoch != [other_seed.batch(step).rows.tolist() for step in range(10)]


def test_reads_stay_within_a_window_of_whole_shards():
    rows = [(f"shard{i // 10}", (16, 16)) for i in range(100)]
    order = order_of(rows, batch=10, window=10)
    for step in range(10):
        assert len({row // 10 for row in order.batch(step).rows.tolist()}) == 1


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_share_the_same_global_batch(world_size):
    order = order_of([("a", (16, 16))] * 9, batch=8)
    whole = order.batch(1)
    parts = [whole.part(rank, world_size) for rank in range(world_size)]
    assert np.concatenate([part.rows for part in parts]).tolist() == whole.rows.tolist()
    assert np.concatenate([part.occurrences for part in parts]).tolist() == whole.occurrences.tolist()


def test_refusals():
    order = order_of([("a", (16, 16))] * 9, batch=8)
    with pytest.raises(ValueError, match="batch of 8 cannot be split over 3 processes"):
        order.batch(0).part(0, 3)
    with pytest.raises(ValueError, match="nothing to order"):
        BatchOrder([], [], 4, 0, 10)


def test_substitutes_have_the_same_shape_and_go_round():
    shapes = [(16, 16), (32, 32), (16, 16), (16, 16)]
    order = BatchOrder(["a"] * 4, shapes, 2, 0, 10)
    assert [order.substitute(2, attempt) for attempt in range(4)] == [2, 3, 0, 2]


def test_a_large_index_is_planned_in_seconds():
    count = 300_000
    shards = [f"{i // 1000}" for i in range(count)]
    order = BatchOrder(shards, [(16, 16 + 16 * (i % 40)) for i in range(count)], 64, 0, 65536)
    assert sum(len(set(order.batch(step).rows.tolist())) for step in range(len(order))) >= count
