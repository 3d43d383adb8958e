"""A new tar is written over the name of an old one, whose pictures can be copied until all shards are whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO

import pytest

from curation.shards import files as tar_files
from curation.shards import rewriter
from curation.shards.files import OldTars, ShardFiles, keep_previous
from engine.dataset import Dataset, JobRecord
from engine.names import PartName, made_from, names_in
from schemas.commit import write_bytes
from schemas.unread import StoreError
from tests.building import put_shards, table_of


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def tar_of(number: int) -> str:
    return f"1.0/1.0-{number:06d}.tar"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two shards are planned, and nothing is written."""
    dataset = Dataset(tmp_path)
    plan(dataset, "a", "b")
    dataset.write_record("samples", JobRecord("shard", {}, ["shard_plan"]))
    return dataset


def plan(dataset: Dataset, *keys: str) -> None:
    rows = (
        {"shard_id": number, "position": 0, "shard": tar_of(number), "bucket": "1.0", "row_id": number, "image_id": key}
        | {"source": "s", "source_name": "s", "member": "m", "sha256": "0", "format": "JPEG", "recipe": "r"}
        | {"num_bytes": 1, "width": 1, "height": 1, "phash": 0, "aesthetic": 1.0, "aesthetic_scorer": "s"}
        | {"caption": "c", "caption_source": "raw", "coin": 0.5, "num_tokens": 1, "weight": 1.0, "subsets": []}
        for number, key in enumerate(keys)
    )
    put_shards(dataset, table_of("shard_plan", rows))


def write(dataset: Dataset, number: int, what: bytes, shard: str | None = None) -> PartName:
    """A shard as it is planned now, and its rows: one picture, `what` twice."""
    shard = tar_of(number) if shard is None else shard
    source = made_from("shard", {})([(dataset.held().shards or ())[number]])
    places = {"image_ext": "jpg", "image_offset": 0, "json_offset": 0, "image_size": len(what), "json_size": len(what)}
    row = {"row_id": number, "image_id": what.decode(), "bucket": "1.0", "shard": shard} | places
    name = PartName.parse(dataset.commit_part("samples", number, source, table_of("samples", [row])).name)
    keep_previous(dataset, shard) if ShardFiles().are_waiting(dataset) else None
    write_bytes(dataset.shards / shard, what)
    assert name is not None
    return name


def release(dataset: Dataset, redo: bool = False) -> None:
    held = dataset.held()
    stay = {} if redo else held.holding("samples")
    ShardFiles().release(dataset, held, [name for name in held.listed("samples") if name not in stay.values()])


def found(dataset: Dataset, number: int) -> dict[str, bytes]:
    """Picture -> its bytes in the old tars, of those that a planned shard needs."""
    with OldTars(dataset, number) as old:
        samples = {name: old.samples_of(name) for name in "abcdef"}
        return {name: next(old.read(where[0]))[0] for name, where in samples.items() if where}


@pytest.fixture
def written(dataset: Dataset) -> Dataset:
    """Both shards are whole, and there is an index."""
    write(dataset, 0, b"a")
    write(dataset, 1, b"b")
    write_bytes(dataset.shards / "index.parquet", b"index")
    write_bytes(dataset.shards / "wids.json", b"{}")
    return dataset


def test_shards_that_hold_keep_their_index(written: Dataset) -> None:
    release(written)
    assert files(written.shards) == [tar_of(0), tar_of(1), "index.parquet", "wids.json"]


def test_rows_that_no_longer_hold_go_and_their_tar_stays_until_another_takes_its_name(written: Dataset) -> None:
    plan(written, "a", "c", "b")
    release(written)
    assert [name.number for name in names_in(written.folder("samples"))] == [0]
    assert files(written.shards) == [".previous/pictures.parquet", tar_of(0), tar_of(1)]
    assert found(written, 1) == {} and found(written, 2) == {"b": b"b"}
    write(written, 1, b"c")
    assert (written.shards / tar_of(1)).read_bytes() == b"c"
    assert found(written, 2) == {"b": b"b"}, "its tar has a second name"
    ShardFiles().delete_outdated(written.held())
    assert files(written.shards) == [tar_of(0), tar_of(1)]


def test_a_worker_that_reads_a_tar_while_another_replaces_it_reads_it_again(written: Dataset) -> None:
    plan(written, "a", "c", "b")
    release(written)
    with OldTars(written, 2) as old:
        (sample,) = old.samples_of("b")
        reading = old.read(sample)
        next(reading)
        write(written, 1, b"c")
        assert next(reading) == (b"b", b"b")


@pytest.mark.parametrize("error", [StoreError("InternalError"), OSError(errno.ESTALE, os.strerror(errno.ESTALE))])
def test_a_tar_that_cannot_be_read_now_is_no_lost_one(
    error: OSError, written: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its pictures would be taken for lost where their originals are gone, and it would be deleted."""
    plan(written, "a", "c", "b")
    release(written)

    def silent(path: Path) -> IO[bytes]:
        raise error

    with OldTars(written, 2) as old:
        (sample,) = old.samples_of("b")
        for room in (tar_files, rewriter):
            monkeypatch.setattr(room, "open_file", silent)
        with pytest.raises(type(error)):
            next(old.read(sample))
    with pytest.raises(type(error)):
        next(tar_files._samples_of(written, tar_of(1)))


def test_tars_that_no_plan_names_go_when_all_shards_are_whole(written: Dataset) -> None:
    plan(written, "a")
    release(written)
    assert files(written.shards) == [".previous/pictures.parquet", tar_of(0), tar_of(1)]
    ShardFiles().delete_outdated(written.held())
    assert files(written.shards) == [tar_of(0)]


def test_the_shards_before_a_run_that_did_not_end_are_copied_from_and_not_its_own(written: Dataset) -> None:
    plan(written, "c", "d", "e", "f")
    release(written)
    write(written, 0, b"c")  # over the tar of `a`
    write(written, 3, b"f")
    plan(written, "b", "a", "f")
    release(written)
    assert [found(written, number) for number in range(3)] == [{"b": b"b"}, {"a": b"a"}, {"f": b"f"}]
    assert (written.shards / ".previous" / tar_of(0)).read_bytes() == b"a"
    write(written, 0, b"b")
    assert (written.shards / ".previous" / tar_of(0)).read_bytes() == b"a"


def test_a_picture_that_a_stopped_run_would_have_dropped_can_be_planned_again(written: Dataset) -> None:
    plan(written, "b")
    release(written)
    write(written, 0, b"b")
    plan(written, "a", "b")
    release(written)
    assert found(written, 0) == {"a": b"a"}


def test_a_redo_computes_every_shard_anew_from_the_tars(written: Dataset) -> None:
    release(written, redo=True)
    release(written)
    assert files(written.folder("samples")) == []
    assert [found(written, number) for number in (0, 1)] == [{"a": b"a"}, {"b": b"b"}]
