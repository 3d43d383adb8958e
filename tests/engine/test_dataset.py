from __future__ import annotations

import errno
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.dataset import (
    TEMPORARY,
    Dataset,
    JobRecord,
    commit_table,
    count_rows,
    read_parquet,
    read_some,
)
from engine.names import Held, PartName
from engine.part_check import problem_of
from schemas.commit import atomic_write, write_bytes
from schemas.tables import schema_of
from tests.building import put, table_of
from tests.processes import Python


def scores(*values: float) -> pa.Table:
    return table_of("scores", ({"row_id": row, "aesthetic": value} for row, value in enumerate(values)))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# ------------------------------------------------------------------------------------------------ a commit


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("mine")])
def test_a_commit_that_fails_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), atomic_write(tmp_path / "deep" / "file") as file:
        file.write(b"half")
        raise error
    assert files(tmp_path) == []


def test_a_commit_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"old")
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "file") as file:
        file.write(b"new")
        raise RuntimeError
    assert (tmp_path / "file").read_bytes() == b"old"
    assert files(tmp_path) == ["file"]


def test_nothing_has_the_name_before_it_is_whole(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file") as file:
        file.write(b"all")
        assert not (tmp_path / "file").exists()
        assert [name for name in os.listdir(tmp_path) if name.startswith(TEMPORARY)] == os.listdir(tmp_path)
    assert (tmp_path / "file").read_bytes() == b"all"


def test_a_commit_over_an_old_file_gives_a_new_one(tmp_path: Path) -> None:
    """A reader that has the old file open keeps reading the old bytes."""
    write_bytes(tmp_path / "file", b"old")
    with (tmp_path / "file").open("rb") as reader:
        write_bytes(tmp_path / "file", b"new")
        assert reader.read() == b"old"


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    table = scores(1.5, 2.5, 3.5)
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1).replace_schema_metadata({"x": "y"})])
    described = {"b": "2", "a": "1"}
    commit_table(tmp_path / "a.parquet", table, schema_of("scores"), described)
    commit_table(tmp_path / "b.parquet", pieces, schema_of("scores"), dict(reversed(described.items())))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_commit_keeps_the_contract(tmp_path: Path) -> None:
    loose = pa.table({"aesthetic": [1.0], "aesthetic_scorer": ["s"], "image_id": ["i"], "row_id": [0], "more": [1]})
    commit_table(tmp_path / "a.parquet", loose, schema_of("scores"), {})
    assert pq.read_schema(tmp_path / "a.parquet").remove_metadata() == schema_of("scores")


def test_a_missing_row_id_is_refused(tmp_path: Path) -> None:
    table = pa.table({f.name: pa.array([None], f.type) for f in schema_of("scores")})
    with pytest.raises(ValueError, match="row_id"):
        commit_table(tmp_path / "a.parquet", table, schema_of("scores"), {})
    assert files(tmp_path) == []


# ------------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"PAR1",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data[:8] + bytes(16) + data[24:],
        lambda data: b"<html>" * 100,
    ],
    ids=["empty", "head only", "half", "last byte gone", "zeros in the data", "html"],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "part-00000.parquet"
    commit_table(path, scores(*range(100)), schema_of("scores"), {})
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ValueError) as refused:
        read_parquet(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: damaged (")
    assert message.endswith("; delete it and run sigma build again")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSPC, errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EACCES])
def test_what_the_machine_refuses_is_no_damage(tmp_path: Path, number: int) -> None:
    path = put(Dataset(tmp_path), "scores", 0, scores(*range(5)))
    refusing = patch("engine.dataset.pq.ParquetFile", side_effect=OSError(number, os.strerror(number)))
    with refusing, pytest.raises(OSError, match=r"^((?!delete).)*$") as refused:
        read_parquet(path)
    assert (refused.value.errno, refused.value.filename) == (number, str(path))
    with refusing, pytest.raises(OSError, match=r"^((?!damaged).)*$"):
        problem_of(path, "scores")


