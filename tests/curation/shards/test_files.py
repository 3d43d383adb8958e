"""Outdated tars move away with their rows, and come back with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.shards.files import ShardFiles
from engine.dataset import Dataset, JobRecord
from engine.names import NOTHING, PartName, made_from, names_in
from schemas.commit import write_bytes
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
    """A shard as it is planned now, and its rows."""
    shard = tar_of(number) if shard is None else shard
    source = made_from("shard", {})([(dataset.held().shards or ())[number]]) if what == b"whole" else what.hex()[:12]
    rows = table_of("samples", [{"row_id": number, "image_id": f"{number}", "bucket": "1.0", "shard": shard}])
    name = PartName.parse(dataset.commit_part("samples", number, source, rows).name)
    write_bytes(dataset.shards / shard, what)
    assert name is not None
    return name


def prepare(dataset: Dataset, redo: bool = False) -> None:
    ShardFiles().prepare(dataset, dataset.held(), redo)


def test_outdated_shards_go_with_their_rows_and_the_others_stay(dataset: Dataset) -> None:
    first, second = (write(dataset, number, b"whole") for number in (0, 1))
    write_bytes(dataset.shards / "index.parquet", b"index")
    write_bytes(dataset.shards / "wids.json", b"{}")
    prepare(dataset)
    assert (dataset.shards / "index.parquet").is_file(), "all of it holds"
    plan(dataset, "a", "c")
    prepare(dataset)
    assert files(dataset.shards) == [f".previous/{tar_of(1)}", f".previous/{second.file}",
                                     ".previous/places.parquet", tar_of(0)]  # fmt: skip
    assert files(dataset.folder("samples")) == [first.file]
    plan(dataset, "a", "b")
    prepare(dataset)
    assert files(dataset.folder("samples")) == sorted([first.file, second.file])
    assert [name for name in files(dataset.shards) if name.endswith(".tar")] == [tar_of(0), tar_of(1)]
    ShardFiles().delete_outdated(dataset)
    assert files(dataset.shards) == [tar_of(0), tar_of(1)]


def test_rows_whose_tar_is_gone_do_not_come_back(dataset: Dataset) -> None:
    write(dataset, 0, b"whole")
    second = write(dataset, 1, b"whole")
    plan(dataset, "a", "c")
    prepare(dataset)
    (dataset.shards / ".previous" / tar_of(1)).unlink()
    plan(dataset, "a", "b")
    prepare(dataset)
    assert second not in names_in(dataset.folder("samples"))


def test_a_redo_lets_no_shard_come_back(dataset: Dataset) -> None:
    for number in (0, 1):
        write(dataset, number, b"whole")
    prepare(dataset, redo=True)
    prepare(dataset)
    assert {name.made_from for name in names_in(dataset.shards / ".previous")} == {NOTHING}
    assert files(dataset.folder("samples")) == []


def test_shards_that_wait_already_stay_until_a_run_has_ended(dataset: Dataset) -> None:
    for number in (0, 1):
        write(dataset, number, b"whole")
    plan(dataset, "c", "d", "e", "f")
    prepare(dataset)
    begun = b"of a run that did not end"
    write(dataset, 0, begun, tar_of(1))  # the number of one and the tar of another wait
    write(dataset, 2, begun, tar_of(0))
    write(dataset, 3, begun)
    prepare(dataset)
    aside = dataset.shards / ".previous"
    assert [name for name in files(aside) if name.endswith(".tar")] == [tar_of(number) for number in (0, 1, 3)]
    assert {(aside / tar_of(number)).read_bytes() for number in (0, 1)} == {b"whole"}
    assert [name.number for name in names_in(aside)] == [0, 1, 3]
