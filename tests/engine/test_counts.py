"""A manifest saves opening the parts of a table, and is never believed more than they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import counts
from engine.counts import FEW, MANIFEST, Counts, count_whole, read_counts
from engine.dataset import Dataset
from schemas.files import delete_files, place_of, read_file
from schemas.seal import write_json
from tests.building import put, table_of
from tests.engine.flowing import jobs, listed
from tests.engine.test_flow import flow
from tests.memory_store import URL, Memory, counted_requests

PARTS = FEW + 4


def forget() -> None:
    """Know what a new process knows."""
    counts._known.clear()


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[Dataset]:
    """One in a store, of which every second row of `raw_captions` has no caption."""
    with Memory().used(tmp_path / "scratch"):
        dataset = listed(place_of(URL), PARTS)
        flow(dataset, jobs(tmp_path / "log", clean={"refuses": True}))
        forget()
        yield dataset


def asked(dataset: Dataset) -> tuple[list[Counts], int]:
    """What a machine that has no copy of a part learns about a table, and by how many requests."""
    paths = dataset.parts("raw_captions")
    for path in paths:
        path.unlink(missing_ok=True)
    forget()
    with counted_requests() as requests:
        return read_counts("raw_captions", paths), requests.total()


EXPECTED = [Counts(2, {"junk": 1})] * PARTS


def test_one_request_counts_a_table(dataset: Dataset) -> None:
    found, requests = asked(dataset)
    assert found == EXPECTED
    assert requests == 1


@pytest.mark.parametrize(
    "damage",
    [
        delete_files,
        lambda path: write_json(path, {}),
        lambda path: write_json(path, {"parts": {"part-00000": 3}}),
        lambda path: write_json(path, {"parts": [1]}),
    ],
)
def test_without_a_whole_manifest_the_parts_are_counted(dataset: Dataset, damage: Callable[[Path], object]) -> None:
    damage(dataset.folder("raw_captions") / MANIFEST)
    found, requests = asked(dataset)
    assert found == EXPECTED
    assert requests == PARTS + 1


def test_of_two_writers_the_last_one_wins_and_what_it_lacks_is_opened(dataset: Dataset) -> None:
    table = "raw_captions"
    parts = dataset.parts(table)
    count_whole(table, parts[3:])
    other = table_of(table, [{"row_id": row, "reason": None, "removed": []} for row in (0, 1)])
    put(dataset, table, 0, other)
    delete_files(parts[0])  # the new part is another content, so of another name
    found, requests = asked(dataset)
    assert found[0] == Counts(2, {})
    assert found[1:] == EXPECTED[1:]
    assert requests == 1 + 3
    count_whole(table, dataset.parts(table))
    assert asked(dataset)[1] == 1


def test_a_manifest_holds_the_same_bytes_whoever_counted(dataset: Dataset) -> None:
    path = dataset.folder("raw_captions") / MANIFEST
    before = read_file(path)
    delete_files(path)
    asked(dataset)
    count_whole("raw_captions", dataset.parts("raw_captions")[::-1])
    assert read_file(path) == before


def test_a_small_table_has_none(tmp_path: Path) -> None:
    dataset = listed(tmp_path / "ds", FEW)
    flow(dataset, jobs(tmp_path / "log"))
    assert list(tmp_path.rglob(f"*{MANIFEST}")) == []
