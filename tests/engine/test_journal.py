"""Rows that are paid for are on the disk batch by batch."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pytest

from engine.dataset import TEMPORARY, Dataset
from engine.journal import Journal, delete_journals
from tests.building import table_of


def captions(*row_ids: int) -> pa.Table:
    made = ({"row_id": row, "image_id": f"{row}", "captioner": "c", "caption": f"Picture {row}."} for row in row_ids)
    return table_of("captions", made)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.of(Dataset(tmp_path), "captions", 7)


def row_ids(journal: Journal) -> list[int]:
    return sorted(journal.rows()["row_id"].to_pylist())


def test_a_batch_is_a_file_of_its_own_and_the_same_batch_is_the_same_file(journal: Journal) -> None:
    assert not journal.folder.exists() and row_ids(journal) == []
    for rows in (captions(1, 2), captions(3), captions(1, 2)):
        journal.append(rows)
    assert len(list(journal.folder.iterdir())) == 2
    assert row_ids(journal) == [1, 2, 3]
    assert set(journal.rows()["caption"].to_pylist()) == {"Picture 1.", "Picture 2.", "Picture 3."}


def test_what_a_killed_worker_was_writing_counts_as_not_written(journal: Journal, tmp_path: Path) -> None:
    journal.append(captions(1))
    (journal.folder / f"{TEMPORARY}1-half.parquet").write_bytes(b"PAR1")
    assert row_ids(journal) == [1]
    Dataset(tmp_path).sweep()
    assert len(list(journal.folder.iterdir())) == 1


def test_a_damaged_batch_costs_itself_alone(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    journal.append(captions(1))
    (path,) = journal.folder.iterdir()
    journal.append(captions(2))
    path.write_bytes(path.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        assert row_ids(journal) == [2]
    assert f"{path}: damaged" in caplog.text


def test_a_full_disk_loses_no_earlier_batch(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.append(captions(1))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("engine.dataset.pq.write_table", full)
        with pytest.raises(OSError, match="No space left"):
            journal.append(captions(2))
    assert row_ids(journal) == [1]
    assert len(list(journal.folder.iterdir())) == 1


def test_it_is_forgotten_alone_or_with_all_of_its_table(journal: Journal, tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    others = Journal.of(dataset, "captions", 8), Journal.of(dataset, "captions_beside/vlm", 7)
    for each in (journal, *others):
        each.append(captions(1))
    journal.delete()
    assert [row_ids(each) for each in (journal, *others)] == [[], [1], [1]]
    delete_journals(dataset, "captions")
    assert [row_ids(each) for each in others] == [[], [1]]
