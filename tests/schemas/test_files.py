"""Files are opened so that nothing is waited for."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from commands.looking import write_report_page
from curation.upkeep.doctor import check_dataset
from engine.catalog import write_catalog
from engine.dataset import Dataset
from engine.ledger import remembered_counts
from schemas.columns import TABLES
from schemas.commit import atomic_write, file_lock
from schemas.files import NoFile, aside_of, at_hand, mount_point, open_file, parquet_source, read_file, shown_place

DATASET_FILES = (
    *("recipe.yaml", ".ledger", "tables/.records/images.json", "tables/.records/listing.json", "runs/*-select.json"),
    *("tables/images/part-00000.*", "tables/proxies/part-00000.*", "tables/samples/part-00000.*"),
    *("shards/index.parquet", "shards/wids.json", "shards/README.md", "shards/*/*.tar", "catalog.duckdb"),
)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def lead_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.fixture(autouse=True)
def seconds() -> Iterator[None]:
    """Whoever waits for a pipe fails, and does not wait for ever."""

    def stop(*_: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("make", [make_pipe, make_socket, lead_to_zeros])
def test_what_is_no_file_is_not_waited_for(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "file"
    make(path)

    def take_lock() -> None:
        with file_lock(path, str):
            pytest.fail("it is no file")

    def give_to_arrow() -> None:
        with parquet_source(path):
            pytest.fail("it is no file")

    for use in (open_file, read_file, at_hand):
        with pytest.raises(NoFile, match=f"a pipe, a socket or a device, not a file.*{path}"):
            use(path)

    def write() -> None:
        with atomic_write(path):
            pytest.fail("it is no file")

    for takes in (take_lock, give_to_arrow, write):
        with pytest.raises(NoFile):
            takes()
    assert path.exists() and not path.is_file(), "as root a rename would take a device away from everybody"


def test_what_this_process_writes_to_is_no_place_for_a_file() -> None:
    for name in ("/dev/null", "/dev/stdout", "/dev/stderr"):
        with pytest.raises(NoFile, match=f"not a file.*{name}"):
            aside_of(Path(name))


def test_a_long_text_is_shown_at_once() -> None:
    begun = time.process_time()
    assert shown_place("a" * 200_000 + f" ({mount_point('s3://bucket/x')})") == "a" * 200_000 + " (s3://bucket/x)"
    assert time.process_time() - begun < 1


def test_a_pipe_that_a_shell_gives_is_read() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"images: photos")
    os.close(write_end)
    assert read_file(Path(f"/dev/fd/{read_end}")) == b"images: photos"
    os.close(read_end)


@pytest.mark.parametrize("pattern", DATASET_FILES)
def test_a_pipe_in_the_place_of_a_file_of_a_dataset_is_found_by_doctor(
    pattern: str, small: Dataset, copy_of: Any
) -> None:
    dataset = copy_of(small)
    path = min(dataset.root.glob(pattern), default=dataset.root / pattern)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    bad = [str(finding) for finding in check_dataset(dataset.root) if not finding.fine]
    assert bad or pattern in (".ledger", "runs/*-select.json", "catalog.duckdb")  # which say nothing of a picture
    assert remembered_counts(dataset.held()) is None or pattern != ".ledger"


@pytest.mark.parametrize("table", ["images", "selection", "samples", "listing"])
@pytest.mark.parametrize("left", [0, 7, 500], ids="{} bytes".format)
def test_a_part_of_which_a_copy_has_the_beginning_is_named(left: int, table: str, small: Dataset, copy_of: Any) -> None:
    dataset = copy_of(small)
    path = dataset.part(table, 0)
    os.truncate(path, left)
    with pytest.raises(
        ValueError, match=f"{path}: damaged .*; (delete it and run sigma build again|put it back from a copy)"
    ):
        write_report_page(dataset.root, None)
    assert any(table == finding.subject and not finding.fine for finding in check_dataset(dataset.root))


@pytest.mark.parametrize("has_records", [True, False])
@pytest.mark.parametrize("table", list(TABLES))
def test_a_dataset_whose_copy_lacks_a_part_is_shown_or_refused_in_one_line(
    table: str, has_records: bool, small: Dataset, copy_of: Any
) -> None:
    dataset = copy_of(small)
    if not has_records:
        shutil.rmtree(dataset.record_path(table).parent)
    for path in dataset.parts(table)[:1]:
        path.unlink()
    with suppress(ValueError):
        write_report_page(dataset.root, None)


SWAPS = [("mix", "scores"), ("raw_captions", "images"), ("captions", "selection"), ("scores", "captions")]


@pytest.mark.parametrize(("one", "other"), [*SWAPS, ("scores", "proxies"), ("mix", "samples")])
def test_a_part_of_one_table_under_the_name_of_another_is_named(
    one: str, other: str, small: Dataset, copy_of: Any
) -> None:
    dataset = copy_of(small)
    shutil.copy(dataset.part(one, 2), dataset.part(other, 1))
    with pytest.raises(
        ValueError, match=f"{other}/part-00001.*(; sigma doctor names what|damaged .*(run sigma build again|a copy))"
    ):
        write_report_page(dataset.root, None)
    assert any(other == finding.subject and not finding.fine for finding in check_dataset(dataset.root))


def test_the_record_of_another_table_in_place_of_the_listings_is_named(small: Dataset, copy_of: Any) -> None:
    dataset = copy_of(small)
    shutil.copy(dataset.record_path("mix"), path := dataset.record_path("listing"))
    with pytest.raises(ValueError, match=f"{path}: damaged .*another table"):
        dataset.held().record("listing")


def test_a_footer_that_only_duckdb_refuses_stops_no_check(small: Dataset, copy_of: Any) -> None:
    dataset = copy_of(small)
    path = dataset.part("fingerprints", 0)
    data = bytearray(path.read_bytes())
    begin = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[begin : begin + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="sigma doctor names what is damaged"):
        write_catalog(dataset)
    assert any(finding.subject == "fingerprints" and not finding.fine for finding in check_dataset(dataset.root))
