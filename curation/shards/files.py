"""The tars of a dataset as files of the shard job: they move together with the rows of `samples` that name them."""

from __future__ import annotations

import shutil
from pathlib import Path

from engine.dataset import Dataset, read_parquet
from schemas import shard_index

WIDS_FILE = "wids.json"

PREVIOUS_SHARDS = ".previous"
"""Folder in `shards/` where outdated tars wait until the new ones are whole."""


class ShardFiles:
    """The `engine.map_job.PartFiles` of the shard job. A tar is never overwritten by another."""

    def delete_index(self, dataset: Dataset) -> None:
        """Delete the index of the shards, before a shard changes."""
        for name in (shard_index.INDEX_FILE, WIDS_FILE):
            (dataset.shards / name).unlink(missing_ok=True)

    def set_aside(self, dataset: Dataset) -> None:
        """Move every tar to `shards/.previous`."""
        for path in sorted(dataset.shards.glob("*/*.tar")):
            _move(path, dataset.shards / PREVIOUS_SHARDS / path.relative_to(dataset.shards))

    def take_back(self, dataset: Dataset, part: Path) -> bool:
        """Move the tars that a part of `samples` names back to their place; False where one of them is gone."""
        shards = read_parquet(part, ["shard"])["shard"].drop_null().unique().to_pylist()
        return all(_take_back(dataset, shard) for shard in shards)

    def delete_set_aside(self, dataset: Dataset) -> None:
        """Delete the tars that nobody took back."""
        shutil.rmtree(dataset.shards / PREVIOUS_SHARDS, ignore_errors=True)


def _take_back(dataset: Dataset, shard: str) -> bool:
    place, aside = dataset.shards / shard, dataset.shards / PREVIOUS_SHARDS / shard
    if aside.is_file():
        _move(aside, place)
    return place.is_file()


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
