"""Copies of shards: what is fetched when, what goes first, and what a kill or a full disk leaves."""

from __future__ import annotations

import errno
import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.conftest import upload
from training.data import cache
from training.data.cache import Epoch, ShardCache, bring
from training.data.order import BatchOrder
from training.data.tars import Copies, TarObject, open_tar

SIZE, ROWS = 1000, 8
NAMES = [f"1.0/1.0-{number:06d}.tar" for number in range(6)]


def content(name: str) -> bytes:
    return name.encode().ljust(SIZE, b".")


def wait_for(what: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


@pytest.fixture
def copies(bucket, tmp_path) -> Copies:
    bucket.put({f"ds/shards/{name}": content(name) for name in NAMES})
    bucket.forget()
    return Copies.of("s3://photos/ds", tmp_path / "copies")


def order_of(window: int = 1) -> BatchOrder:
    """Batches of one shard each where the window is 1, in a permuted order."""
    return BatchOrder(np.repeat(np.arange(len(NAMES)), ROWS), [(16, 16)] * (len(NAMES) * ROWS), ROWS, 0, window)


@contextmanager
def copying(copies: Copies, *of: Any, **options: Any) -> Iterator[ShardCache]:
    with closing(cache_of(copies, *of, **options)) as made:
        made.reached(0)
        yield made


def cache_of(copies: Copies, limit: float, order: BatchOrder | None = None, steps: range = range(6), node=(0, 1)):
    copies.folder.mkdir(exist_ok=True)
    order = order or order_of()
    samples = dict.fromkeys(NAMES, ROWS)
    return ShardCache(copies, [copies.folder / "shards"], NAMES, samples, order, steps, limit, node)


def held(copies: Copies) -> list[str]:
    return sorted(str(path.relative_to(copies.folder / "shards")) for path in copies.folder.rglob("[!.]*.tar"))


def in_order(order: BatchOrder) -> list[str]:
    return [NAMES[shards[0]] for shards in order.shards_of(0, 0, 1)]


@given(
    reads=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=8), step=st.integers(0, 9)
)
def test_an_epoch_knows_when_each_shard_is_read_from_a_step_on(reads, step):
    epoch = Epoch(3, [np.array(of, np.int32) for of in reads], 7)
    for shard in range(7):
        expected = [number for number, of in enumerate(reads, 3) for read in of if read == shard and number >= step]
        assert epoch.reads_from(shard, step).tolist() == expected
    assert epoch.order.tolist() == list(dict.fromkeys(shard for of in reads for shard in of))


def test_shards_are_copied_in_the_order_in_which_training_reads_them(copies):
    first = in_order(order_of())
    with copying(copies, 2 * SIZE) as made:
        for step, name in enumerate(first):
            wait_for(lambda now=first[step : step + 2]: {*now} <= {*held(copies)})
            assert len(held(copies)) <= 2
            assert (copies.folder / "shards" / name).read_bytes() == content(name)
            made.reached(step + 1)


def test_where_all_fits_everything_is_fetched_once_and_a_second_epoch_fetches_nothing(copies, bucket):
    order = order_of(window=48)
    with copying(copies, 6 * SIZE, order, range(12)) as made:
        wait_for(lambda: held(copies) == NAMES)
        made.reached(7)
        made.reached(11)
    assert bucket.num_sent.total() == 6 * SIZE


def test_the_copy_whose_next_use_is_furthest_goes_and_not_the_one_that_was_used_longest_ago(copies, monkeypatch):
    """Shard 0 is read again soon, shard 1 is not: least recently used would let 0 go."""
    plan = [[0], [1], [2], [0], [3], [0]]
    order = order_of()
    monkeypatch.setattr(order, "shards_of", lambda *of: [np.array(shards * ROWS, np.int32) for shards in plan])
    with copying(copies, 2 * SIZE, order) as made:
        wait_for(lambda: held(copies) == NAMES[:2])
        made.reached(2)
        wait_for(lambda: held(copies) == [NAMES[0], NAMES[2]])
        made.reached(3)
        wait_for(lambda: held(copies) == [NAMES[0], NAMES[3]])


def test_what_the_next_epoch_reads_first_stays_and_is_not_fetched_again(copies, bucket):
    order = order_of()
    names = [NAMES[shards[0]] for epoch in (0, 1) for shards in order.shards_of(epoch, 0, 1)]
    with copying(copies, 4 * SIZE, order, range(12)) as made:
        for step, name in enumerate(names):
            made.reached(step)
            wait_for(lambda now=name: now in held(copies))
    assert 6 * SIZE <= bucket.num_sent.total() <= 9 * SIZE


def test_of_a_shard_that_is_hardly_read_samples_are_read_by_range(copies):
    order = order_of(window=48)  # each shard is read by both nodes
    with copying(copies, 3 * SIZE, order, node=(0, 8)):
        time.sleep(0.2)
    assert held(copies) == []


