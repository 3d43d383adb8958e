"""Outdated tars move away with their rows, and come back with them."""

from __future__ import annotations

from pathlib import Path

from curation.shards import writer
from curation.shards.files import ShardFiles
from engine.dataset import Dataset, commit_table
from schemas.commit import write_bytes
from schemas.tables import SAMPLES
from tests.building import recipe, table_of


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def sample(shard: str | None) -> dict[str, object]:
    return {"row_id": 0, "image_id": "0", "bucket": "1.0", "shard": shard}


def test_outdated_shards_go_with_their_rows(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    write_bytes(dataset.shards / "1.0/1.0-000000.tar", b"tar")
    write_bytes(dataset.shards / "index.parquet", b"index")
    write_bytes(dataset.shards / "wids.json", b"{}")
    write_bytes(dataset.part("samples", 0), b"rows")
    writer.map_job(recipe(tmp_path / "photos", tmp_path), dataset).set_aside(dataset)
    assert files(dataset.shards) == [".previous/1.0/1.0-000000.tar"]
    assert files(dataset.tables) == [".previous/samples/part-00000.parquet"]
    part = tmp_path / "part.parquet"
    for shard, comes_back in (("1.0/1.0-000000.tar", True), (None, True), ("1.0/1.0-000001.tar", False)):
        commit_table(part, table_of("samples", [sample("1.0/1.0-000000.tar"), sample(shard)]), SAMPLES, {})
        assert ShardFiles().take_back(dataset, part) is comes_back
        assert files(dataset.shards) == ["1.0/1.0-000000.tar"]
    ShardFiles().set_aside(dataset)
    ShardFiles().delete_set_aside(dataset)
    assert files(dataset.shards) == []


def test_shards_that_wait_already_stay_until_a_run_has_ended(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    job = writer.map_job(recipe(tmp_path / "photos", tmp_path), dataset)

    def write(number: int, shard: str, what: bytes) -> None:
        commit_table(dataset.part("samples", number), table_of("samples", [sample(shard)]), SAMPLES, {"of": str(what)})
        write_bytes(dataset.shards / shard, what)

    write(0, "1.0/1.0-000000.tar", b"whole")
    write(1, "1.0/1.0-000001.tar", b"whole")
    job.set_aside(dataset)
    write(0, "1.0/1.0-000001.tar", b"of a run that did not end")  # the number of one and the tar of another wait
    write(2, "1.0/1.0-000000.tar", b"of a run that did not end")
    write(3, "1.0/1.0-000003.tar", b"of a run that did not end")
    job.set_aside(dataset)
    aside = dataset.shards / ".previous"
    assert files(aside) == [f"1.0/1.0-00000{number}.tar" for number in (0, 1, 3)]
    assert {(aside / f"1.0/1.0-00000{number}.tar").read_bytes() for number in (0, 1)} == {b"whole"}
    assert [path.name[5:10] for path in sorted(dataset.previous("samples").iterdir())] == ["00000", "00001", "00003"]
