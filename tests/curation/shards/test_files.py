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
    write_bytes(dataset.previous("samples") / "part-00007.parquet", b"of an older plan")
    write_bytes(dataset.shards / ".previous/1.0/1.0-000007.tar", b"of an older plan")
    writer.map_job(recipe(tmp_path / "photos", tmp_path), dataset).set_aside(dataset)
    assert files(dataset.shards) == [".previous/1.0/1.0-000000.tar"]
    assert files(dataset.tables) == [".previous/samples/part-00000.parquet"]
    part = tmp_path / "part.parquet"
    for shard, comes_back in (("1.0/1.0-000000.tar", True), (None, True), ("1.0/1.0-000001.tar", False)):
        commit_table(part, table_of("samples", [sample("1.0/1.0-000000.tar"), sample(shard)]), SAMPLES, {})
        assert ShardFiles().take_back(dataset, part) is comes_back
        assert files(dataset.shards) == ["1.0/1.0-000000.tar"]
    writer.map_job(recipe(tmp_path / "photos", tmp_path), dataset).delete(dataset)
    assert files(dataset.root) == ["part.parquet"]
