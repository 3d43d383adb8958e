"""The loader: the same batch whatever the threads, and damage that is named, replaced and limited."""

from __future__ import annotations

import logging
import time

import pytest
import torch

from schemas.shard_index import read_index
from schemas.training import Data
from training.data.chance import Chance
from training.data.loader import Loader, SampleCache
from training.data.order import BatchOrder
from training.data.reader import ShardReader
from training.data.source import Source


def loader_of(dataset, data: Data, rank: int = 0, world_size: int = 1, seed: int = 0) -> Loader:
    rows = read_index(dataset / "shards")
    order = BatchOrder(rows["shard"].to_pylist(), [(32, 32)] * rows.num_rows, data.batch, seed, 100)
    source = Source(ShardReader(dataset / "shards", rows))
    return Loader(source, order, Chance(seed, "stage"), data, rank=rank, world_size=world_size)


def equal(a, b) -> bool:
    return (
        a.image_ids == b.image_ids
        and a.captions == b.captions
        and a.noise_seeds == b.noise_seeds
        and torch.equal(a.pictures, b.pictures)
        and torch.equal(a.drop, b.drop)
        and torch.equal(a.timestep, b.timestep)
    )


def test_threads_and_the_start_change_nothing(dataset):
    one = list(loader_of(dataset, Data(batch=3, threads=1, prefetch=1)).batches(0, 9))
    many = list(loader_of(dataset, Data(batch=3, threads=4, prefetch=7)).batches(0, 9))
    late = list(loader_of(dataset, Data(batch=3)).batches(5, 9))
    assert len(one) == 9 and all(equal(a, b) for a, b in zip(one, many, strict=True))
    assert all(equal(a, b) for a, b in zip(one[5:], late, strict=True))


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_are_prepared_while_the_one_before_is_used(dataset, monkeypatch, threads):
    prepared: list[int] = []
    prepare = Loader.prepare
    monkeypatch.setattr(Loader, "prepare", lambda self, step: (prepare(self, step), prepared.append(step))[0])
    batches = loader_of(dataset, Data(batch=3, threads=threads, prefetch=4)).batches(0, 9)
    next(batches)
    deadline = time.monotonic() + 30
    while len(prepared) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert sorted(prepared) == [0, 1, 2, 3]
    batches.close()


def test_processes_split_the_batch(dataset):
    data = Data(batch=4, timesteps_per_image=3)
    whole = loader_of(dataset, data).prepare(2)
    parts = [loader_of(dataset, data, rank, 2).prepare(2) for rank in range(2)]
    assert parts[0].image_ids + parts[1].image_ids == whole.image_ids
    assert parts[0].noise_seeds + parts[1].noise_seeds == whole.noise_seeds
    assert len(whole.timestep) == 12 and len(set(whole.noise_seeds)) == 12


def test_shares_of_captions_and_drops_are_those_asked_for(dataset):
    loader = loader_of(dataset, Data(batch=7, captions="toss", synthetic_share=0.6, caption_drop=0.1))
    batches = [loader.prepare(step) for step in range(150)]
    captions = [caption for batch in batches for caption in batch.captions if not caption.endswith("6")]
    assert 0.53 < sum("synthetic" in caption for caption in captions) / len(captions) < 0.67
    drops = torch.cat([batch.drop for batch in batches]).float().mean()
    assert 0.06 < drops < 0.14
    timesteps = torch.cat([batch.timestep for batch in batches]).float()
    assert 460 < timesteps.mean() < 540 and timesteps.max() < 1000


def damaged_dataset(make_dataset, folder, count_bad):
    from io import BytesIO

    from PIL import Image

    pictures, sizes = [], []
    for i in range(5):
        buffer = BytesIO()
        Image.new("RGB", (40, 40), (i * 40, 0, 0)).save(buffer, "PNG")
        data = buffer.getvalue()
        pictures.append((data[:40] if i < count_bad else data, f"caption {i}", None))
        sizes.append((40, 40))
    return make_dataset(folder, pictures, sizes)


def test_a_damaged_sample_is_named_and_replaced(make_dataset, tmp_path, caplog):
    dataset = damaged_dataset(make_dataset, tmp_path, 1)
    first, second = (loader_of(dataset, Data(batch=5)) for _ in range(2))
    with caplog.at_level(logging.WARNING):
        batch = first.prepare(0)
    assert len(batch.image_ids) == 5 and len(set(batch.image_ids)) == 4
    assert first.num_damaged == 1
    assert sum("damaged sample" in message for message in caplog.messages) == 1
    assert equal(batch, second.prepare(0))
    first.prepare(1)
    assert first.num_damaged == 1  # counted once, however often it comes


def test_too_much_damage_stops(make_dataset, tmp_path):
    with pytest.raises(ValueError, match=r"[345] damaged samples, data\.max_damaged allows 2"):
        list(loader_of(damaged_dataset(make_dataset, tmp_path, 4), Data(batch=5, max_damaged=2)).batches(0, 3))
    with pytest.raises(ValueError, match="samples in a row are damaged"):
        loader_of(damaged_dataset(make_dataset, tmp_path / "all", 5), Data(batch=5)).prepare(0)


def test_the_cache_is_bounded_and_forgets_the_oldest(dataset):
    class Counting(ShardReader):
        reads = 0

        def read(self, row, shape):
            Counting.reads += 1
            return super().read(row, shape)

    rows = read_index(dataset / "shards")
    cache = SampleCache(Source(Counting(dataset / "shards", rows)), megabytes=1)
    big = (416, 416)  # 0.5 MiB: one fits, three do not
    cache.read(0, big), cache.read(0, big)
    assert Counting.reads == 1
    cache.read(1, big), cache.read(2, big), cache.read(2, big), cache.read(0, big)
    assert Counting.reads == 4
