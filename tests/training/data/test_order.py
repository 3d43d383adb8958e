"""The order: a pure function of position that loses nothing."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import training.data.order
from training.data.order import BatchOrder, Shapes

rows_strategy = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from([(16, 16), (16, 32), (32, 16)])), min_size=1, max_size=60
)


def order_of(rows, batch=4, seed=0, window=1000, lanes=1) -> BatchOrder:
    rows = sorted(rows)
    return BatchOrder([shard for shard, _ in rows], [shape for _, shape in rows], batch, seed, window, lanes=lanes)


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


@pytest.mark.slow
@given(rows=rows_strategy, steps=st.lists(st.integers(0, 200), min_size=1, max_size=10))
@settings(max_examples=30, deadline=None)
def test_a_batch_depends_on_its_step_alone(rows, steps):
    walked, jumped = order_of(rows), order_of(rows)
    all_steps = [walked.batch(step) for step in range(max(steps) + 1)]
    for step in steps:
        a, b = all_steps[step], jumped.batch(step)
        assert a.epoch == b.epoch and a.shape == b.shape
        assert np.array_equal(a.rows, b.rows) and np.array_equal(a.occurrences, b.occurrences)


@given(
    rows=rows_strategy,
    lanes=st.integers(1, 5),
    slice_rows=st.integers(1, 4),
    seed=st.integers(0, 9),
    window=st.integers(1, 70),
)
@settings(max_examples=60, deadline=None)
def test_lanes_deal_the_same_samples_as_often_in_batches_of_the_same_shapes(rows, lanes, slice_rows, seed, window):
    batch = lanes * slice_rows
    plain, sliced, jumped = (order_of(rows, batch, seed, window, lanes=count) for count in (1, lanes, lanes))
    assert len(plain) == len(sliced)
    for epoch in range(2):
        steps = range(epoch * len(plain), (epoch + 1) * len(plain))
        found = [[order.batch(step) for step in steps] for order in (plain, sliced)]
        assert [dealt.shape for dealt in found[0]] == [dealt.shape for dealt in found[1]]
        draws = [
            Counter((int(r), int(o)) for b in of for r, o in zip(b.rows, b.occurrences, strict=True)) for of in found
        ]
        assert draws[0] == draws[1] and sum(draws[0].values()) == len(plain) * batch
        if lanes == 1:
            assert all(np.array_equal(a.rows, b.rows) for a, b in zip(*found, strict=True))
        at_random = jumped.batch(steps[-1])
        assert np.array_equal(at_random.rows, found[1][-1].rows)
        assert np.array_equal(at_random.occurrences, found[1][-1].occurrences)


@given(rows=rows_strategy, lanes=st.integers(2, 4), slice_rows=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_a_lane_reads_its_own_shards_as_far_as_they_go(rows, lanes, slice_rows):
    order, rows = order_of(rows, lanes * slice_rows, lanes=lanes), sorted(rows)
    names = sorted({shard for shard, _ in rows})
    dealt = [order.batch(step) for step in range(len(order))]
    for shape in {batch.shape for batch in dealt}:
        batches = [batch.rows.reshape(lanes, slice_rows) for batch in dealt if batch.shape == shape]
        slices = np.concatenate(batches, axis=1)  # (lanes, draws): batches come in their order
        homes = np.array([[names.index(rows[row][0]) % lanes for row in lane] for lane in slices])
        for lane, found in enumerate(homes):
            assert (found == lane).sum() == min((homes == lane).sum(), len(found))
            first = np.flatnonzero(found != lane)
            assert not len(first) or (found[first[0] :] != lane).all()  # its own come first


def test_one_lane_is_the_order_that_there_always_was():
    """Digests of what was dealt before there were lanes."""
    random = np.random.default_rng(7)
    shards = np.sort(random.integers(0, 40, 3000))
    shapes = Shapes([(16, 16), (16, 32), (32, 16)], random.integers(0, 3, 3000))
    expected_of = (
        (None, "464358932273377419bf34a94d3b16b721e4014e6a3155941e4ad17c5fc5ce8b"),
        (
            random.uniform(0.1, 1, 3000).astype(np.float32),
            "07ef0b7d998e33f1a78da79fca6fcf5c7e4324cdee198b9597388a3b0af68787",
        ),
    )
    for weights, expected in expected_of:
        order, digest = BatchOrder(shards, shapes, 32, 5, 500, weights), hashlib.sha256()
        for step in range(2 * len(order)):
            batch = order.batch(step)
            digest.update(
                repr((batch.epoch, batch.shape)).encode() + batch.rows.tobytes() + batch.occurrences.tobytes()
            )
        assert digest.hexdigest() == expected


def test_a_node_reads_the_shards_of_its_lanes_and_few_others():
    shards, shapes = np.arange(20_000) // 100, Shapes([(16, 16), (16, 32)], np.arange(20_000) // 11_000)
    read = {}
    for lanes in (1, 4):
        order = BatchOrder(shards, shapes, 64, 0, 4000, lanes=lanes)
        of_node = [np.concatenate([order.batch(s).part(n, 4).rows for s in range(len(order))]) for n in range(4)]
        read[lanes] = sum(len(np.unique(shards[rows])) for rows in of_node) / 200
        assert lanes == 1 or all((shards[rows] % 4 == n).mean() > 0.97 for n, rows in enumerate(of_node))
    assert read[1] > 3.9 and read[4] < 1.2


@given(rows=rows_strategy, parts=st.integers(1, 3), lanes=st.integers(1, 2), epoch=st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_the_shards_of_a_part_are_those_of_its_rows(rows, parts, lanes, epoch):
    order, rows = order_of(rows, 6 * lanes, lanes=lanes), sorted(rows)
    names = sorted({shard for shard, _ in rows})
    for part in range(parts):
        expected = [order.batch(epoch * len(order) + step).part(part, parts).rows for step in range(len(order))]
        found = order.shards_of(epoch, part, parts)
        assert [[names[s] for s in of] for of in found] == [[rows[row][0] for row in of] for of in expected]


@given(seed=st.integers(-(2**40), 2**40), epoch=st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_epochs_and_seeds_differ_and_one_seed_is_one_order(seed, epoch):
    rows = [("a", (16, 16))] * 40

    def walk(seed: int, epoch: int) -> list[int]:
        order = order_of(rows, seed=seed)
        return [row for step in range(10) for row in order.batch(epoch * 10 + step).rows.tolist()]

    assert walk(seed, epoch) == walk(seed, epoch)
    assert walk(seed, epoch) != walk(seed, epoch + 1)
    assert walk(seed, epoch) != walk(seed + 1, epoch)


@given(
    shard_rows=st.integers(1, 40), num_shards=st.integers(1, 30), window=st.integers(1, 200), seed=st.integers(0, 99)
)
@settings(max_examples=60, deadline=None)
def test_reads_stay_within_a_window_of_whole_shards(shard_rows, num_shards, window, seed):
    rows = [(f"shard{i // shard_rows:03d}", (16, 16)) for i in range(shard_rows * num_shards)]
    order = order_of(rows, batch=1, seed=seed, window=window)
    walk = [int(order.batch(step).rows[0]) for step in range(len(order))]
    for start in range(0, len(walk), window):
        ahead = walk[start : start + window]
        assert len({row // shard_rows for row in ahead}) <= (len(ahead) - 2) // shard_rows + 2
    if shard_rows > 1 and window > shard_rows * num_shards > 20:
        assert any(abs(a - b) > 1 for a, b in pairwise(walk))  # shuffled all the same


@given(rows=rows_strategy, share=st.integers(1, 5), world_size=st.integers(1, 8), step=st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_processes_share_the_same_global_batch(rows, share, world_size, step):
    whole = order_of(rows, batch=share * world_size).batch(step)
    parts = [whole.part(rank, world_size) for rank in range(world_size)]
    assert all(len(part.rows) == share and (part.epoch, part.shape) == (whole.epoch, whole.shape) for part in parts)
    assert np.concatenate([part.rows for part in parts]).tolist() == whole.rows.tolist()
    assert np.concatenate([part.occurrences for part in parts]).tolist() == whole.occurrences.tolist()


def test_an_order_refuses_no_rows_and_an_uneven_split():
    order = order_of([("a", (16, 16))] * 9, batch=8)
    with pytest.raises(ValueError, match="batch of 8 cannot be split over 3 processes"):
        order.batch(0).part(0, 3)
    with pytest.raises(ValueError, match="nothing to order"):
        BatchOrder([], [], 4, 0, 10)


@given(rows=rows_strategy, row=st.integers(0, 59), attempt=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_substitutes_have_the_same_shape_and_go_round(rows, row, attempt):
    shapes = [shape for _, shape in sorted(rows)]
    row %= len(rows)
    same = [other for other, shape in enumerate(shapes) if shape == shapes[row]]
    expected = same[(same.index(row) + attempt) % len(same)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.data.order, "SCAN_ROWS", 5)
        assert order_of(rows).substitute(row, attempt) == expected


def test_shapes_are_a_sequence_and_equal_ones_are_one():
    shapes = Shapes([(32, 16), (16, 16), (32, 16)], np.array([0, 1, 2, 2]))
    assert list(shapes) == [(32, 16), (16, 16), (32, 16), (32, 16)] and len(shapes) == 4
    assert list(shapes[1:3]) == [(16, 16), (32, 16)] and shapes[-1] == (32, 16)
    assert len(set(shapes.codes.tolist())) == 2
    assert list(Shapes.of(list(shapes))) == list(shapes)


def test_a_large_index_is_planned_in_little_memory():
    count = 1_000_000
    shards = np.arange(count, dtype=np.int32) // 1000
    shapes = Shapes([(16, 16 + 16 * i) for i in range(40)], (np.arange(count) % 40).astype(np.uint8))
    tracemalloc.start()
    try:
        order = BatchOrder(shards, shapes, 64, 0, 65536)
        order.batch(0)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 5 * count and most < 20 * count  # bytes: 33 million rows keep 0.2 GB
    assert sum(len(set(order.batch(step).rows.tolist())) for step in range(len(order))) >= count


@given(rows=rows_strategy, batch=st.integers(1, 9), data=st.data())
@settings(max_examples=40, deadline=None)
def test_weights_choose_as_many_of_a_shape_as_they_sum_up_to(rows, batch, data):
    rows = sorted(rows)
    shapes = [shape for _, shape in rows]
    weights = np.array(data.draw(st.lists(st.floats(0.01, 1), min_size=len(rows), max_size=len(rows))), np.float32)
    order = BatchOrder([shard for shard, _ in rows], shapes, batch, 0, 1000, weights)
    for epoch in range(3):
        dealt = [order.batch(epoch * len(order) + step) for step in range(len(order))]
        assert {batch.epoch for batch in dealt} == {epoch}
        for shape in set(shapes):
            sums = sum(float(weight) for weight, its in zip(weights, shapes, strict=True) if its == shape)
            seen = {row for batch in dealt if batch.shape == shape for row in batch.rows.tolist()}
            assert len(seen) in {max(1, int(sums + slack)) for slack in (-1e-5, 1e-5)}


def test_a_row_is_dealt_in_as_many_epochs_as_it_weighs():
    weights = np.array([1.0, 0.5, 0.25, 0.25] * 25, np.float32)
    order = BatchOrder(["a"] * 100, [(16, 16)] * 100, 1, 3, 100, weights)
    assert len(order) == 50
    seen = np.bincount(np.concatenate([order.batch(step).rows for step in range(400 * len(order))]), minlength=100)
    assert (seen[weights == 1] == 400).all()  # a full weight is in every epoch
    assert np.abs(seen / 400 - weights).max() < 0.13  # five standard deviations of a coin
    assert seen.sum() == 400 * 50


def test_equal_weights_change_nothing_but_the_number_and_none_changes_nothing():
    rows = [("a", (16, 16))] * 30
    plain, full = order_of(rows), BatchOrder(["a"] * 30, [(16, 16)] * 30, 4, 0, 1000, np.ones(30, np.float32))
    assert len(plain) == len(full)
    for step in range(3 * len(plain)):
        assert np.array_equal(plain.batch(step).rows, full.batch(step).rows)
    halved = BatchOrder(["a"] * 30, [(16, 16)] * 30, 4, 0, 1000, np.full(30, 0.5, np.float32))
    assert len(halved) == 4  # 15 rows in batches of 4
