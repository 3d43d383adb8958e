"""Rows that are paid for are on the disk batch by batch."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pytest

from engine.dataset import Dataset
from engine.paid import Paid, earlier_names, paid_files, paid_folder, settle_all
from schemas.files import TEMPORARY
from tests.building import table_of


def captions(*row_ids: int) -> pa.Table:
    made = ({"row_id": row, "image_id": f"{row}", "captioner": "c", "caption": f"Picture {row}."} for row in row_ids)
    return table_of("captions", made)


@pytest.fixture
def paid(tmp_path: Path) -> Paid:
    return Paid.of(Dataset(tmp_path), "captions", 7)


def row_ids(paid: Paid) -> list[int]:
    return sorted(paid.noted()["row_id"].to_pylist())


def test_a_batch_is_a_file_of_its_own_and_the_same_batch_is_the_same_file(paid: Paid) -> None:
    assert not paid.batches.exists() and row_ids(paid) == []
    for rows in (captions(1, 2), captions(3), captions(1, 2)):
        paid.note(rows)
    assert len(list(paid.batches.iterdir())) == 2
    assert row_ids(paid) == [1, 2, 3]
    assert set(paid.noted()["caption"].to_pylist()) == {"Picture 1.", "Picture 2.", "Picture 3."}


def test_what_a_killed_worker_was_writing_counts_as_not_written(paid: Paid, tmp_path: Path) -> None:
    paid.note(captions(1))
    (paid.batches / f"{TEMPORARY}1-half.parquet").write_bytes(b"PAR1")
    assert row_ids(paid) == [1]
    Dataset(tmp_path).sweep()
    assert len(list(paid.batches.iterdir())) == 1


def test_a_damaged_batch_costs_itself_alone(paid: Paid, caplog: pytest.LogCaptureFixture) -> None:
    paid.note(captions(1))
    (path,) = paid.batches.iterdir()
    paid.note(captions(2))
    path.write_bytes(path.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        assert row_ids(paid) == [2]
    assert f"{path}: damaged" in caplog.text


def test_a_full_disk_loses_no_earlier_batch(paid: Paid, monkeypatch: pytest.MonkeyPatch) -> None:
    paid.note(captions(1))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("engine.dataset.pq.write_table", full)
        with pytest.raises(OSError, match="No space left"):
            paid.note(captions(2))
    assert row_ids(paid) == [1]
    assert len(list(paid.batches.iterdir())) == 1


def test_what_is_settled_stays_and_the_next_batches_come_beside_it(paid: Paid, tmp_path: Path) -> None:
    others = Paid.of(Dataset(tmp_path), "captions", 8), Paid.of(Dataset(tmp_path), "captions_beside/vlm", 7)
    for each in (paid, *others):
        each.note(captions(1))
    paid.settle()
    paid.note(captions(2))
    assert (paid.earlier()["row_id"].to_pylist(), row_ids(paid)) == ([1], [2])
    settle_all(Dataset(tmp_path), "captions")
    assert sorted(paid.earlier()["row_id"].to_pylist()) == [1, 2] and not paid.batches.exists()
    assert [(row_ids(each), len(each.earlier())) for each in others] == [([], 1), ([1], 0)]


def test_settling_what_was_settled_before_a_kill_changes_nothing(paid: Paid, tmp_path: Path) -> None:
    paid.note(captions(1))
    paid.keep(paid.noted())
    _, before = paid_files(Dataset(tmp_path), [7])
    paid.settle()
    assert list(paid_files(Dataset(tmp_path), range(9))) == [before]


def test_names_of_all_parts_come_from_one_listing_and_what_was_paid_for_is_found_by_its_part(
    paid: Paid, tmp_path: Path
) -> None:
    dataset = Dataset(tmp_path)
    other, beside = Paid.of(dataset, "captions", 8), Paid.of(dataset, "captions_beside/vlm", 7)
    for each, rows in ((paid, captions(1)), (paid, captions(2, 3)), (other, captions(4)), (beside, captions(5))):
        each.keep(rows)
    paid.note(captions(6))
    names = earlier_names(paid.folder)
    assert {number: len(found) for number, found in names.items()} == {7: 2, 8: 1}
    known = Paid.of(dataset, "captions", 7, names[7])
    assert known.earlier() == paid.earlier() and known.earlier().num_rows == 3
    assert Paid.of(dataset, "captions", 7, ()).earlier().num_rows == 0
    found = [(table, path.relative_to(tmp_path / "paid" / table).parts[0]) for table, path in paid_files(dataset, [7])]
    assert sorted({*found}) == [*(("captions", name) for name in ("part-00007", *names[7])),
                                ("captions_beside/vlm", next(iter(earlier_names(beside.folder)[7])))]  # fmt: skip


def test_what_a_stranger_has_put_there_is_passed_over(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    folder = paid_folder(dataset, "captions")
    (folder / "part-00003").mkdir(parents=True)
    names = ("part-00003.0123456789ab.parquet", "part-00003 (copy).0123456789ab.parquet", "part-x.1.parquet")
    for file in (*(folder / name for name in names), folder / "notes.parquet", folder / "part-00003" / "a.parquet"):
        file.touch()
    assert earlier_names(folder) == {3: (names[0],)}
    found = {(table, path.name) for table, path in paid_files(dataset, {3})}
    assert found == {("captions", names[0]), ("captions", "a.parquet")}
