"""Stored arrays: the bits come back, few files stay open, and what does not fit is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import training.data.stored as stored
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