def test_a_limit_that_holds_no_shard_is_refused_with_the_arithmetic(copies):
    with pytest.raises(
        ValueError, match=r"data.cache_gb 9e-07 .* s3://photos/ds/shards/1.0/.* has 1,000 bytes; set at least"
    ):
        cache_of(copies, 900)


def test_half_files_are_swept_whole_ones_used_again_and_others_never_touched(copies, bucket):
    folder = copies.folder / "shards" / "1.0"
    folder.mkdir(parents=True)
    (folder / ".tmp-0123-1.0-000000.tar").write_bytes(b"half")
    (copies.folder / "shards" / NAMES[1]).write_bytes(content(NAMES[1]))
    (copies.folder / "shards" / NAMES[2]).write_bytes(b"of another size")
    (folder / "notes.txt").write_text("mine")
    with copying(copies, 6 * SIZE):
        wait_for(lambda: held(copies) == NAMES)
    assert not list(folder.glob(".tmp-*")) and (folder / "notes.txt").read_text() == "mine"
    assert bucket.num_sent[f"ds/shards/{NAMES[1]}"] == 0 and bucket.num_sent.total() == 5 * SIZE
    assert all((copies.folder / "shards" / name).read_bytes() == content(name) for name in NAMES)


def test_one_process_of_a_machine_copies_and_another_takes_over_when_it_is_gone(copies, monkeypatch):
    monkeypatch.setattr(cache, "RETRY_S", 0.05)
    copies.folder.mkdir()
    with (copies.folder / ".copying").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with copying(copies, 6 * SIZE):
            time.sleep(0.2)
            assert held(copies) == []
            other.close()
            wait_for(lambda: held(copies) == NAMES)


def test_a_full_disk_is_said_once_and_what_has_no_copy_is_read_by_range(copies, monkeypatch, caplog):
    fetch = ShardCache._fetch

    def full(self: ShardCache, path: Path) -> None:
        if len(held(copies)) >= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fetch(self, path)

    monkeypatch.setattr(ShardCache, "_fetch", full)
    monkeypatch.setattr(cache, "FETCHES", 1)
    first = in_order(order_of())
    with caplog.at_level(logging.WARNING), copying(copies, 6 * SIZE) as made:
        wait_for(lambda: caplog.records)
        assert held(copies) == sorted(first[:2])
        tar = open_tar(copies.folder / "shards" / first[4], copies)
        assert bytes(tar.read(0, 9)) == first[4].encode()[:9]
        monkeypatch.setattr(ShardCache, "_fetch", fetch)
        made.reached(2)  # the room of what is not needed any more is used again
        wait_for(lambda: len(held(copies)) == 2 and held(copies) != sorted(first[:2]))
    (said,) = [record.message for record in caplog.records]
    assert "shards are not copied (No space left on device) and read by range instead" in said


def test_a_copy_that_goes_frees_its_space_and_whoever_has_it_open_reads_by_range(copies, bucket):
    path = copies.folder / "shards" / NAMES[3]
    made = cache_of(copies, 6 * SIZE)
    copies.store.fetch(copies.key(path), path)
    made._held[path] = SIZE
    tar = TarObject(path, copies)
    assert bytes(tar.read(0, 20)) == content(NAMES[3])[:20]
    bucket.forget()
    made._drop(path)
    assert not path.exists() and not made._held
    assert bytes(tar.read(5, 25)) == content(NAMES[3])[5:25] and bucket.num_sent.total() == 20
    copies.store.fetch(copies.key(path), path)  # and comes again
    bucket.forget()
    assert bytes(tar.read(5, 25)) == content(NAMES[3])[5:25] and bucket.num_sent.total() == 0


def test_an_index_is_fetched_once_and_tars_go_with_the_one_that_they_belong_to(bucket, dataset, tmp_path):
    copies = Copies.of(upload(bucket, dataset, "ds"), tmp_path / "copies")
    bring(copies)
    bring(copies)
    index = "ds/shards/index.parquet"
    assert bucket.requests["GET", index] == 1
    assert (copies.folder / "shards" / "index.parquet").read_bytes() == (
        dataset / "shards" / "index.parquet"
    ).read_bytes()
    old = copies.folder / "shards" / NAMES[0]
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(b"old")
    bring(copies)
    assert old.exists()
    bucket.put({index: b"another"})
    bring(copies)
    assert not old.exists() and (copies.folder / "shards" / "index.parquet").read_bytes() == b"another"
    bucket.delete(index)
    with pytest.raises(
        ValueError, match=r"s3://photos/ds/shards/index.parquet: no shard index here; build the dataset"
    ):
        bring(copies)
