"""Many tars are listed in groups on the runner: the same parts as one process writes, and no group twice."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.ingest import tar_groups
from curation.ingest.listing import Listed, update_listing
from curation.ingest.tar_groups import ListTars
from curation.sources import SourceListing, list_pieces
from engine.dataset import Dataset
from engine.runner import LocalRunner, PartFailed, Queue
from schemas.recipe import DataRecipe
from tests.building import recipe, rows
from tests.trees import content

MEMBERS = {"1.jpg": b"one", "1.txt": b"a house", "1.json": b'{"caption": "two dogs"}', "2.png": b"two", "3.cls": b"7"}


def tar_bytes(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataRecipe:
    """Seven tars, one cut and one compressed, in groups of two; and a folder of two shards of img2dataset."""
    monkeypatch.setattr(tar_groups, "TARS_PER_GROUP", 2)
    for folder in ("tars", "fetched"):
        (tmp_path / folder).mkdir()
    for number in range(6):
        (tmp_path / "tars" / f"{number}.tar").write_bytes(tar_bytes(MEMBERS)[: 1600 if number == 3 else None])
    (tmp_path / "tars" / "4.tar.gz").write_bytes(b"")
    for number in range(5):
        key = f"{number:05d}0000"
        table = {"key": [key], "status": ["success"], "url": ["http://x/1"], "caption": ["fetched"]}
        pq.write_table(pa.table(table), tmp_path / "fetched" / f"{number:05d}.parquet")
        (tmp_path / "fetched" / f"{number:05d}.tar").write_bytes(tar_bytes({f"{key}.jpg": b"1", f"{key}.html": b"2"}))
    sources = [{"kind": "webdataset", "urls": str(tmp_path / "tars"), "captions": {"json_fields": ["caption"]}}]
    fetched = {"kind": "img2dataset", "path": str(tmp_path / "fetched")}
    return recipe(None, tmp_path / "ds", sources=[*sources, fetched], part_rows=3)


class Dying(LocalRunner):
    """Ends before the third group."""

    def run_queues(self, dataset: Dataset, queues: Sequence[Queue]) -> None:
        del queues[0].waiting[2]
        queues[0].waiting.rotate(1)  # the order in which groups end says nothing
        super().run_queues(dataset, queues)
        raise KeyboardInterrupt


def at(made: DataRecipe, out: Path) -> tuple[Dataset, DataRecipe]:
    return Dataset(out), made.model_copy(update={"out": str(out)})


def test_groups_give_the_bytes_of_one_process_and_a_kill_reads_no_group_twice(
    made: DataRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, recipe_alone = at(made, tmp_path / "alone")
    found: Listed = update_listing(alone.held(), recipe_alone)
    read: list[str] = []

    def noting(source: Any, pieces: Sequence[str], counts: SourceListing) -> Any:
        read.extend(Path(piece).name for piece in pieces)
        return list_pieces(source, pieces, counts)

    monkeypatch.setattr(tar_groups, "list_pieces", noting)
    dataset, here = at(made, tmp_path / "ds")
    with pytest.raises(KeyboardInterrupt):
        update_listing(dataset.held(), here, Dying)
    assert sorted(read) == ["0.tar", "1.tar", "2.tar", "3.tar", "5.tar"] and dataset.parts("listing") == []
    assert update_listing(dataset.held(), here, LocalRunner) == found
    assert sorted(read) == sorted({*read}) and len(read) == 12
    assert content(dataset.root) == content(alone.root)
    assert [row["reason"] for row in rows(dataset, "listing")].count(None) == 16
    assert found.ignored["cls"] == 5 and found.ignored["html"] == 5


def test_other_options_read_every_group_again(made: DataRecipe, tmp_path: Path) -> None:
    dataset = Dataset(made.out_path())
    with pytest.raises(KeyboardInterrupt):
        update_listing(dataset.held(), made, Dying)
    without = {"kind": "webdataset", "urls": str(tmp_path / "tars"), "captions": {"json_fields": []}}
    changed = DataRecipe.from_mapping(
        {"sources": [without], "out": made.out, "part_rows": 3, "run": {"runner": "local"}}
    )
    update_listing(dataset.held(), changed, LocalRunner)
    assert {row["raw_caption"] for row in rows(dataset, "listing")} == {"a house", None}


def test_a_group_that_cannot_be_read_now_is_named_and_the_job_can_be_sent_to_any_machine(
    made: DataRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> Any:
        raise ValueError("s3://b/3.tar: cannot be read (timed out); run again once it can")

    monkeypatch.setattr(tar_groups, "list_pieces", failing)
    with pytest.raises(PartFailed, match=r"ingest stopped at part 0: s3://b/3\.tar: cannot be read \(timed out\)"):
        update_listing(Dataset(made.out_path()).held(), made, LocalRunner)
    job = ListTars(source=made.all_sources()[0], folder=Path("/x"))
    assert pickle.loads(pickle.dumps(job)) == job