@pytest.mark.slow
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_another_value(tmp_path: Path, place: float, bit: int) -> None:
    table = scores(*range(50))
    path = put(Dataset(tmp_path), "scores", 0, table)
    data = bytearray(path.read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    flipped = int(place * len(data))
    data[flipped] ^= 1 << bit
    path.write_bytes(bytes(data))
    assert problem_of(path, "scores") is not None
    try:
        found = read_parquet(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: damaged (")
    else:  # the bit lies in the header of a page, which a reader of the rows does not compare
        assert flipped < footer and found.equals(table)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    for table in ("images", "selection"):
        with pytest.raises(ValueError, match=rf"{table}/part-00007: missing; run sigma build again"):
            Dataset(tmp_path).read_part(table, 7)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    put(dataset, "listing", 0, table_of("listing", []))
    path = put(dataset, "selection", 0, table_of("selection", []))
    path.write_bytes(b"PAR1")
    for read in (lambda: dataset.read_part("selection", 0), lambda: count_rows(path)):
        with pytest.raises(ValueError, match=rf"{path}: damaged"):
            read()


def test_rows_are_read_by_their_row_groups(tmp_path: Path) -> None:
    commit_table(tmp_path / "rows", scores(*range(100)), schema_of("scores"), {}, row_group_rows=10)
    assert read_some(tmp_path / "rows", "row_id", [29])["row_id"].to_pylist() == [29]
    assert read_some(tmp_path / "rows", "row_id", [100]).num_rows == 0


def test_a_folder_above_is_no_column(tmp_path: Path) -> None:
    """Arrow would take `width=7` in a path for a partition."""
    dataset = Dataset(tmp_path / "aesthetic=7" / "x=1")
    put(dataset, "listing", 0, table_of("listing", []))
    put(dataset, "scores", 0, scores(1.0))
    assert dataset.read_part("scores", 0).column_names == schema_of("scores").names
    assert dataset.read_table("scores")["aesthetic"].to_pylist() == [1.0]


# ------------------------------------------------------------------------------------------------ what lies where


def test_parts_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    for number in (99_999, 100_000, 2, 100_001, 10):
        write_bytes(dataset.folder("listing") / PartName(number, "0" * 12, "1" * 12).file, b"")
    numbers = list(dataset.held().parts("listing"))
    assert numbers == [2, 10, 99_999, 100_000, 100_001]


def test_a_sweep_takes_what_is_half_written_and_nothing_else(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    whole = [
        dataset.folder("images") / PartName(0, "0" * 12, "1" * 12).file,
        dataset.shards / "1.0" / "1.0-000000.tar",
        dataset.runs / "now-ingest.json",
        dataset.record_path("images"),
    ]
    for path in whole:
        write_bytes(path, b"{}")
        path.with_name(f"{TEMPORARY}4711-{path.name}").write_bytes(b"half")
    dataset.sweep()
    assert files(tmp_path) == sorted(str(path.relative_to(tmp_path)) for path in whole)


def test_a_record_is_read_back(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    assert dataset.record("images") is None
    record = JobRecord("ingest", {"ingest.proxy_px": 1024}, ["listing"], ["abc"], [1, 9])
    dataset.write_record("images", record)
    assert dataset.record("images") == record


@pytest.mark.parametrize("text", [b"", b"{", b'{"job": 1}', b"[]", b"\xff\xfe"])
def test_a_damaged_record_is_named(tmp_path: Path, text: bytes) -> None:
    dataset = Dataset(tmp_path)
    write_bytes(dataset.record_path("images"), text)
    with pytest.raises(ValueError, match=r"images\.json: damaged .*; delete it to have images computed again"):
        dataset.record("images")


# ------------------------------------------------------------------------------------------------ the lock

HOLD = """
import sys
from pathlib import Path
from engine.dataset import Dataset
with Dataset(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_by_the_pid_of_the_first(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "ds")
    holder = Python("-c", HOLD, dataset.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for _ in range(2):
            with pytest.raises(ValueError) as refused, dataset.lock():
                pytest.fail("two writers")
            message = str(refused.value)
            assert message.startswith(f"{dataset.root}: process {holder.pid} on ")
            assert message.endswith(" is writing this dataset; wait for it, or stop it and run again")
    finally:
        holder.kill()
        holder.wait()
    with dataset.lock():  # the lock went with the process, and says who holds it now
        assert (dataset.root / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_the_rows_of_a_file_that_was_replaced_are_counted_anew(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    for num_rows in (1, 3, 2):
        commit_table(path, scores(*range(num_rows)), schema_of("scores"), {})
        assert [count_rows(path), count_rows(path)] == [num_rows, num_rows]
    path.unlink()
    with pytest.raises(ValueError, match="missing; run sigma build again"):
        count_rows(path)


def test_threads_that_ask_at_once_what_holds_all_see_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser fetches a page of pictures at once, and a store takes a while to list a table."""
    dataset = Dataset(tmp_path)
    source = {"source": "s", "source_name": "s", "member": "m"}
    for number in range(3):
        put(dataset, "listing", number, table_of("listing", [{"row_id": number, **source}]))
    listed = Held.listed

    def slowly(held: Held, table: str) -> list[PartName]:
        time.sleep(0.02)
        return listed(held, table)

    monkeypatch.setattr(Held, "listed", slowly)
    held = dataset.held()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: len(held.parts("listing")), range(8)))
    assert found == [3] * 8


def test_what_a_desktop_leaves_among_the_parts_is_no_part() -> None:
    name = PartName(3, "0a" * 6, "1b" * 6)
    assert PartName.parse(name.file) == name and PartName.parse(PartName(123456, "0", "1").file) is not None
    stem, ending = name.file.removesuffix(".parquet"), ".parquet"
    for stray in (
        *("folder", "", ".", ".DS_Store", f"._{name.file}", f"{stem} (1){ending}", f"{stem} - Copy{ending}"),
        *(
            f"{name.file}.tmp",
            f"{stem}.2{ending}",
            name.file.replace("00003", "000003"),
            name.file.replace("3", "\u00b3"),
        ),
    ):
        assert PartName.parse(stray) is None, stray


@pytest.mark.parametrize(
    ("table", "command"),
    [
        ("tables/features/ours/clip-clip", "sigma evaluate RECIPE"),
        ("tables/results", "sigma evaluate RECIPE"),
        ("paid/pictures/ours", "sigma evaluate RECIPE"),
        ("paid/verdicts", "sigma judge RECIPE"),
        ("tables/captions_beside/vlm", "sigma build"),
        ("tables/scores", "sigma build"),
        ("elsewhere", "sigma build"),
    ],
)
def test_a_damaged_part_names_the_command_that_writes_it(tmp_path: Path, table: str, command: str) -> None:
    path = tmp_path / table / "part-00000.parquet"
    with pytest.raises(ValueError, match=f"missing; run {command} again to have it written"):
        read_parquet(path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"damaged \(.*\); delete it and run {command} again"):
        read_parquet(path)
