"""A folder of tars is known for what it is, and every line about it names the source with its path."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from curation.sources import list_source
from schemas.foreign_tars import as_source, caption_of, kind_of_tars
from schemas.recipe import DataRecipe
from schemas.shard_index import ShardIndex
from schemas.sources import FolderSource
from schemas.training import TrainingRecipe
from training.features import index_digest

FOLDERS = {
    "img2dataset": ["00000.tar", "00000.parquet", "00000_stats.json"],
    "img2dataset without statistics": ["00000.tar", "00000.parquet"],
    "webdataset": ["a-0001.tar", "a-0002.tar", "notes.txt"],
    "webdataset of folders": ["x.tar", "other.parquet"],
}


def folder_of(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("kind", FOLDERS)
def test_training_and_building_name_the_source(tmp_path, kind):
    folder, kind = folder_of(tmp_path / "some tars", FOLDERS[kind]), kind.split()[0]
    assert kind_of_tars(folder) == kind
    line = as_source(kind, folder)
    source = DataRecipe.from_mapping(yaml.safe_load(line) | {"out": "o"}).sources[0]
    assert source.kind == kind and source.location() == str(folder)
    recipe = TrainingRecipe.from_mapping(
        {"dataset": str(folder), "out": "o", "stages": [{"name": "a", "resolution": 32, "steps": 1}]}
    )
    for read in (lambda: ShardIndex(folder / "shards"), lambda: index_digest(recipe)):
        with pytest.raises(ValueError) as caught:
            read()
        assert f"sigma index {folder}" in str(caught.value) and line in str(caught.value)
    with pytest.raises(ValueError, match=f"holds {kind} tars and no image; name them in the recipe") as caught:
        list(list_source(FolderSource(path=str(folder))).items)
    assert line in str(caught.value)


def test_folders_without_tars_are_as_before(tmp_path):
    for folder in (folder_of(tmp_path / "empty", []), tmp_path / "gone", folder_of(tmp_path / "h", [".tmp-1.tar"])):
        assert kind_of_tars(folder) is None
        with pytest.raises(ValueError, match="no shard index here; build the dataset first"):
            ShardIndex(folder / "shards")
    with pytest.raises(ValueError, match="holds no image; name a folder with"):
        list(list_source(FolderSource(path=str(tmp_path / "empty"))).items)


@pytest.mark.parametrize(
    ("text", "metadata", "expected"),
    [
        (b"a text ", b'{"caption": "another"}', "a text"),
        (b" ", b'{"caption": "another"}', "another"),
        (b"", b'{"caption": "", "text": ["first", "second"]}', "first"),
        (b"\xff\xfeh\0i\0", b"", "hi"),
        (b"", b"[1]", None),
        (b"", b"{", None),
        (b"", b"", None),
        (b"", b"[" * 100_000, None),
    ],
)
def test_the_caption_of_a_sample(text, metadata, expected):
    assert caption_of(text, metadata) == expected


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_give_a_caption_or_none(text, metadata):
    found = caption_of(text, metadata)
    assert found is None or found.strip()
