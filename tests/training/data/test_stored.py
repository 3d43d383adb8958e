"""Stored arrays: the bits come back, few files stay open, and what does not fit is named."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import training.data.stored as stored
from schemas.features import wrong_array
from schemas.shard_index import read_index
from schemas.training import TrainingRecipe
from tests.training.encoding import encode
from training.data.stored import StoredArrays, as_stored, as_tensor


@pytest.fixture
def latents(recipe_values, tmp_path) -> StoredArrays:
    recipe = TrainingRecipe.from_mapping(recipe_values | {"features": {"folder": str(tmp_path)}})
    return StoredArrays(encode(recipe, stage="small", kind="latents")[0].folder)


@pytest.mark.parametrize(("dtype", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_stored_values_are_read_back(dtype, expected):
    values = torch.randn(3, 4)
    back = as_tensor(as_stored(values, dtype))
    assert back.dtype == expected and torch.equal(back, values.to(expected))


def test_few_shards_stay_open(latents, dataset, monkeypatch):
    monkeypatch.setattr(stored, "SHARDS_OPEN", 1)
    latents = StoredArrays(latents.folder)
    rows = read_index(dataset / "shards").to_pylist()
    for row in [*rows, *rows]:
        assert latents.read(row["shard"], row["key"], "latents").shape[:2] == (1, 4)
    assert len({row["shard"] for row in rows}) == 3
    files = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
    assert len([path for path in files if path.is_relative_to(latents.folder) and path.suffix == ".tar"]) == 1


def test_missing_features_are_named(latents, dataset):
    row = read_index(dataset / "shards").to_pylist()[0]
    with pytest.raises(ValueError, match=r"holds no features of nobody; sigma encode RECIPE writes it again"):
        latents.read(row["shard"], "nobody", "latents")
    with pytest.raises(ValueError, match=r"9\.9\.tar: cannot be read"):
        latents.read("9.9/9.9.tar", row["key"], "latents")


@pytest.mark.slow
def test_a_flipped_bit_of_an_array_is_named_and_found_by_all_who_read_it(latents, dataset):
    chance = random.Random(4)
    for tar in sorted(latents.folder.rglob("*.tar")):
        shard, whole = str(tar.relative_to(latents.folder)), tar.read_bytes()
        places = pq.read_table(tar.with_suffix(".parquet"), partitioning=None).to_pydict()
        assert wrong_array(tar, places) is None
        for row, key in enumerate(places["key"]):
            for place in chance.sample(range(places["latents_size"][row]), 20):
                data = bytearray(whole)
                data[places["latents_offset"][row] + place] ^= 1 << chance.randrange(8)
                tar.write_bytes(data)
                with pytest.raises(
                    ValueError, match=rf"damaged \(the checksum of {key}\.latents\.npy is wrong\); delete"
                ):
                    StoredArrays(latents.folder).read(shard, key, "latents")
                assert wrong_array(tar, places) == key
        tar.write_bytes(whole)
        assert StoredArrays(latents.folder).read(shard, key, "latents") is not None


def test_a_flipped_bit_of_a_table_is_named(latents):
    table = sorted(latents.folder.rglob("*.parquet"))[0]
    whole, chance = table.read_bytes(), random.Random(5)
    shard = str(table.with_suffix(".tar").relative_to(latents.folder))
    for place in chance.sample(range(len(whole)), 150):
        data = bytearray(whole)
        data[place] ^= 1 << chance.randrange(8)
        table.write_bytes(data)
        with pytest.raises(ValueError, match=r"\.tar: cannot be read .* delete it, then sigma encode RECIPE"):
            StoredArrays(latents.folder).read(shard, "key", "latents")


def test_arrays_from_before_the_checksums_are_read(latents, dataset):
    row = read_index(dataset / "shards").to_pylist()[0]
    table = (latents.folder / row["shard"]).with_suffix(".parquet")
    pq.write_table(pq.read_table(table, partitioning=None).drop_columns(["latents_crc32"]), table)
    assert StoredArrays(latents.folder).read(row["shard"], row["key"], "latents") is not None
